"""Running a model chunk by chunk: the state of each recurrent stack in it is carried on.

A stack that is called without a state begins with zeros. From the second chunk on it is given
the state that its last call ended with, by a hook, whatever model it sits in.
"""

from collections.abc import Mapping
from functools import partial
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized
from torch.nn.utils.rnn import PackedSequence

from everystate.errors import InputError, UncuttableError
from everystate.frameworks.torch.calling import call
from everystate.frameworks.torch.modules import (
    STACKS,
    cell_of,
    is_recurrent,
    module_of,
    places,
    recurrent_modules,
    weights_of,
)
from everystate.recording.stream import Stream

States = dict[str, Any]


def stream(model: Any) -> Stream:
    """Return how to run a model chunk by chunk (see `everystate.recording.stream.Stream`)."""
    module = module_of(model)
    step, time_axis = partial(_step, module, model), partial(_time_axis, module)
    return Stream(step, time_axis, partial(_threads, module), partial(_sure, model))


def _threads(model: nn.Module) -> int:
    """Return how many threads the model's operations are spread over; OpenMP's spin."""
    on_cpu = all(p.device.type == "cpu" for p in model.parameters())
    return torch.get_num_threads() if on_cpu else 1


def _sure(model: Any, x: Any) -> float | None:
    """Return the bytes of a step of a bare stack that PyTorch defines to be causal, else None.

    Not of one that draws masks, or whose hooks, forward or weights are somebody's own.

    Raises
    ------
    InputError
        If the input has several steps: it was cut along another axis than time.
    """
    if not isinstance(model, nn.RNNBase) or type(model) not in STACKS or is_parametrized(model):
        return None
    if "forward" in vars(model) or model._forward_hooks or model._forward_pre_hooks:
        return None
    if model.bidirectional or (model.training and model.dropout):
        return None
    if x.shape[_time_axis(model, x)] != 1:
        layout = "(batch, time, features)" if model.batch_first else "(time, batch, features)"
        raise InputError(
            f"time_axis: {type(model).__name__} with batch_first={model.batch_first} reads "
            f"{layout}, so that time is axis {_time_axis(model, x)} of the input. Leave time_axis= "
            "out, or turn the input."
        )
    cell, weights = cell_of(model), [weights_of(model, p.suffix) for p in places(model)]
    numbers = sum(w.W.shape[1] + len(cell.variables) * cell.units(w) for w in weights)
    rows = prod(x.shape) / model.input_size
    return float(rows * numbers * weights[0].W.element_size())


def _time_axis(model: nn.Module, x: Any) -> int:
    """Return which axis of a model's input is time: token numbers have no axis of features.

    Raises
    ------
    InputError
        If the model's recurrent modules do not tell.
    """
    whole = is_recurrent(model) or _is_floating(x)
    batched = len(x.shape) > (2 if whole else 1)
    firsts = {m.batch_first for _, m in recurrent_modules(model) if isinstance(m, STACKS)}
    if batched and len(firsts) != 1:
        raise InputError(
            f"which axis of the input of shape {tuple(x.shape)} is time? {type(model).__name__} "
            "does not tell. Say time_axis=0 or time_axis=1."
        )
    return 1 if batched and firsts == {True} else 0


def _is_floating(x: Any) -> bool:
    return bool(x.is_floating_point()) if isinstance(x, Tensor) else x.dtype.kind == "f"


def _step(module: nn.Module, model: Any, x: Any, states: States | None) -> tuple[Any, States]:
    """Run one chunk; return the output, and the states of all stacks after it."""
    stacks = dict(_stacks(module))
    after: States = {}
    hooks = []
    try:
        for path, stack in stacks.items():
            before = None if states is None else states[path]
            hooks.append(
                stack.register_forward_pre_hook(partial(_give, path, before), with_kwargs=True)
            )
            hooks.append(stack.register_forward_hook(partial(_take, path, after)))
        output = call(model, (x,))
    finally:
        for hook in hooks:
            hook.remove()
    missing = [path for path in stacks if path not in after]
    if missing:
        raise UncuttableError(f"{', '.join(missing)} of it is not called at all.")
    return output, after


def _stacks(model: nn.Module) -> Mapping[str, nn.RNNBase]:
    found = {}
    for path, module in recurrent_modules(model):
        if not isinstance(module, STACKS):
            raise UncuttableError(
                f"{path} is a cell, which is given its state by the model's own loop."
            )
        if module.bidirectional:
            raise UncuttableError(f"{path} is bidirectional: it begins at the end of the sequence.")
        found[path] = module
    return found


def _give(path: str, before: Any, stack: nn.RNNBase, args: Any, kwargs: Any) -> Any:
    """Give a stack the state that it ended with."""
    x = args[0] if args else kwargs.get("input")
    if isinstance(x, PackedSequence):
        raise UncuttableError(f"{path} reads packed sequences, whose rows end apart.")
    if (args[1] if len(args) > 1 else kwargs.get("hx")) is not None:
        raise UncuttableError(f"{path} is given its state by the model itself.")
    if before is None:
        return None
    ended = before[0] if isinstance(before, tuple) else before
    if x.dim() == 3 and x.shape[0 if stack.batch_first else 1] != ended.shape[1]:
        raise UncuttableError(
            f"{path} ended with a state of {ended.shape[1]} rows and is given an input of shape "
            f"{tuple(x.shape)}: the chunks are not cut along its time."
        )
    return args[:1], {**kwargs, "hx": before}


def _take(path: str, after: States, _stack: nn.Module, _args: Any, output: Any) -> None:
    """Keep the state that a stack ended with."""
    if path in after:
        raise UncuttableError(f"{path} is called several times in one call of the model.")
    final = output[1]
    after[path] = tuple(s.detach() for s in final) if isinstance(final, tuple) else final.detach()
