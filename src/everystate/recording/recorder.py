"""`Recorder`: takes observations as they come, records them, and joins them into a trace."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
from array_api_compat import array_namespace

from everystate import schema
from everystate.cells.activations import Array
from everystate.errors import (
    InputError,
    NothingRecordedError,
    SelectionError,
)
from everystate.recording.join import ALONG, Along, fill, join, make_room
from everystate.recording.observation import Lengths, Observation, as_numpy
from everystate.recording.replay import Recorded, replay
from everystate.recording.selection import Select
from everystate.recording.trace import Labels, build_trace, weights_digest
from everystate.recording.warning import warn

Progress = Callable[[int, int], None]
"""Called with the steps done and the steps in all."""


class Recorder:
    """Collects what the layers of one model do; `trace` is the result.

    A *run* is one call of the model. Sequences of one layer in different runs are joined;
    several sequences of one layer within a run (a layer shared between two places) become
    leaves of their own, ``call_0``, ``call_1``.

    Parameters
    ----------
    model : str
        What the model is called.
    framework : str
        Distribution of the framework, for the trace's attributes.
    select : Select
        What to record.
    along : {"batch", "time"}
        How runs are joined.
    labels : tuple of two array-like, optional
        Labels of all steps, and of all rows.
    progress : callable, optional
        Called with (steps done, steps in all) by whoever steps a model slowly.
    own_call : bool
        Whether the model is run for the recording alone, so that nobody sees its results: a
        framework module may then run a layer in a way of its own that shows more.
    """

    def __init__(
        self,
        model: str,
        framework: str,
        select: Select,
        along: Along = "batch",
        labels: tuple[Labels, Labels] = (None, None),
        progress: Progress | None = None,
        own_call: bool = False,
    ) -> None:
        if along not in ALONG:
            raise SelectionError(f"along={along!r}: expected 'batch' or 'time'.")
        self.model, self.framework = model, framework
        self.select, self.along, self.labels = select, along, labels
        self.progress, self.own_call = progress, own_call
        # For each run, each layer's sequences; a sequence comes in one part or several.
        self._runs: list[dict[str, list[list[Recorded]]]] = []
        # Steps gone by, for each layer and its place among the layer's calls in a run.
        self._offsets: dict[tuple[str, int], int] = {}
        self._digests: dict[str, tuple[str, str]] = {}
        self._called: dict[str, tuple[str, ...]] = {}
        self._odd_inputs: set[str] = set()
        self._in_run = False
        self._call: Callable[[Sequence[Any]], object] | None = None
        self.pending: list[Callable[[], None]] = []
        """What hands over the steps that observers still hold back; called before `trace`."""

    def __repr__(self) -> str:
        """Say how many calls of which layers were recorded so far."""
        layers = Counter(path for run in self._runs for path, found in run.items() for _ in found)
        calls = ", ".join(f"{path} ({count})" for path, count in layers.items())
        return f"<Recorder of {self.model}: {f'calls of {calls}' if calls else 'no call so far'}>"

    @contextmanager
    def calling(self, call: Callable[[Sequence[Any]], object]) -> Iterator[None]:
        """Have `run` call the model by `call`, which takes its inputs, as long as a block lasts."""
        self._call = call
        try:
            yield
        finally:
            self._call = None

    def run(self, *inputs: Any) -> Any:
        """Call the model once and return what it returns; for a model that is a file.

        Parameters
        ----------
        *inputs : array, or mapping
            What the model is called with, as `everystate.record` takes it.

        Returns
        -------
        object
            Of an ONNX file a mapping from the names of its outputs to arrays.

        Raises
        ------
        NothingRecordedError
            If the block is over.
        """
        if self._call is None:
            raise NothingRecordedError(
                f"run of {self.model}: the block is over, so nothing would be recorded. Call run "
                "inside of the with statement."
            )
        return self._call(inputs)

    @property
    def called(self) -> list[str]:
        """Leaf paths of the layers that were called so far, of those that are wanted."""
        return sorted(self._called)

    def wants(self, path: str) -> bool:
        """Whether the selection takes this layer; what it does not take need not be observed."""
        return self.select.wants(path)

    def begin_run(self) -> None:
        """Say that a call of the whole model begins."""
        self._in_run = True
        self._runs.append({})

    def end_run(self) -> None:
        """Say that the call of the whole model is over."""
        self._in_run = False

    def observe(self, seen: Observation, *, goes_on: bool = False) -> None:
        """Record one sequence of one layer.

        Parameters
        ----------
        seen : Observation
            The sequence.
        goes_on : bool
            Whether it starts where the layer's last sequence stopped, as a decoder that is
            called chunk by chunk; the two are then one sequence.

        Raises
        ------
        ReplayMismatchError
            If its replay does not match what the framework computed.
        InputError
            If the sequence has no steps or no rows.
        SelectionError
            If the selection asks for variables, units or steps that it does not have.
        """
        if not self.wants(seen.path):
            return
        self._check(seen)
        sequences = self._sequences(seen.path, goes_on)
        call = seen.path, len(sequences) - goes_on
        offset = self._offset(call, seen, goes_on)
        plan = self.select.plan(seen, offset)
        self._offsets[call] = (offset or 0) + seen.steps
        if not plan.variables:
            return
        recorded = self._light(replay(seen, plan), seen, goes_on)
        if not goes_on:
            if seen.whole:
                make_room(recorded, len(self.select.steps(seen.path, seen.whole, offset)))
            sequences.append([recorded])
        elif not fill(sequences[-1][-1], recorded):
            sequences[-1].append(recorded)

    def _check(self, seen: Observation) -> None:
        """Refuse a sequence without steps or rows; note NaN or infinity in what it was given."""
        if not seen.steps or not seen.batch:
            raise InputError(
                f"{seen.path}: got {seen.steps} time steps of {seen.batch} rows, expected 1 or "
                "more of each. There is nothing to record; check what the model was given."
            )
        self._called[seen.path] = seen.variables
        if seen.inputs is not None and _odd(seen.inputs, range(seen.steps), seen.lengths):
            self._odd_inputs.add(seen.path)

    def _sequences(self, path: str, goes_on: bool) -> list[list[Recorded]]:
        """Return the layer's sequences in the run that the next one belongs to."""
        if goes_on:
            return next(run[path] for run in reversed(self._runs) if path in run)
        if not self._runs or (not self._in_run and path in self._runs[-1]):
            self._runs.append({})
        return self._runs[-1].setdefault(path, [])

    def _light(self, recorded: Recorded, seen: Observation, goes_on: bool) -> Recorded:
        """Replace the weights by their digest, taken at the layer's first call.

        Training may change them from call to call, and a copy or a digest a call is too much;
        their sums tell.
        """
        if seen.weights is not None:
            digest, changed = self._digest(seen, goes_on)
            recorded.attrs |= {"weights_sha256": digest, "weights_changed": int(changed)}
        recorded.seen = replace(recorded.seen, weights=None)
        return recorded

    def _digest(self, seen: Observation, goes_on: bool) -> tuple[str, bool]:
        """Return the digest at the layer's first call, and whether the weights changed since."""
        assert seen.weights is not None
        if goes_on and seen.whole:  # a further chunk of one call, within which nothing trains
            return self._digests[seen.path][0], False
        sums = str([float(array_namespace(a).sum(a)) for _, a in seen.weights.items()])
        if seen.path not in self._digests:
            self._digests[seen.path] = weights_digest(seen.weights), sums
        digest, first_sums = self._digests[seen.path]
        return digest, sums != first_sums

    def _offset(self, call: tuple[str, int], seen: Observation, goes_on: bool) -> int | None:
        """Return how many steps of a stream went before a sequence; None if it is no stream."""
        if goes_on or self.along == "time":
            return self._offsets.get(call, 0)
        return 0 if seen.whole else None

    @property
    def trace(self) -> xr.DataTree:
        """What was recorded so far, as a trace.

        Raises
        ------
        NothingRecordedError
            If no recurrent layer was called.
        JoinError
            If the calls' shapes do not fit together.
        """
        for hand_over in self.pending:
            hand_over()
        parts: dict[str, list[Recorded]] = {}
        several = {path for run in self._runs for path, found in run.items() if len(found) > 1}
        for run in self._runs:
            for path, sequences in run.items():
                for k, pieces in enumerate(sequences):
                    name = f"{path}/call_{k}" if path in several else path
                    parts.setdefault(name, []).append(_one(pieces))
        if not parts:
            raise self._nothing()
        layers = [self._joined(path, sequences) for path, sequences in parts.items()]
        time, batch = self.labels
        return build_trace(
            layers, model=self.model, frameworks=[self.framework], time=time, batch=batch
        )

    def _nothing(self) -> NothingRecordedError:
        if self._called:
            there = "; ".join(f"{p} has {', '.join(self._called[p])}" for p in self.called[:8])
            return NothingRecordedError(
                f"none of the layers called has any of variables={self.select.variables!r}: "
                f"{there}. Leave variables= out for all there are."
            )
        return NothingRecordedError(
            f"no recurrent layer of {self.model} was called while recording. Call the model "
            "inside the block, and as a whole: a forward method called directly is not seen. "
            "A function, or a model that is a file, is called by the recorder: rec.run(x)."
        )

    def _joined(self, path: str, sequences: list[Recorded]) -> Recorded:
        joined = replace(join(sequences, self.along), path=path)
        if not joined.steps.size:
            raise SelectionError(
                f"{path}: window={self.select.window!r} holds none of the {joined.length} steps."
            )
        if schema.INPUTS in self.select.asked and schema.INPUTS not in joined.variables:
            warn(
                f"{path}: inputs were asked for, but what this layer was given is not seen in a "
                f"model of {self.framework}, so the trace lacks them."
            )
        self._warn(path, joined.attrs, odd_variables(joined), sequences[0].path)
        return joined

    def _warn(self, path: str, attrs: Mapping[str, Any], odd: list[str], layer: str) -> None:
        """Warn of what a leaf's user would not expect: resets, training, NaN."""
        if "state_resets" in attrs:
            warn(
                f"{path}: calls joined along time do not start from the state the call before "
                f"ended with, at steps {attrs['state_resets']}. Pass the state on if this "
                "is one stream, or join along='batch'."
            )
        if attrs.get("weights_changed"):
            warn(
                f"{path}: its weights changed between the calls joined here, so one trace shows "
                "several models; weights_sha256 is of the first. Record each in a block of its own."
            )
        if layer in self._odd_inputs:
            odd = ["its input", *(name for name in odd if name != schema.INPUTS)]
        where = f"{path}: NaN or infinite values in {', '.join(odd) or 'its states'}"
        if unverified := int(attrs.get("unverified_values", 0)):
            warn(
                f"{where}. The replay cannot follow what the kernel made of them: {unverified:,} "
                "of the kernel's own values could not be verified, and what is replayed there is "
                "unknown, not the kernel's."
            )
        elif odd:
            warn(f"{where}, recorded as they are.")


