"""Watching one recurrent module: its hooks, and what they saw as `Observation`s."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from everystate.errors import UnsupportedModelError
from everystate.frameworks.torch import onednn
from everystate.frameworks.torch.checks import check_input, check_output
from everystate.frameworks.torch.hooks import hook_on
from everystate.frameworks.torch.modules import STACKS, leaves, places
from everystate.frameworks.torch.observations import (
    check_run_again,
    copied,
    equations,
    of_pass,
    of_steps,
    plain,
)
from everystate.frameworks.torch.passes import (
    Call,
    Pass,
    bind,
    by_name,
    passes,
    restored,
    time_major,
)
from everystate.frameworks.torch.sequences import Line, States, Step, Version
from everystate.recording import custom
from everystate.recording.observation import Observation
from everystate.recording.recorder import Recorder

STEPS: Final = 512
"""Steps of one stretch held back at most, unless others are open beside it."""
LINES: Final = 4
"""Stretches of time that a module is taken to be in at most, their steps taking turns."""


class Watcher:
    """Watches one module: gathers its steps, hands its sequences over."""

    def __init__(self, path: str, module: nn.Module, recorder: Recorder) -> None:
        self.path, self.module, self.recorder = path, module, recorder
        self.called = False
        self.begin(Line())
        self.arguments = _arguments(module)

    def attach(self) -> list[Any]:
        """Set the hooks; return what removes them."""
        before, after = (hook_on(self.module, see) for see in (self._before, self._after))
        return [
            self.module.register_forward_pre_hook(before, with_kwargs=True),
            # First of all hooks: the user's own may change the output.
            self.module.register_forward_hook(after, with_kwargs=True, prepend=True),
        ]

    def _before(self, _m: nn.Module, args: Any, kwargs: Any) -> None:
        self.expect(*self.bound(args, kwargs))

    def _after(self, _m: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        self.called = True
        if torch._C._get_tracing_state() is not None:
            raise UnsupportedModelError(
                f"{self.path}: torch.jit.trace is at work, and would take what the recording "
                "computes for a part of the model. Trace the model outside the block."
            )
        with torch.no_grad():
            self.see(*self.bound(args, kwargs), output)

    def bound(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Any, Any]:
        """Return input and state of a call, however the caller passed them."""
        x, state = (
            args[k] if k < len(args) else kwargs.get(name) for k, name in enumerate(self.arguments)
        )
        return x, state

    def expect(self, x: Any, _state: Any) -> None:
        """Check what a call is given, before it runs."""
        check_input(self.path, self.module, x)

    def see(self, x: Any, state: Any, output: Any) -> None:
        """Take what a call was given and what it returned."""
        raise NotImplementedError

    def end_line(self) -> None:
        """Hand over all steps gathered; the next call begins a new stretch of time."""
        for line in self.lines:
            self.hand_over_steps(line)
        self.begin(Line())

    def begin(self, line: Line) -> None:
        """Begin a stretch of time; no call goes on with those before it any more."""
        self.lines, self.line = [line], line

    def hand_over_line(self) -> None:
        """Hand over all steps gathered; the next call may go on with the stretch at hand."""
        for line in self.lines:
            if line is not self.line:
                self.hand_over_steps(line)
        self.hand_over_steps(self.line)
        self.lines = [self.line]

    def hand_over_steps(self, line: Line) -> None:
        """Hand over the steps gathered of a stretch of time."""
        steps, edited = line.steps, line.edited_steps
        line.steps, line.edited_steps = [], 0
        for k, name in enumerate(leaves(self.path, self.module) if steps else ()):
            seen = of_steps(name, [s[k] for s in steps], edited, line.equations[k])
            self.hand_over(seen, line.handed_over)
        line.handed_over = line.handed_over or bool(steps)

    def hand_over(self, seen: Observation, goes_on: bool) -> None:
        """Hand one observation to the recorder, on which the user's contexts have no hold."""
        with torch.no_grad(), torch.autocast(_device(self.module), enabled=False):
            self.recorder.observe(seen, goes_on=goes_on)

    def gather(self, step: tuple[Step, ...], given: bool) -> None:
        """Take one step; begin a new stretch of time if it does not go on with this one."""
        before = tuple(s.before for s in step)
        self.turn_to(before if given else None)
        version = _version(self.module)
        if self.line.steps and not _alike(self.line.version, version):
            self.hand_over_line()  # the weights changed: these ran with those before
        if not self.line.steps:
            self.line.version = version
            self.line.equations = [copied(self.equations(k)) for k in range(len(before))]
        self.line.add(step)
        if len(self.line.steps) >= STEPS and len(self.lines) == 1:
            self.hand_over_line()

    def turn_to(self, before: tuple[States, ...] | None) -> None:
        """Make the stretch at hand the one that a step from the states `before` goes on with."""
        if self.line.ends_with(before):
            return
        other = next((line for line in self.lines if line.ends_with(before)), None)
        if other is None and self.line.goes_on(before, one_step=True):
            return
        if self.line.handed_over:
            self.end_line()  # the recorder goes on with nothing but the last
            return
        self.line = other or Line()
        if other is None:
            self.lines = [line for line in self.lines if line.steps] + [self.line]
        if len(self.lines) > LINES:
            self.hand_over_steps(self.lines.pop(0))

    def equations(self, k: int) -> dict[str, Any]:
        """Return cell, weights and what else there is to say of one leaf."""
        if isinstance(self.module, nn.RNNBase):
            return equations(self.module, places(self.module)[k].suffix)
        return equations(self.module)


