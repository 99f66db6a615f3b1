"""Cells that are written out as single operators: what shows each step, and what comes of a run.

States and gates are the very values that the model computes: none is replayed.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from everystate.frameworks.onnx.files import Tensor
from everystate.frameworks.onnx.graph import Calls, Exposure, Value
from everystate.frameworks.onnx.written import Written
from everystate.recording.observation import Observation, widened

RANK_OF_STEP: Final = 2
"""Of a state's step: rows and units."""


@dataclass(frozen=True, eq=False)
class ShownSteps:
    """A layer whose steps are shown.

    Parameters
    ----------
    written : Written
        The layer.
    steps : list of mapping
        Where states and gates of each step are found, by name.
    initial : mapping
        Where each state before the first step is found, as far as the graph tells.
    mask : Value, optional
        Where it is found which rows take a step. None: all do.
    """

    written: Written
    steps: Sequence[Mapping[str, Value]]
    initial: Mapping[str, Value]
    mask: Value | None = None

    @property
    def path(self) -> str:
        """Its leaf path."""
        return self.written.path

    @property
    def levels(self) -> int:
        """How many loops it is inside of."""
        return self.written.scope.levels

    def observations(self, results: Mapping[str, Tensor]) -> Iterator[Observation]:
        """Yield every sequence that the layer processed.

        Parameters
        ----------
        results : mapping
            What was fed to the model, and what it put out.
        """
        h = results[self.steps[0]["h"].name]
        if not h.size:
            return  # inside a branch that was not taken, or of a loop without iterations
        loops = h.shape[: self.levels]
        steps = [{n: v.calls(results, loops) for n, v in step.items()} for step in self.steps]
        initial = {n: v.calls(results, loops) for n, v in self.initial.items()}
        for run in _runs(steps[-1], initial, int(np.prod(loops, dtype=int))):
            seen = self._observation(steps, initial, run)
            yield (
                seen
                if self.mask is None
                else self._masked(seen, self.mask.calls(results, loops), run)
            )

    def _masked(self, seen: Observation, mask: Calls, run: range) -> Observation:
        """Return an observation that knows which steps were skipped."""
        taken = [np.broadcast_to(mask[k].reshape(-1), seen.batch) for k in run]
        return replace(seen, skipped=np.stack(taken) != self.written.mask.true)

    def _observation(
        self, steps: Sequence[Mapping[str, Calls]], initial: Mapping[str, Calls], run: range
    ) -> Observation:
        cell = self.written.steps[0].cell
        observed = {
            name: np.stack([_rows(step[name][k]) for k in run for step in steps])
            for name in steps[0]
        }
        told = {"cell": cell.family, "module": "ops", "update": cell.update}
        return Observation(
            path=self.path,
            observed={n: a[::-1] if self.written.reverse else a for n, a in observed.items()},
            initial={
                n: np.broadcast_to(_rows(calls[run[0]]), observed[n].shape[1:])
                for n, calls in initial.items()
            },
            final={n: observed[n][-1] for n in ("h", "c") if n in observed},
            reverse=self.written.reverse,
            precision=steps[0]["h"].array.dtype.name,
            attrs={name: said for name, said in told.items() if said},
        )


def _runs(last: Mapping[str, Calls], initial: Mapping[str, Calls], count: int) -> Iterator[range]:
    """Yield the iterations that are one sequence: each begins with what the last ended in."""
    start = 0
    for k in range(1, count + 1):
        if k == count or not _goes_on(last, initial, k):
            yield range(start, k)
            start = k


def _goes_on(last: Mapping[str, Calls], initial: Mapping[str, Calls], k: int) -> bool:
    """Whether an iteration begins with the states that the one before ended in, NaN among them."""
    pairs = [(last[name][k - 1], calls[k]) for name, calls in initial.items()]
    return bool(pairs) and all(np.array_equal(a, b, equal_nan=True) for a, b in pairs)


def _rows(a: Tensor) -> Tensor:
    """Return a state after one step as (batch, units); half precision as float32."""
    wide = widened(a)
    if wide.ndim == RANK_OF_STEP + 1 and 1 in wide.shape[:RANK_OF_STEP]:
        return wide.reshape(-1, wide.shape[-1])  # an axis of layers, or of steps
    return wide.reshape((1, -1) if wide.ndim < RANK_OF_STEP else (len(wide), -1))


def show_steps(written: Written, exposure: Exposure) -> ShownSteps:
    """Show the states and gates of a layer that is written out.

    Parameters
    ----------
    written : Written
        The layer.
    exposure : Exposure
        What shows values.
    """
    scope, first = written.scope, written.steps[0]
    steps = [
        {n: exposure.value(scope, str(v)) for n, v in {**step.after, **step.cell.gates}.items()}
        for step in written.steps
    ]
    initial = {n: exposure.value(scope, v) for n, v in first.before.items()}
    mask = exposure.value(scope, written.mask.name) if written.mask.name else None
    return ShownSteps(written, steps, initial, mask)
