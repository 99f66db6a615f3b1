"""Observing: a model's recurrent modules are watched as long as a block lasts."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from torch import nn

from everystate.errors import EverystateError
from everystate.frameworks.torch.hooks import hook_on
from everystate.frameworks.torch.modules import is_recurrent, leaves, module_of, recurrent_modules
from everystate.frameworks.torch.watching import Watcher, watch
from everystate.recording.alone import alone
from everystate.recording.recorder import Recorder
from everystate.recording.warning import warn_never_called


@contextmanager
def observe(model: Any, recorder: Recorder) -> Iterator[None]:
    """Hand every call of a recurrent module of `model` to `recorder` (see `Framework.observe`)."""
    model = module_of(model)
    watchers = [
        watch(path, module, recorder)
        for path, module in recurrent_modules(model)
        if any(recorder.wants(name) for name in leaves(path, module))
    ]
    with alone((w.path, w.module) for w in watchers):
        yield from _observed(model, recorder, watchers)


def _observed(model: nn.Module, recorder: Recorder, watchers: list[Watcher]) -> Iterator[None]:
    recorder.pending += [w.hand_over_line for w in watchers]
    run = _Run(recorder, watchers)
    whole = not is_recurrent(model)  # else a call of the model may be just one step
    hooks = [model.register_forward_pre_hook(hook_on(model, run.begin))] if whole else []
    hooks += [hook for w in watchers for hook in w.attach()]
    if whole:
        hooks.append(model.register_forward_hook(hook_on(model, run.end), always_call=True))
    try:
        yield
    except BaseException:
        for w in watchers:
            with suppress(EverystateError):  # keep what there is; the user's own error goes first
                w.end_line()
        raise
    else:
        run.flush()
        warn_never_called(w.path for w in watchers if not w.called)
    finally:
        recorder.pending.clear()
        for hook in hooks:
            hook.remove()


class _Run:
    """Tells the recorder where a call of the whole model begins and ends."""

    def __init__(self, recorder: Recorder, watchers: Sequence[Watcher]) -> None:
        self.recorder, self.watchers = recorder, watchers

    def begin(self, _module: nn.Module, _args: Any) -> None:
        self.flush()
        self.recorder.begin_run()

    def end(self, _module: nn.Module, _args: Any, _output: Any) -> None:
        self.flush()
        self.recorder.end_run()

    def flush(self) -> None:
        for watcher in self.watchers:
            watcher.end_line()
