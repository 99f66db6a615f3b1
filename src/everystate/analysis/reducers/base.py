"""`Reducer`: what all of them share.

A reducer is made with its options, fed block by block, and asked for its result at any time:

* a block is (time, batch, unit), steps in their order, NaN past a row's length;
* its state is a few arrays whose size depends on the units and the options, never on the steps;
* what two reducers have seen can be merged, along batch or along time. `update` is nothing else
  than merging what one block says, so cutting the steps in other blocks changes no result
  beyond rounding (that of `Quantiles`: beyond its error bound);
* `state` and `restore` hand the state over as plain arrays, so that whoever writes a trace can
  stop and go on.

Reducers use NumPy alone; xarray is met in `result` only. A new one is a file: a dataclass of
options with `_of`, `_joined` and `_labelled`.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, Self, get_args

import numpy as np
import numpy.typing as npt
import xarray as xr

from everystate import schema
from everystate.analysis.reducers.span import Part, Span, State, Values
from everystate.errors import InputError, InputTypeError, JoinError, NothingRecordedError

Along = Literal["batch", "time"]

SPAN: Final = "span"
OPTIONS: Final = "options"


@dataclass
class Reducer(ABC):
    """A figure of all steps, made in one pass. Subclasses are dataclasses of their options."""

    _seen: Part | None = field(default=None, init=False, repr=False, compare=False)

    @abstractmethod
    def _of(self, block: Values, span: Span) -> State:
        """Return what one block says. It may be kept, but not be written to."""

    @abstractmethod
    def _joined(self, a: Part, b: Part, *, seam: bool) -> State:
        """Return what two parts say, `b` behind `a`; with a seam, going on with its last rows."""

    @abstractmethod
    def _labelled(self, seen: Part) -> xr.Dataset:
        """Return the result."""

    def update(self, block: npt.ArrayLike, first_step: int = 0, every: int = 1) -> None:
        """Take in the next steps of the rows so far, or the first steps of other rows.

        Parameters
        ----------
        block : array-like, shape (time, batch, unit)
            Steps in their order; NaN past a row's length.
        first_step : int
            Number of its first step. Where the last block ended: the same rows go on. Where the
            first block began: other rows begin. Default: 0.
        every : int
            How many steps of the sequence each step here is apart from the next. Default: 1.

        Raises
        ------
        InputError, InputTypeError
            If it has another number of dimensions, or holds no real numbers.
        JoinError
            If steps are missing, or the number of rows or units is another.
        """
        values = _checked(block)
        if not values.size:
            return
        part = self._part(values, first_step, every)
        if self._seen is None:
            self._seen = part
            return
        span = self._seen.span
        begins = first_step == span.start and first_step != span.stop
        self._take(part, seam=not begins)

    def merge(self, other: Self, along: Along = "batch") -> None:
        """Take in what another reducer with the same options has seen.

        Parameters
        ----------
        other : reducer of the same class and options
            It is left as it is.
        along : {"batch", "time"}
            ``"batch"``: it has seen other rows, which are numbered behind those so far. ``"time"``:
            it has seen the steps behind those so far, of the same rows; what spans the seam (a
            lag, a context) is made whole.

        Raises
        ------
        JoinError
            If its class, options or units differ; along time, if its steps do not follow.
        """
        if along not in get_args(Along):
            raise JoinError(f"along={along!r}: expected 'batch' or 'time'.")
        if other != self:
            raise JoinError(f"{other!r} cannot be merged into {self!r}: their options differ.")
        if other._seen is not None:
            self._take(other._seen, seam=along == "time")

    def result(self) -> xr.Dataset:
        """Return the figures of all that was seen so far.

        Raises
        ------
        NothingRecordedError
            If that is nothing.
        """
        found = self.figures()
        assert self._seen is not None
        return found.assign_coords({schema.UNIT: np.arange(self._seen.span.units)})

    def figures(self) -> xr.Dataset:
        """Return the result without labels of the units, which takes a fraction of the time.

        For many results that have the same labels. It raises what `result` does.
        """
        if self._seen is None:
            raise NothingRecordedError(f"{self!r} has seen no step yet: call update(block) first.")
        return self._labelled(self._seen)

    def state(self) -> State:
        """Return the state as arrays, for a file; empty before the first block."""
        if self._seen is None:
            return {}
        span = self._seen.span.to_array()
        return {OPTIONS: np.array(repr(self)), SPAN: span, **self._seen.state}

    def restore(self, state: Mapping[str, npt.NDArray[np.generic]]) -> None:
        """Go on from a state that `state` returned.

        Raises
        ------
        JoinError
            If it is that of other options.
        """
        if not state:
            self._seen = None
            return
        if str(state[OPTIONS]) != repr(self):
            raise JoinError(f"the state is that of {state[OPTIONS]}, which is not {self!r}.")
        rest = {name: np.asarray(a) for name, a in state.items() if name not in (SPAN, OPTIONS)}
        self._seen = Part(Span.from_array(state[SPAN]), rest)

    def _part(self, values: Values, first_step: int, every: int) -> Part:
        span = Span.of(values, first_step, every)
        return Part(span, self._of(values, span))

    def _take(self, part: Part, *, seam: bool) -> None:
        if self._seen is None:
            self._seen = part
            return
        span = self._seen.span.then(part.span, seam=seam)
        self._seen = Part(span, self._joined(self._seen, part, seam=seam))


def _checked(block: npt.ArrayLike) -> Values:
    array = np.asarray(block)
    if array.ndim != 3:
        raise InputError(
            f"got a block of shape {array.shape}, expected (time, batch, unit). A single row has "
            "a batch of 1: block[:, None]."
        )
    if array.dtype.kind not in "fiub":
        raise InputTypeError(f"got a block of {array.dtype}, expected real numbers.")
    return array.astype(np.float64)


def finite(values: Values) -> Values:
    """Return the values with NaN in place of what is not finite."""
    good = np.isfinite(values)
    return values if good.all() else np.where(good, values, np.nan)


def by_unit(block: Values) -> Values:
    """Return a block's values as (unit, row, step), which is quick to sum unit by unit."""
    return np.ascontiguousarray(block.transpose(2, 1, 0))


def variable(
    values: npt.ArrayLike, dims: tuple[str, ...], long_name: str, units: str
) -> xr.Variable:
    """Return a labelled array."""
    return xr.Variable(dims, np.asarray(values), {"long_name": long_name, "units": units})


def counts(values: npt.ArrayLike, what: str = "finite values") -> xr.Variable:
    """Return how many values each unit has."""
    return variable(values, (schema.UNIT,), f"number of {what}", schema.UNITS)
