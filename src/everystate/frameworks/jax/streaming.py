"""Running a function chunk by chunk: each scan along time goes on where the last one ended.

Which scans run along time, and along which axis of the input, is tried without numbers: the
function is traced on inputs of two lengths, and a scan along time has as many steps as the input.
"""

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import jax
import numpy as np

from everystate.errors import InputError, UncuttableError
from everystate.frameworks.jax.carries import storable
from everystate.frameworks.jax.records import Found, FoundScan, FoundTag
from everystate.frameworks.jax.running import Target, block_of, watch_all
from everystate.frameworks.jax.tracing import Arguments, Compiled, trace
from everystate.recording.stream import Step, Stream

LENGTHS: Final = (29, 31)
"""Steps of the two inputs that are tried: no sizes that layers have."""
State = list[list[Any]]
"""What each scan along time ended with."""


@dataclass(frozen=True)
class Along:
    """Along which axis of its input a function runs, and which of its scans do.

    Parameters
    ----------
    axis : int
        The axis.
    places : tuple of int
        The places of the scans, in order of evaluation.
    reason : str, optional
        Why the function cannot be cut. None: it can.
    """

    axis: int
    places: tuple[int, ...]
    reason: str | None = None


def stream_of(model: object, target: Target, *, sees_calls: bool = False) -> Stream:
    """Return how to run a model chunk by chunk (see `everystate.recording.stream.Stream`).

    Parameters
    ----------
    model : object
        The model, as it is recorded.
    target : Target
        The model as a function of one input.
    sees_calls : bool
        Whether calls that somebody else makes of the model are all that a step of the user's need
        be seen by. If not, it is traced in the model's place, so `jax.jit` must be able to take it.
    """
    chunks = Chunks(model, target)
    if sees_calls:
        return Stream(chunks.step, chunks.time_axis)
    return Stream(chunks.step, chunks.time_axis, by=chunks.by)


class Chunks:
    """Runs a function of one input, chunk by chunk.

    Parameters
    ----------
    model : object
        The model, as it is recorded.
    target : Target
        The model as a function.
    """

    def __init__(self, model: object, target: Target) -> None:
        self.model, self.target = model, target
        # Objects of their own: those of the model are of other classes while it is watched.
        self.own = jax.tree.map(lambda leaf: leaf, target.args)
        self._programs: dict[Hashable, Compiled] = {}
        self._along: Along | None = None

    def time_axis(self, x: Any) -> int:
        """Return which axis of an input is time.

        Raises
        ------
        InputError
            If the function's scans do not tell.
        """
        try:
            return self._look(x).axis
        except UncuttableError as error:
            raise InputError(
                f"which axis of the input of shape {tuple(x.shape)} is time? {error} Say "
                "time_axis=0 or time_axis=1."
            ) from error

    def step(self, x: Any, state: State | None) -> tuple[Any, State]:
        """Run one chunk; return the output, and what its scans along time ended with.

        Raises
        ------
        UncuttableError
            If the function cannot be cut.
        """
        along = self._look(x)
        if along.reason is not None:
            raise UncuttableError(along.reason)
        program = self._program(x, along, state)
        carried = [] if state is None else [a for scan in state for a in scan]
        result, found = program.run([*Arguments((*self.own, x)).arrays, *carried])
        scans = [f for f in found if isinstance(f, FoundScan) and f.place in along.places]
        for scan in scans:
            if _length(scan) != x.shape[along.axis]:
                raise UncuttableError(_not_along(scan, x.shape[along.axis]))
        if (block := block_of(self.model)) is not None:
            block.hand_over(found, self.target, program.traced)
        return self.target.finish(result), [[storable(a) for a in f.final] for f in scans]

    def by(self, step: Step) -> Step:
        """Return a step of the user's that is run in the model's place, so that it is seen."""

        def traced(x: Any, state: Any) -> tuple[Any, Any]:
            return step(x, state)

        # Whose cells are watched is looked up in what a function wraps.
        traced.__wrapped__ = self.model  # type: ignore[attr-defined]
        target = replace(self.target, fn=traced, args=(), finish=lambda result: result, key=step)

        def seen(x: Any, state: Any) -> tuple[Any, Any]:
            state = jax.tree.map(_traceable, state)
            block = block_of(self.model)
            result: tuple[Any, Any] = (
                step(x, state) if block is None else block.call(target, (x, state))
            )
            return result

        return seen

    def _program(self, x: Any, along: Along, state: State | None) -> Compiled:
        """Return the function for chunks of a kind, traced once."""
        key = (Arguments((x,)).kind, state is None)
        if key not in self._programs:
            scans = [None] * len(along.places) if state is None else state
            if len(scans) != len(along.places):
                raise UncuttableError("its scans are not those that the state was carried by.")
            given = Arguments((*self.own, x))
            traced = trace(self.target.fn, given, watch_all)
            program = traced.compiled(given.arrays, dict(zip(along.places, scans, strict=True)))
            self._programs[key] = program
        return self._programs[key]

    def _look(self, x: Any) -> Along:
        """Find out, once, along which axis the function runs."""
        if self._along is None:
            self._along = self._found(x)
        return self._along

    def _found(self, x: Any) -> Along:
        shape, along, error = list(x.shape), None, None
        # The longest first: as long as it is, a function may be slow to trace on anything.
        for axis in sorted(range(len(shape)), key=lambda axis: -shape[axis]):
            try:
                pair = [self._found_on(x, shape, axis, steps) for steps in LENGTHS]
            except Exception as raised:  # whatever it says of a shape that it does not take
                error = raised
                continue
            if _lengths(pair[0]) == _lengths(pair[1]):
                continue
            if along is not None:
                raise UncuttableError("its scans run along several axes of its input.")
            along, shape[axis] = _along(axis, pair), LENGTHS[0]
        if along is None:
            raise UncuttableError("none of its scans is seen to run along its input.") from error
        return along

    def _found_on(self, x: Any, shape: list[int], axis: int, steps: int) -> list[Found]:
        """Return what is in the function, given an input like `x` with so many steps."""
        sizes = [*shape[:axis], steps, *shape[axis + 1 :]]
        like = np.zeros((), str(x.dtype).rpartition(".")[2])
        given = Arguments((*self.own, np.broadcast_to(like, sizes)))
        return trace(self.target.fn, given, watch_all).found(given.arrays)


