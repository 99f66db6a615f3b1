"""`Select`: what of a model to record. What is not selected is not computed."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
import numpy.typing as npt

from everystate import schema
from everystate.errors import SelectionError, UnknownLayerError
from everystate.recording.observation import Observation

STORABLE = ("float16", "float32", "float64")
GATES = "gates"
COMMON = ("h", "c", "i", "f", "g", "o", "r", "z", "n")
"""Variables that some layer of a model may have and another not."""


@dataclass(frozen=True)
class Select:
    """Which layers, variables, units and steps to record, and how to store them.

    Parameters
    ----------
    layers : str or sequence of str, optional
        Glob patterns on paths, dots or slashes alike (``"encoder.*"``, ``"*/layer_1"``). A
        pattern that matches a module takes all layers and directions in it. None: all.
    variables : str or sequence of str
        Names such as ``h``, ``c``, ``f``; ``gates`` for all gates; ``inputs`` for what the
        layer was given. Default: states and gates.
    units : int, slice or sequence of int, optional
        Which units of the cell; negative ones count from the end. A projected ``h`` has units
        of its own and is kept whole. None: all.
    every : int
        Keep each `every`-th step, from the first of the window on.
    window : tuple of (start, stop), or slice, optional
        Half-open range of steps; None at either end leaves it open.
    dtype : {"float16", "float32", "float64"}, optional
        Storage dtype. None: as computed.

    Raises
    ------
    SelectionError
        If an argument cannot mean anything, such as ``every=0``.

    Examples
    --------
    >>> Select(layers="encoder.*", variables=("h", "c"), every=10).every
    10
    """

    layers: str | Sequence[str] | None = None
    variables: str | Sequence[str] = ("states", GATES)
    units: int | slice | Sequence[int] | None = None
    every: int = 1
    window: tuple[int | None, int | None] | slice | None = None
    dtype: str | type | np.dtype[np.generic] | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot mean anything."""
        if not _whole(self.every) or self.every < 1:
            raise SelectionError(
                f"every={self.every!r}: expected a whole number of steps, 1 or more."
            )
        if self.dtype is not None and self.storage not in STORABLE:
            raise SelectionError(f"dtype={self.dtype!r}: expected one of {', '.join(STORABLE)}.")
        if isinstance(self.window, slice) and self.window.step not in (None, 1):
            raise SelectionError(
                f"window={self.window}: a step belongs in every=, not in the window."
            )
        if len(self._bounds) != 2 or not all(b is None or _whole(b) for b in self._bounds):
            raise SelectionError(
                f"window={self.window!r}: expected (start, stop), each a whole number or None."
            )
        for option, names in (("layers", self._named), ("variables", self.asked)):
            if not names or not all(isinstance(name, str) for name in names):
                given = getattr(self, option)
                raise SelectionError(f"{option}={given!r}: expected one name or several, as text.")

    @property
    def storage(self) -> str | None:
        """The storage dtype's name, or None."""
        try:
            return None if self.dtype is None else np.dtype(self.dtype).name
        except TypeError:
            return str(self.dtype)

    @property
    def asked(self) -> tuple[str, ...]:
        """The variables asked for."""
        return _several(self.variables)

    @property
    def only_output(self) -> bool:
        """Whether nothing is asked for but what every layer puts out and is given."""
        return {*self.asked} <= {schema.H, schema.INPUTS}

    @property
    def only_states(self) -> bool:
        """Whether no gates are asked for, but more than what every layer puts out."""
        return {*self.asked} <= {"states", schema.H, "c", schema.INPUTS} and not self.only_output

    @property
    def counts_from_end(self) -> bool:
        """Whether the window is counted from the end of the sequence."""
        return any(bound is not None and bound < 0 for bound in self._bounds)

    @property
    def _bounds(self) -> tuple[int | None, ...]:
        w = (None, None) if self.window is None else self.window
        return (w.start, w.stop) if isinstance(w, slice) else _several(w)

    @property
    def _named(self) -> tuple[str, ...]:
        return ("*",) if self.layers is None else _several(self.layers)

    @property
    def patterns(self) -> tuple[str, ...]:
        """The layer patterns, with slashes."""
        return tuple(pattern.replace(".", "/").strip("/") for pattern in self._named)

    def wants(self, path: str) -> bool:
        """Whether a layer, or a module above it, matches one of the patterns."""
        return any(_matches(path, pattern) for pattern in self.patterns)

    def check_layers(self, paths: Iterable[str]) -> None:
        """Raise if a pattern matches none of the model's layers.

        Raises
        ------
        UnknownLayerError
            The message lists the layers that there are.
        """
        known = list(paths)
        for given, pattern in zip(self._named, self.patterns, strict=True):
            if not any(_matches(path, pattern) for path in known):
                there = ", ".join(known) if known else "none"
                raise UnknownLayerError(
                    f"no recurrent layer matches {given!r}; the model has: {there}."
                )

    def steps(self, path: str, count: int, offset: int | None = None) -> range:
        """Return which steps to record, counted from the first of `count`.

        Parameters
        ----------
        path : str
            The layer's path, for the message.
        count : int
            Steps there are.
        offset : int, optional
            Steps of the stream that went before them. None: this is the whole sequence.

        Raises
        ------
        SelectionError
            If the window counts from the end of a stream.
        """
        before, w = offset or 0, self.window
        if offset is not None and self.counts_from_end:
            raise SelectionError(
                f"{path}: window={w!r} counts from the end, which a stream does not have yet."
            )
        first, last, _ = slice(*self._bounds).indices(before + count)
        every = int(self.every)
        if first < before:
            first += -((first - before) // every) * every  # the first one not gone by yet
        return range(first - before, max(last, first) - before, every)

    def plan(self, seen: Observation, offset: int | None = None) -> "Plan":
        """Return what to record of one observation.

        Parameters
        ----------
        seen : Observation
            The sequence.
        offset : int, optional
            Steps of the stream that went before it. None: it is a whole sequence.

        Raises
        ------
        SelectionError
            If a variable or unit is unknown, or the window counts from the end of a stream.
        """
        return Plan(
            variables=self._variables(seen),
            steps=self.steps(seen.path, seen.steps, offset),
            units=self._units(seen),
            dtype=self.storage,
        )

    def _variables(self, seen: Observation) -> tuple[str, ...]:
        gates = seen.gates
        groups = {
            "states": tuple(v for v in seen.variables if v not in gates),
            GATES: gates,
            schema.INPUTS: () if seen.inputs is None else (schema.INPUTS,),
            **{name: (name,) for name in seen.variables},
        }
        chosen: list[str] = []
        for name in self.asked:
            if name not in groups and name not in COMMON:
                there = ", ".join(groups)
                raise SelectionError(f"{seen.path}: no variable {name!r}; there are {there}.")
            chosen += groups.get(name, ())  # a model may mix families: a GRU has no c
        return tuple(dict.fromkeys(chosen))

    def _units(self, seen: Observation) -> npt.NDArray[np.int64] | None:
        if self.units is None:
            return None
        count = seen.width
        if isinstance(self.units, slice):
            chosen = np.arange(count)[self.units]
        else:
            chosen = np.atleast_1d(np.asarray(self.units))
            if chosen.ndim != 1 or (chosen.size and chosen.dtype.kind not in "iu"):
                raise SelectionError(
                    f"{seen.path}: units={self.units!r}: expected whole numbers or a slice."
                )
            if (chosen >= count).any() or (chosen < -count).any():
                raise SelectionError(
                    f"{seen.path}: units={self.units!r}, but it has {count} units, 0 to "
                    f"{count - 1}."
                )
            chosen = chosen.astype(np.int64) % count
        if not chosen.size:
            raise SelectionError(f"{seen.path}: units={self.units!r} is none of its {count} units.")
        return chosen


def _matches(path: str, pattern: str) -> bool:
    """Whether a pattern matches a layer's path, or that of a module above it."""
    parts = path.split("/")
    return any(fnmatchcase("/".join(parts[: k + 1]), pattern) for k in range(len(parts)))


def _whole(value: object) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def _several(value: Any) -> tuple[Any, ...]:
    """Return one or several values as a tuple."""
    one = isinstance(value, str) or not isinstance(value, Iterable)
    return (value,) if one else tuple(value)


@dataclass(frozen=True)
class Plan:
    """A selection resolved for one layer: plain names, steps and indices."""

    variables: tuple[str, ...]
    steps: range
    units: npt.NDArray[np.int64] | None
    dtype: str | None