def _one(pieces: Sequence[Recorded]) -> Recorded:
    """Return a sequence that came in pieces; a step's own state between them is no new start."""
    joined = join(pieces, "time")
    joined.attrs.pop("state_resets", None)
    return joined


def odd_variables(recorded: Recorded) -> list[str]:
    """Return the variables that hold NaN or infinity before the rows' ends.

    Not the gates of a layer that skipped steps: they are NaN there on purpose.
    """
    skipped = schema.SKIPPED_ATTR in recorded.attrs
    looked_at = dict(recorded.variables)
    for gate in recorded.seen.known_gates if skipped else ():
        looked_at.pop(gate, None)
    return [n for n, a in looked_at.items() if _odd(a, recorded.steps, recorded.lengths)]


def _odd(a: Array, steps: Sequence[int] | npt.NDArray[np.int64], lengths: Lengths | None) -> bool:
    """Whether there is NaN or infinity, time-major, before the rows' ends."""
    with np.errstate(all="ignore"):
        if np.isfinite(float(array_namespace(a).sum(a))):  # either outlasts any sum
            return False
    odd = ~np.isfinite(as_numpy(a)).all(axis=-1)
    if lengths is not None:
        odd &= np.asarray(steps)[:, None] < lengths
    return bool(odd.any())