def _traceable(value: Any) -> Any:
    """Return a number as an array, as `jax.jit` does: else each number makes another function."""
    return jax.numpy.asarray(value) if isinstance(value, (int, float, complex)) else value


def _lengths(found: Sequence[Found], depth: int = 0) -> list[Any]:
    """Return how many steps scans have, and those in them, and how many cells are in none."""
    cells = [f for f in found if isinstance(f, FoundTag) and f.mark.role == "after"]
    scans = [f for f in found if isinstance(f, FoundScan)]
    return [len(cells), *([_length(f, depth), *_lengths(f.inner, depth + 1)] for f in scans)]


def _length(scan: FoundScan, depth: int = 0) -> int | None:
    """Return a scan's steps; None if it carries nothing, whose steps do not matter."""
    return int(scan.carried[0].shape[depth]) if scan.carried else None


def _along(axis: int, pair: Sequence[Sequence[Found]]) -> Along:
    """Return which scans have as many steps as the input, and why others are in the way."""
    places = []
    scans = [[f for f in found if isinstance(f, FoundScan)] for found in pair]
    reasons = list(_called(pair[0]))
    for one, other in zip(*scans, strict=False):
        if (_length(one), _length(other)) == LENGTHS and one.place is not None:
            places.append(one.place)
            reasons += _backwards(one)
        elif _lengths([one]) != _lengths([other]):
            reasons.append(_not_along(one, LENGTHS[0]))
    return Along(axis, tuple(places), next(iter(reasons), None))


def _called(found: Sequence[Found]) -> Iterator[str]:
    """Yield what is said outside of scans of how cells are called."""
    for f in found:
        if isinstance(f, FoundTag) and f.mark.role == "lengths":
            yield f"{f.mark.call.path} is given seq_lengths: its rows end apart."
        if isinstance(f, FoundTag) and f.mark.role == "after":
            yield (
                f"{f.mark.call.path} is a cell that is called step by step in a Python loop, not "
                "in a lax.scan."
            )


def _backwards(scan: FoundScan) -> Iterator[str]:
    calls = [t.mark.call for t in scan.tags if t.mark.call.reverse]
    if scan.reverse or calls:
        what = calls[0].path if calls else f"a scan ({scan.source})"
        yield f"{what} reads backwards: it begins at the end of the sequence."


def _not_along(scan: FoundScan, steps: int) -> str:
    """Say why a scan whose steps depend on those of the input, so many, cannot go on."""
    where = f"a scan ({scan.source})"
    if scan.place is None:
        return f"{where} is within a lax.cond or a shard_map, which hand on no state."
    if any(isinstance(f, FoundScan) for f in scan.inner):
        return f"{where} has a scan along time in it: only the outermost scans hand on their state."
    return f"{where} runs {_length(scan)} steps over an input of {steps}, not one for each."
