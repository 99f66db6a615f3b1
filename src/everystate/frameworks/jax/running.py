"""Calling a model with its scans tapped, and handing what they carry to a recorder."""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final

import jax

from everystate.frameworks.jax.observations import observations
from everystate.frameworks.jax.records import Found
from everystate.frameworks.jax.scans import called, check_tapped, nothing_in
from everystate.frameworks.jax.swapping import as_it_was, watched
from everystate.frameworks.jax.tracing import Arguments, Compiled, Traced, Watching, trace
from everystate.recording.alone import alone
from everystate.recording.recorder import Recorder
from everystate.recording.warning import warn


@dataclass(frozen=True, eq=False)
class Target:
    """A model as a function of arrays.

    Parameters
    ----------
    fn : callable
        Takes `args`, then what the model is called with.
    args : tuple
        What the model itself brings: its weights.
    name : callable
        Turns a scan's name scope into a path of the trace.
    finish : callable
        Turns the function's result into the model's.
    key : hashable, optional
        What the function is made from. Equal keys, equal functions: what is traced for one call
        serves the next. None: Python may do otherwise the next time, so it is traced anew.
    """

    fn: Callable[..., Any]
    args: tuple[Any, ...] = ()
    name: Callable[[str], str] = str
    finish: Callable[[Any], Any] = lambda result: result
    key: Hashable | None = None


WATCHERS: Final[list[Watching]] = []
"""What the modules of libraries built on JAX know of their cells; each adds its own when loaded."""


@contextmanager
def watch_all(fn: Callable[..., Any], args: Any) -> Iterator[None]:
    """Let every library loaded tag the values of its cells within the block."""
    with ExitStack() as stack:
        for watcher in WATCHERS:
            stack.enter_context(watcher(fn, args))
        yield


class Block:
    """A block in which a model is recorded.

    Parameters
    ----------
    model : object
        The model.
    recorder : Recorder
        What takes its states.
    """

    def __init__(self, model: object, recorder: Recorder) -> None:
        self.model, self.recorder = model, recorder
        self._compiled: dict[Any, Compiled] = {}
        self.tracing = False
        """Whether the model is being traced for a call that is recorded."""
        self._told = False

    def call(
        self, target: Target, inputs: Sequence[Any], named: Mapping[str, Any] | None = None
    ) -> Any:
        """Call the model once, hand every state to the recorder, and return its result.

        Parameters
        ----------
        target : Target
            The model as a function.
        inputs : sequence
            What it is called with.
        named : mapping, optional
            What it is called with by name.

        Raises
        ------
        NothingRecordedError
            If the model has no scan.
        UnsupportedModelError
            If one of its scans cannot be tapped.
        UnknownLayerError
            If a layer pattern of the selection matches none of the layers found.
        """
        given = Arguments((*target.args, *inputs), named)
        program = self._program(target, given)
        result, found = program.run(given.arrays)
        traced = program if isinstance(program, Traced) else program.traced
        self.hand_over(found, target, traced)
        return target.finish(result)

    def hand_over(self, found: Sequence[Found], target: Target, traced: Traced) -> None:
        """Hand what was found in a call of a model to the recorder; raises as `call` does."""
        check_tapped(target.fn, found)
        seen = observations(found, target.name)
        if not seen:
            raise nothing_in(target.fn, traced, found)
        recorder = self.recorder
        recorder.select.check_layers([s.path for s in seen])
        recorder.begin_run()
        try:
            for s in seen:
                recorder.observe(s)
        finally:
            recorder.end_run()

    def tell_unseen(self) -> None:
        """Warn, once, of a call within a transformation: it has no numbers, and is not recorded."""
        if not self.tracing and not self._told:
            self._told = True
            warn(
                f"{called(self.model)} was called within jax.jit or another transformation, where "
                "there are no numbers to record yet. Let the recorder make the call, rec.run(x), "
                "or record the function itself: es.record(fn, model, x)."
            )

    def _program(self, target: Target, given: Arguments) -> Traced | Compiled:
        """Return the function with its scans tapped: the one of the last call, if that serves."""
        self.tracing = True
        try:
            return self._traced(target, given)
        finally:
            self.tracing = False

    def _traced(self, target: Target, given: Arguments) -> Traced | Compiled:
        key = (target.key, given.kind)
        if target.key is None or not _is_hashable(key):
            return trace(target.fn, given, watch_all)
        if key not in self._compiled:
            self._compiled[key] = trace(target.fn, given, watch_all).compiled(given.arrays)
        return self._compiled[key]


def _is_hashable(key: object) -> bool:
    try:
        hash(key)
    except TypeError:
        return False
    return True


@contextmanager
def watched_calls(
    model: object, recorder: Recorder, target: Callable[[Any], Target]
) -> Iterator[None]:
    """Record a module that is an object of Python, also where its user calls it in the block.

    A call within a transformation of JAX is not recorded, and warned of: it has no numbers yet.

    Parameters
    ----------
    model : object
        The module.
    recorder : Recorder
        What takes its states.
    target : callable
        Turns the module into a function.
    """
    watched_now = [model]  # JAX keeps the classes made for it for good: they must not keep it too

    def watch(_path: str, run: Any, module: Any, *args: Any, **kwargs: Any) -> Any:
        traced = any(isinstance(a, jax.core.Tracer) for a in jax.tree.leaves((args, kwargs)))
        if traced:  # of Flax it may have been built anew on the way into the transformation
            for one in watched_now:
                if (around := block_of(one)) is not None:
                    around.tell_unseen()
        own = any(module is one for one in watched_now)
        block = block_of(module) if own and not traced else None
        if block is None:
            return run(*args, **kwargs)
        with as_it_was(module):
            return block.call(target(module), args, kwargs)

    try:
        with alone([("", model)]), observed(model, recorder), watched([("", model)], watch):
            yield
    finally:
        watched_now.clear()


_OPEN: ContextVar[tuple[Block, ...]] = ContextVar("jax_blocks", default=())
"""The blocks that are open in this thread, the innermost last: another may record the same."""


@contextmanager
def observed(model: object, recorder: Recorder) -> Iterator[None]:
    """Let `block_of` know, within the block, that a model is recorded."""
    token = _OPEN.set((*_OPEN.get(), Block(model, recorder)))
    try:
        yield
    finally:
        _OPEN.reset(token)


def block_of(model: object) -> Block | None:
    """Return the innermost open block that records a model; None outside of one."""
    return next((block for block in reversed(_OPEN.get()) if block.model is model), None)
