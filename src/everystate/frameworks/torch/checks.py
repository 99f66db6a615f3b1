"""What a recurrent module is given, checked before PyTorch would fail with less to say."""

from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from everystate.errors import InputError, InputTypeError, UnsupportedModelError


def check_input(path: str, module: nn.Module, x: Any) -> None:
    """Check rank, feature count, size, dtype and device of a recurrent module's input.

    Parameters
    ----------
    path : str
        The module's path, for the message.
    module : torch.nn.Module
        One of PyTorch's recurrent stacks or cells.
    x : Tensor or PackedSequence
        Its input.

    Raises
    ------
    InputError
        If rank or feature count are wrong, or batch or time are empty.
    InputTypeError
        If it is no tensor, or of another dtype or on another device than the weights.
    """
    data = x.data if isinstance(x, PackedSequence) else x
    if not isinstance(data, Tensor):
        got = "no input" if x is None else f"a {type(x).__name__}"
        raise InputTypeError(
            f"{path}: got {got}, expected a tensor or NumPy array. Try torch.as_tensor(x)."
        )
    _check_shape(path, module, x)
    weight = _a_weight(module)
    if weight.device.type == "meta":
        raise InputTypeError(
            f"{path}: the weights are on the device 'meta', which holds no numbers. Load them "
            "first, with model.to_empty(device='cpu') and model.load_state_dict(...)."
        )
    if data.device != weight.device:
        raise InputTypeError(
            f"{path}: the input is on {data.device}, the weights on {weight.device}. "
            f"Try x.to({str(weight.device)!r})."
        )
    if data.dtype != weight.dtype and not torch.is_autocast_enabled(data.device.type):
        raise InputTypeError(
            f"{path}: the input is {_name(data.dtype)}, the weights are {_name(weight.dtype)}. "
            f"Try x.to({weight.dtype})."
        )


def _check_shape(path: str, module: nn.Module, x: Tensor | PackedSequence) -> None:
    packed = isinstance(x, PackedSequence)
    shape = tuple(x.data.shape if isinstance(x, PackedSequence) else x.shape)
    stack = isinstance(module, nn.RNNBase)
    ranks = (2,) if packed else (2, 3) if stack else (1, 2)
    if len(shape) not in ranks:
        order = (
            "(batch, time, features)"
            if getattr(module, "batch_first", False)
            else ("(time, batch, features)" if stack else "(batch, features)")
        )
        raise InputError(
            f"{path}: got an input of shape {shape}, expected {order}, or without the batch."
        )
    if shape[-1] != module.input_size:
        raise InputError(
            f"{path}: got {shape[-1]} features (shape {shape}), expected {module.input_size}."
        )
    if 0 in shape:
        raise InputError(
            f"{path}: the input of shape {shape} is empty; there is nothing to record."
        )


def check_output(
    path: str, module: nn.Module, x: Any, output: Any
) -> tuple[Any, tuple[Tensor, ...]]:
    """Check that a stack or cell returned what PyTorch's own does; return output and last states.

    Parameters
    ----------
    path : str
        The module's path, for the message.
    module : torch.nn.Module
        One of PyTorch's recurrent stacks or cells, or of a subclass with a forward of its own.
    x : Tensor or PackedSequence
        Its input.
    output : object
        What it returned.

    Raises
    ------
    UnsupportedModelError
        If that has another structure or shape than the base class returns.
    """
    pair = isinstance(output, tuple) and len(output) == 2 and not isinstance(output, PackedSequence)
    out, final = output if isinstance(module, nn.RNNBase) and pair else (None, output)
    final = final if isinstance(final, tuple) else (final,)
    count = 2 if isinstance(module, (nn.LSTM, nn.LSTMCell)) else 1
    right = len(final) == count and all(isinstance(s, Tensor) for s in final)
    if isinstance(module, nn.RNNBase):
        data = out.data if isinstance(out, PackedSequence) else out
        units = (module.proj_size or module.hidden_size) * (2 if module.bidirectional else 1)
        right = right and isinstance(data, Tensor) and data.shape == (*x.data.shape[:-1], units)
    if not right:
        base = next(c for c in type(module).__mro__ if c.__module__.startswith("torch.nn"))
        raise UnsupportedModelError(
            f"{path}: {type(module).__name__} returned another structure or shape than "
            f"{base.__name__} does, so its states cannot be told. Let a module of your own hold "
            f"the nn.{base.__name__} and call it, instead of being a subclass of it."
        )
    return out, final


def _a_weight(module: nn.Module) -> Tensor:
    named = (w for name, w in module.named_parameters() if "weight_ih" in name)
    return next(chain(named, module.parameters()))


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