class _StackWatcher(Watcher):
    """Watches ``nn.LSTM``, ``nn.GRU`` or ``nn.RNN``."""

    module: nn.RNNBase
    shown = False
    """Whether the call that is going on has been handed over while it ran."""
    has_shown = False
    """Whether any call has."""

    def attach(self) -> list[Any]:
        hooks = super().attach()
        select = self.recorder.select
        # A forward that somebody changed is the model's, and has to run.
        torchs_own = type(self.module).forward in [stack.forward for stack in STACKS]
        free = self.recorder.own_call and torchs_own and "forward" not in vars(self.module)
        if free and not (select.only_output or select.counts_from_end):  # chunks see no end
            self.module.forward = self._forward
            hooks.append(_Restored(self.module))
        return hooks

    def _forward(self, input: Tensor | PackedSequence, hx: Any = None) -> Any:  # noqa: A002
        """Run on the kernel that shows its gates where there is one, else as ever."""
        x = input  # PyTorch's name: callers may use it
        call = bind(self.module, x, hx)
        if isinstance(x, Tensor) and onednn.shows_gates(self.module, call):
            before = tuple(_kept(by_name(s)) for s in zip(*call.state, strict=True))
            goes_on = self._goes_on(before if hx is not None else None)
            ran = onednn.run(
                self.path,
                self.module,
                call,
                lambda s, later: self.hand_over(s, later or goes_on),
                known=self.has_shown,
            )
            if ran is not None:
                output, final = ran
                last = tuple(_kept(by_name(s)) for s in zip(*final, strict=True))
                self.begin(Line(before, last, stepwise=False, handed_over=True))
                self.shown = self.has_shown = True
                return restored(self.module, x, output, final)
        return type(self.module).forward(self.module, x, hx)

    def _goes_on(self, given: tuple[dict[str, Tensor], ...] | None) -> bool:
        """Whether a call of several steps goes on with the line; what was gathered goes first."""
        goes_on = self.line.goes_on(given, one_step=False)
        if goes_on:
            self.hand_over_line()
        else:
            self.end_line()
        return goes_on

    def expect(self, x: Any, state: Any) -> None:
        self.shown = False
        super().expect(x, state)
        inner = self.module.num_layers > 1 and self.module.training and self.module.dropout
        self._random_state = torch.get_rng_state() if inner else None

    def see(self, x: Tensor | PackedSequence, state: Any, output: Any) -> None:
        if self.shown:
            return
        call = bind(self.module, x, state)
        found = self._passes(call, *check_output(self.path, self.module, x, output))
        one_way = not self.module.bidirectional and call.packed is None
        if call.x.shape[0] == 1 and one_way:
            self.gather(tuple(_as_step(p) for p in found), given=state is not None)
            return
        before = tuple(_kept(p.initial) for p in found)
        given = before if one_way and state is not None else None
        goes_on = self._goes_on(given)
        for name, p in zip(leaves(self.path, self.module), found, strict=True):
            seen = of_pass(name, self.module, p, call.lengths)
            if p.place.layer < self.module.num_layers - 1:
                check_run_again(seen)
            self.hand_over(seen, goes_on)
        self.begin(Line(before, tuple(_kept(p.final) for p in found), False, handed_over=True))

    def _passes(self, call: Call, out: Any, final: tuple[Tensor, ...]) -> list[Pass]:
        final = tuple(s.unsqueeze(1) if s.dim() == 2 else s for s in final)
        shown = out.data if isinstance(out, PackedSequence) else time_major(self.module, out)
        if self._random_state is None:
            return passes(self.module, call, shown, final)[0]
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(self._random_state)
            return passes(self.module, call, shown, final)[0]


