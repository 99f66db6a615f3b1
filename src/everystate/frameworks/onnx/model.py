"""ONNX for the public verbs: a model's file, or a `ModelProto`."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import cached_property
from os import fspath
from typing import Any, Final, NoReturn

import numpy as np
import onnx

from everystate.errors import InputError, UnsupportedModelError
from everystate.frameworks.onnx.files import Source, Tensor, is_model_file, read_model
from everystate.frameworks.onnx.finding import find
from everystate.frameworks.onnx.plan import Plan, plan
from everystate.frameworks.onnx.session import Session
from everystate.recording.observation import Observation
from everystate.recording.recorder import Recorder

RANK_OF_X: Final = 3
_observed: ContextVar[tuple["Observed", ...]] = ContextVar("onnx_observed", default=())
"""Models that are being observed, innermost last: `call` runs these."""


def _as_it_is(source: Source) -> None:
    """Leave a model as it is."""


@dataclass(eq=False)
class Observed:
    """A model that reports to a recorder when it is run; it is prepared when it is first run.

    Parameters
    ----------
    model : path or onnx.ModelProto
        The model.
    recorder : Recorder, optional
        Whom it reports to. None: nobody.
    rewrite : callable
        Changes the model as it was read, before anything of it is shown.
    """

    model: Any
    recorder: Recorder | None = None
    rewrite: Callable[[Source], None] = _as_it_is

    _stepwise: bool = True
    _first: Sequence[Any] = ()

    @cached_property
    def ready(self) -> tuple[Plan, Session, list[str]]:
        """What is shown of the model, the model ready to run, and its outputs."""
        source = read_model(self.model)
        self.rewrite(source)
        own = [value.name for value in source.proto.graph.output]
        recorder = self.recorder
        if recorder is None:
            return plan(source, lambda path: False), Session(source), own
        rows = _rows_of(source, self._first) if recorder.select.only_states else None
        made = plan(source, recorder.wants, rows if self._stepwise else None)
        return made, Session(source), own

    def call(self, inputs: Sequence[Any]) -> dict[str, Tensor]:
        """Run it once (see `call`)."""
        self._first = inputs
        made, session, own = self.ready
        self._first = ()  # nobody's arrays are kept
        feeds = session.feeds(inputs)
        try:
            results = session.run(list(dict.fromkeys((*own, *made.outputs))), feeds)
        except InputError as error:
            raise InputError(f"{error}{self._reason(made, own, feeds)}") from error
        if not made.holds(results):  # then c is replayed
            self._stepwise = False
            del self.ready
            return self.call(inputs)
        returned = {name: results[name] for name in own}
        if self.recorder is not None:
            theirs = feeds if self.recorder.own_call else {**feeds, **returned}
            self._report(self.recorder, made, {**feeds, **results}, [*theirs.values()])
        return returned

    def _reason(self, made: Plan, own: Sequence[str], feeds: Mapping[str, Tensor]) -> str:
        """Return what may be the reason if onnxruntime fails: not us, if the model alone does."""
        try:
            Session(read_model(self.model)).run(own, feeds)
        except (InputError, UnsupportedModelError):
            return " So it does without everystate: the model cannot be run on these inputs."
        return made.hint

    def _report(
        self,
        recorder: Recorder,
        made: Plan,
        values: Mapping[str, Tensor],
        theirs: Sequence[Tensor],
    ) -> None:
        """Report what was run, of which the caller holds some arrays."""

        def unshared(seen: Observation) -> list[str]:
            return [
                name
                for name, a in seen.observed.items()
                if not any(np.may_share_memory(a, other) for other in theirs)
            ]

        recorder.begin_run()
        try:
            for shown in made.shown:
                for seen in shown.observations(values):
                    recorder.observe(replace(seen, unshared=unshared(seen)))
        finally:
            recorder.end_run()


def _rows_of(source: Source, inputs: Sequence[Any]) -> Callable[[str], int]:
    """Return what tells how many rows an input of the model has, as far as it is known; else 1."""
    named = len(inputs) == 1 and isinstance(inputs[0], Mapping)
    names = [value.name for value in source.proto.graph.input]
    given = inputs[0] if named else dict(zip(names, inputs, strict=False))

    def rows(name: str) -> int:
        shape: tuple[int, ...] = np.shape(given[name]) if name in given else ()
        return int(shape[1]) if len(shape) == RANK_OF_X else 1

    return rows


def matches(model: object) -> bool:
    """Whether this is a path that ends in ``.onnx``, or a `ModelProto`."""
    return is_model_file(model) or isinstance(model, onnx.ModelProto)


def layers(model: Any) -> list[str]:
    """Return the leaf path of each recurrent node, direction, loop and layer that is written out.

    Raises
    ------
    InputError, WeightsError
        If there is no such file, or it is no ONNX model.
    UnsupportedModelError
        If it has none of these.
    """
    return list(dict.fromkeys(leaf for found in find(read_model(model)) for leaf in found.leaves))


@contextmanager
def observe(model: Any, recorder: Recorder) -> Iterator[None]:
    """Have `call` in this block report to `recorder`: a file runs nowhere else."""
    token = _observed.set((*_observed.get(), Observed(model, recorder)))
    try:
        yield
    finally:
        _observed.reset(token)


def call(model: Any, inputs: Sequence[Any]) -> dict[str, Tensor]:
    """Run a model once.

    Parameters
    ----------
    model : path or onnx.ModelProto
        The model.
    inputs : sequence
        One mapping from the names of inputs to arrays; or the arrays, in the inputs' order.

    Returns
    -------
    dict
        The model's outputs by name.

    Raises
    ------
    InputError, InputTypeError
        If the inputs do not fit.
    """
    return (observing(model) or Observed(model)).call(inputs)


def observing(model: Any) -> Observed | None:
    """Return how a model is observed where this is called; None if it is not."""
    return next((o for o in reversed(_observed.get()) if _same(o.model, model)), None)


def _same(one: Any, other: Any) -> bool:
    if is_model_file(one) and is_model_file(other):
        return str(fspath(one)) == str(fspath(other))
    return one is other


def unroll(layer: Any, *inputs: Any) -> NoReturn:
    """Refuse: an ONNX model has no layers that can be called, and no gradients."""
    raise UnsupportedModelError(
        f"unroll takes a layer or cell, got an ONNX model ({type(layer).__name__}). Use "
        "es.record(model, inputs)."
    )
