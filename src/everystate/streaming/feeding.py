"""Inputs by name: one of them is the sequence; the others go to the model with each chunk."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from everystate.errors import InputError


@dataclass(frozen=True)
class Given:
    """What a model is given.

    Parameters
    ----------
    x : array, path or iterator
        The sequence.
    name : str
        Its name; empty if it is the only input, and goes by none.
    others : mapping
        The other inputs.
    """

    x: Any
    name: str
    others: Mapping[str, Any]


def given(inputs: tuple[Any, ...]) -> Given:
    """Return what a model is given: one input, or several by name.

    Of several the sequence is the one that is no array in memory, or else the largest.

    Raises
    ------
    InputError
        If there are several without names, or it is not clear which one is the sequence.
    """
    if len(inputs) != 1:
        raise InputError(
            f"store= and reduce= take one input, the sequence; got {len(inputs)}. Where the "
            "model's inputs have names, as those of files have, give one mapping from names to "
            "inputs. Else wrap the model in one that supplies the rest, or give step=."
        )
    (x,) = inputs
    if not isinstance(x, Mapping):
        return Given(x, "", {})
    named = {str(getattr(name, "name", name)): value for name, value in x.items()}  # or a tensor
    sizes = {name: _size(value) for name, value in named.items()}
    longest = [name for name, size in sizes.items() if size == max(sizes.values())]
    if len(longest) != 1:
        raise InputError(
            f"which of the inputs {', '.join(sizes) or '(there are none)'} is the sequence? It has "
            "to be the only one that is on the disk or an iterator, or the largest array."
        )
    (name,) = longest
    return Given(named.pop(name), name, named)


def _size(value: Any) -> float:
    """Return how many numbers an input holds; without end where it is not in memory."""
    array = np.asarray(value) if isinstance(value, (bool, int, float, list, np.generic)) else value
    in_memory = hasattr(array, "shape") and not isinstance(array, np.memmap)
    return float(np.prod(array.shape)) if in_memory else np.inf
