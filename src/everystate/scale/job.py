"""`Job` and `Target`: what is the same for all shards, and the model that a worker has loaded."""

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import xarray as xr

from everystate.errors import EverystateError, UnsupportedModelError
from everystate.recording.selection import Select
from everystate.scale.batches import stacked
from everystate.scale.inputs.source import Values
from everystate.scale.options import Batching
from everystate.storage.shared.reductions import Node
from everystate.storage.shared.root import Root
from everystate.storage.shared.writing import Leaf
from everystate.streaming.reductions import Reductions
from everystate.streaming.sink import Outline
from everystate.streaming.verbs import record

_kept = threading.local()
"""The model that a thread has loaded, and of which job: models are not shared by threads."""

_loading = threading.Lock()
"""One thread of a process loads at a time: who sets a seed while loading sets it for all."""


@dataclass(frozen=True)
class Job:
    """What is the same for all shards.

    Parameters
    ----------
    id : str
        Tells this run from others on the same workers.
    load_model : callable, str or path-like
        Returns the model, or is its file.
    select : Select
        What to record.
    batching : Batching
        How the model is called.
    features : int
        Features of every sequence.
    reduce : reducer, several, or mapping by name
        What is made of each sequence. None of it: an empty mapping.
    full : bool
        Whether the steps themselves are stored.
    """

    id: str
    load_model: Callable[[], Any] | str | os.PathLike[str]
    select: Select
    batching: Batching
    features: int
    reduce: Any
    full: bool

    @property
    def described(self) -> str:
        """What of it decides the values, in words that are the same in another process."""
        said = f"{self.select}, pad={self.batching.pad}, time_first={self.batching.time_first}"
        made = self.reductions().described
        return f"{said}, reduce={made}, full={self.full}" if made else said

    def reductions(self) -> Reductions:
        """Return what makes something of one sequence."""
        return Reductions(self.reduce, Outline("", "", []), int(self.select.every))

    @property
    def model(self) -> Any:
        """The model, loaded when a thread first asks for it."""
        if getattr(_kept, "id", None) != self.id:
            with _loading:
                _kept.model = _load(self.load_model)
            _kept.id = self.id
        return _kept.model

    def record(self, sequences: list[Values]) -> xr.DataTree:
        """Record sequences in one call of the model."""
        x = stacked(sequences, time_first=self.batching.time_first)
        return record(self.model, x, select=self.select)


@dataclass(frozen=True)
class Target:
    """Where the rows of all shards go.

    Parameters
    ----------
    root : Root
        The trace's place.
    leaves : list of Leaf
        Its layers.
    weights : dict of str to str
        SHA-256 of the weights of each layer.
    nodes : list of Node
        What is made of each row.
    """

    root: Root
    leaves: list[Leaf]
    weights: dict[str, str]
    nodes: list[Node]


def _load(load_model: Any) -> Any:
    if not callable(load_model):
        path = os.fspath(load_model)
        if not path.endswith(".safetensors"):
            return path
        from everystate.frameworks.numpy import load

        return load(path)
    try:
        return load_model()
    except EverystateError:
        raise
    except Exception as error:
        raise UnsupportedModelError(
            f"loading the model on a worker failed: {type(error).__name__}: {error}. Each worker "
            "calls load_model() by itself: the files it reads must be there."
        ) from error