class _CellWatcher(Watcher):
    """Watches ``nn.LSTMCell``, ``nn.GRUCell`` or ``nn.RNNCell``: each call is a step."""

    def see(self, x: Tensor, state: Any, output: Any) -> None:
        _, after = check_output(self.path, self.module, x, output)
        before = state if isinstance(state, (tuple, list)) else (state,)
        if state is None:
            before = tuple(torch.zeros_like(s) for s in after)
        step = Step(_row(x), _kept(by_name(before)), _kept(by_name(after)))
        self.gather((step,), given=state is not None)


class _CustomWatcher(Watcher):
    """Watches a user's own step module (see `custom`)."""

    def __init__(self, path: str, module: nn.Module, recorder: Recorder) -> None:
        super().__init__(path, module, recorder)
        self.names = custom.state_names(module)
        self.apart = custom.takes_states_apart(module, self.names)

    def bound(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Any, Any]:
        if not self.apart:
            return super().bound(args, kwargs)
        taken = enumerate(_positional(self.module)[: 1 + len(self.names)])
        x, *states = (args[k] if k < len(args) else kwargs.get(name) for k, name in taken)
        if len(list(custom.arrays_of(states[0]))) == len(self.names):
            return x, states[0]  # the whole state: what follows is something else, a mask say
        return x, None if any(s is None for s in states) else tuple(states)

    def expect(self, x: Any, state: Any) -> None:
        """Copy what a step is given, whatever it is: the module may change it in place."""
        before = {} if state is None else custom.named(self.path, self.names, state)
        shown = _row(x) if isinstance(x, Tensor) and x.is_floating_point() else None
        self.given = shown, _kept(before)

    def see(self, x: Any, state: Any, output: Any) -> None:
        after = custom.named(self.path, self.names, output, apart=self.apart)
        self.dtype = str(after[self.names[0]].dtype).removeprefix("torch.")
        self.gather((Step(*self.given, _kept(after)),), given=state is not None)

    def equations(self, k: int) -> dict[str, Any]:
        return {"precision": self.dtype, "attrs": {"module": type(self.module).__name__}}


class _Restored:
    """A handle like a hook's: removing it gives a module its own forward back."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def remove(self) -> None:
        del self.module.forward


def watch(path: str, module: nn.Module, recorder: Recorder) -> Watcher:
    """Return the watcher of a recurrent module; its hooks are not yet set."""
    if custom.is_cell(module):
        return _CustomWatcher(path, module, recorder)
    kind = _StackWatcher if isinstance(module, STACKS) else _CellWatcher
    return kind(path, module, recorder)


def _arguments(module: nn.Module) -> tuple[str, str]:
    """Return what a module calls its input and its state: its first two parameters."""
    named = _positional(module)
    return (named[0], named[1]) if len(named) > 1 else ("input", "hx")


def _positional(module: nn.Module) -> list[str]:
    parameters = inspect.signature(module.forward).parameters.values()
    return [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]


def _as_step(p: Pass) -> Step:
    return Step(_row(p.x[0]), _kept(p.initial), _kept(p.final))


def _kept(states: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: _row(s) for name, s in states.items()}


def _row(a: Tensor) -> Tensor:
    """Return a step's (batch, units), a copy: the user may go on to change it in place."""
    a = a.unsqueeze(0) if a.dim() == 1 else a.reshape(a.shape[0], -1)
    return plain(a).clone()


def _version(module: nn.Module) -> Version:
    """Return a module's weights and how often each was changed in place."""
    tensors = [*module.parameters(), *module.buffers()]
    return [(a, 0 if a.is_inference() else a._version) for a in tensors]


def _alike(a: Version, b: Version) -> bool:
    return len(a) == len(b) and all(x is y and n == m for (x, n), (y, m) in zip(a, b, strict=True))


def _device(module: nn.Module) -> str:
    return next((p.device.type for p in module.parameters()), "cpu")
