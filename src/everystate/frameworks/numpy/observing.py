"""The NumPy path as a framework: whether a model is one, its layers, observing and calling it.

A model is the path of a ``.safetensors`` file, a `Stack`, or a mapping of them, as `load`
returns it; or a cell of one's own (see `custom`).
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from os import PathLike, fspath
from typing import Any

import numpy as np

from everystate.errors import AmbiguousLayerError, SelectionError
from everystate.frameworks.numpy import custom
from everystate.frameworks.numpy.inputs import Given
from everystate.frameworks.numpy.loading import load
from everystate.frameworks.numpy.reading import SUFFIX, Tensor
from everystate.frameworks.numpy.stack import Stack
from everystate.frameworks.numpy.stepping import Layer
from everystate.recording.observation import Observation
from everystate.recording.recorder import Recorder
from everystate.recording.warning import warn

_opened: ContextVar[tuple[tuple[str, Mapping[str, Stack]], ...]] = ContextVar("opened", default=())
"""Files that are being observed, innermost last: `call` runs the very stacks that are watched."""


def matches(model: object) -> bool:
    """Whether `model` is a ``.safetensors`` file's path, a `Stack`, several, or a user's cell."""
    if custom.matches(model):
        return True
    if isinstance(model, str | PathLike):
        return str(fspath(model)).endswith(SUFFIX)
    if isinstance(model, Mapping):
        return bool(model) and all(isinstance(stack, Stack) for stack in model.values())
    return isinstance(model, Stack)


def layers(model: Any) -> list[str]:
    """Return the leaf path of each layer and direction.

    Raises
    ------
    WeightsError
        If `model` is a path whose file does not hold recurrent layers.
    """
    if custom.matches(model):
        return [custom.path_of(model)]
    return [layer.path for stack in stacks_of(model).values() for layer in stack.layers]


@contextmanager
def observe(model: Any, recorder: Recorder) -> Iterator[None]:
    """Hand every call of the model's stacks to `recorder` (see `Framework.observe`)."""
    if custom.matches(model):
        with custom.observe(model, recorder):
            yield
        return
    stacks = stacks_of(model)
    watcher = _Watcher(recorder)
    watched = [s for s in stacks.values() if any(recorder.wants(a.path) for a in s.layers)]
    token = None
    if isinstance(model, str | PathLike):
        token = _opened.set((*_opened.get(), (str(fspath(model)), stacks)))
    for stack in watched:
        stack.watchers.append(watcher)
    try:
        yield
    finally:
        for stack in watched:
            stack.watchers.remove(watcher)
        if token is not None:
            _opened.reset(token)


def call(model: Any, inputs: Sequence[Any]) -> object:
    """Call the one stack that the selection takes (see `Stack.__call__`).

    Raises
    ------
    AmbiguousLayerError
        If there are several; the message lists them.
    """
    if custom.matches(model):
        return custom.call(model, inputs)
    return chosen_stack(model, inputs)(*inputs)


def chosen_stack(model: Any, inputs: Sequence[Any]) -> Stack:
    """Return the one stack that the selection takes, or raise `AmbiguousLayerError`."""
    stacks = stacks_of(model)
    chosen = [stack for stack in stacks.values() if stack.watchers] or list(stacks.values())
    if len(chosen) > 1:
        names = ", ".join(f"{stack.name} ({stack.describe()})" for stack in chosen)
        last = [getattr(x, "shape", ())[-1:] for x in inputs[:1]]
        name = next((stack.name for stack in chosen if (stack.features,) in last), chosen[0].name)
        raise AmbiguousLayerError(
            f"which of {len(chosen)} recurrent stacks reads the data? There are {names}. Say "
            f"select=es.Select(layers={name!r}), on the command line --layers "
            f"{name}. To feed one from another, load() the file and call each."
        )
    return chosen[0]


def stacks_of(model: Any) -> Mapping[str, Stack]:
    """Return a model's stacks by name; of a file that is observed, those that are watched."""
    if isinstance(model, Stack):
        return {model.name: model}
    if isinstance(model, Mapping):
        return model
    path = str(fspath(model))
    opened = [stacks for name, stacks in _opened.get() if name == path]
    return opened[-1] if opened else load(model)


@dataclass(eq=False)
class _Watcher:
    """Tells a recorder what the stacks do."""

    recorder: Recorder
    finals: dict[str, list[dict[str, Tensor]]] = field(default_factory=dict)
    """For each stack called in this run, the states that its last call ended with."""
    goes_on: bool = False

    def begin(self, stack: Stack, given: Given) -> None:
        """Warn of odd values; see whether the call goes on in time where the last one stopped."""
        _warn_not_finite(stack, given)
        before = self.finals.get(stack.name)
        one_way = len(stack.levels[0]) == 1 and given.lengths is None
        self.goes_on = (
            before is not None and one_way and not given.stateless and _equal(before, given.initial)
        )
        if before is not None and not self.goes_on:
            self.finals.clear()  # the recorder begins a new run
        self.finals[stack.name] = []

    def wanted(self, stack: Stack, layer: Layer, given: Given) -> set[str]:
        """Return the selected variables; just ``h`` where few steps are selected.

        The gates of a few steps are replayed from ``h``, so that all others need no memory.
        """
        if not self.recorder.wants(layer.path):
            return set()
        select = self.recorder.select
        every_step = replace(select, every=1, window=None)
        # Where a stream goes on, its window is counted from a step that is not known here.
        alone = self.recorder.along == "batch" and not self.goes_on
        plan = (select if alone else every_step).plan(_outline(stack, layer, given))
        if self.recorder.own_call and not plan.steps:
            there = given.x.shape[0]
            raise SelectionError(
                f"{layer.path}: window={select.window!r} holds none of the {there} steps."
            )
        few = select.every > 1 or select.window is not None
        return set() if few else set(plan.variables) & set(stack.cell.variables)

    def stepped(self, done: int, total: int) -> None:
        """Pass progress on."""
        if self.recorder.progress is not None:
            self.recorder.progress(done, total)

    def observe(self, stack: Stack, seen: Observation) -> None:
        """Hand one layer over."""
        self.finals[stack.name].append(dict(seen.final))
        self.recorder.observe(seen, goes_on=self.goes_on)


def _outline(stack: Stack, layer: Layer, given: Given) -> Observation:
    """Return an observation of the right shapes without its memory, to ask what is selected."""
    shape = (*given.x.shape[:2], stack.sizes["h"])
    nothing = np.broadcast_to(np.zeros((), stack.dtype), shape)
    return Observation(
        layer.path, {"h": nothing}, {}, inputs=given.x, cell=stack.cell, weights=layer.weights
    )


def _equal(a: Sequence[Mapping[str, Tensor]], b: Sequence[Mapping[str, Tensor]]) -> bool:
    pairs = [(x[name], y[name]) for x, y in zip(a, b, strict=True) for name in x]
    return all(np.array_equal(x, y, equal_nan=True) for x, y in pairs)


def _warn_not_finite(stack: Stack, given: Given) -> None:
    odd = ~np.isfinite(given.x)
    if given.lengths is not None:
        odd &= (np.arange(odd.shape[0])[:, None] < given.lengths)[:, :, None]
    if odd.any():
        step, row, feature = (int(k) for k in np.argwhere(odd)[0])
        warn(
            f"{stack.name}: {int(odd.sum())} values of the input are NaN or infinite, the first at "
            f"step {step} (row {row}, feature {feature}); what they lead to is recorded as it is."
        )
