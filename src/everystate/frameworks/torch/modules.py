"""PyTorch's recurrent modules: where they are, and their cells and weights in canonical form.

Gate order of ``torch.nn.LSTM``: i f g o; of ``torch.nn.GRU``: r z n, the reset after the
product, with a recurrent bias of its own (``torch/nn/modules/rnn.py``, class docstrings).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from types import MethodType
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import type_before_parametrizations

from everystate.cells import GRU, LSTM, Cell, SimpleRNN, Weights
from everystate.errors import UnsupportedModelError
from everystate.recording.custom import is_cell

STACKS: Final = (nn.LSTM, nn.GRU, nn.RNN)
"""Modules that read a whole sequence."""
CELLS: Final = (nn.LSTMCell, nn.GRUCell, nn.RNNCell)
"""Modules that take one step."""
_QUANTISED: Final = ("torch.ao.nn.quant", "torch.nn.quant")
GATE_ORDER: Final = {"LSTM": "i f g o", "GRU": "r z n", "SimpleRNN": ""}


@dataclass(frozen=True)
class Place:
    """One layer in one direction of a stack.

    Parameters
    ----------
    layer : int
        Which layer of the stack, from 0.
    reverse : bool
        Whether it reads backwards.
    name : str
        Its path below the module: ``layer_1/backward``, or empty if there is just one.
    """

    layer: int
    reverse: bool
    name: str

    @property
    def suffix(self) -> str:
        """The end of its parameters' names: ``_l1_reverse``."""
        return f"_l{self.layer}" + ("_reverse" if self.reverse else "")


def module_of(model: Any) -> Any:
    """Return the module that a model is: itself, or that of its method or `functools.partial`.

    None if it is no PyTorch model.
    """
    while isinstance(model, partial):
        model = model.func
    owner = model.__self__ if isinstance(model, MethodType) else model
    return owner if isinstance(owner, nn.Module) else None


def places(stack: nn.RNNBase) -> list[Place]:
    """Return every layer and direction of a stack, in the order of ``h_n``."""
    found = []
    for layer in range(stack.num_layers):
        for reverse in (False, True) if stack.bidirectional else (False,):
            parts = [f"layer_{layer}"] if stack.num_layers > 1 else []
            if stack.bidirectional:
                parts.append("backward" if reverse else "forward")
            found.append(Place(layer, reverse, "/".join(parts)))
    return found


def module_path(model: nn.Module, name: str) -> str:
    """Return a module's path in the trace; the model itself goes by its class."""
    return name.replace(".", "/") or type_before_parametrizations(model).__name__.lower()


def is_recurrent(module: nn.Module) -> bool:
    """Whether a module is a recurrent layer or cell, PyTorch's or of one's own."""
    return isinstance(module, (*STACKS, *CELLS)) or is_cell(module)


def recurrent_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the path and module of each recurrent layer or cell, each module once.

    Raises
    ------
    UnsupportedModelError
        If the model, or a part of it with recurrent layers, is compiled, scripted or quantised:
        its layers' Python calls are not seen, or follow other equations.
    """
    for name, module in model.named_modules():
        _refuse(f"{type(model).__name__}{'.' + name if name else ''}", module, part=bool(name))
        if is_recurrent(module):
            yield module_path(model, name), module


def _refuse(where: str, module: nn.Module, *, part: bool) -> None:
    if type(module).__module__.startswith(_QUANTISED) and _named_recurrent(type(module).__name__):
        raise UnsupportedModelError(
            f"{where} is quantised, and computes with integers that no replay can follow to "
            "rounding. Record the model that it was made from."
        )
    if isinstance(module, torch.jit.ScriptModule) and (not part or _scripted_recurrent(module)):
        raise UnsupportedModelError(
            f"{where} is TorchScript, whose layers run without Python and cannot be observed. "
            "Record the Python module that it was made from (load its state_dict), or save the "
            "state_dict as .safetensors and record that file."
        )
    wrapped = hasattr(module, "_orig_mod")
    compiled = wrapped or getattr(module, "_compiled_call_impl", None) is not None
    if compiled and any(is_recurrent(inner) for inner in module.modules()):
        what = f"{where}._orig_mod" if wrapped else "the module before .compile()"
        raise UnsupportedModelError(
            f"{where} is compiled by torch.compile, which may fuse what should be observed. "
            f"{'Put back' if part else 'Record'} {what}: it has the same weights and gives the "
            "same results."
        )


def _scripted_recurrent(module: torch.jit.ScriptModule) -> bool:
    return any(_named_recurrent(getattr(m, "original_name", "")) for m in module.modules())


def _named_recurrent(name: str) -> bool:
    return name in {kind.__name__ for kind in (*STACKS, *CELLS)}


def leaf(path: str, place: Place) -> str:
    """Return the leaf path of one layer and direction."""
    return f"{path}/{place.name}" if place.name else path


def leaves(path: str, module: nn.Module) -> list[str]:
    """Return the leaf paths of a recurrent module."""
    if isinstance(module, STACKS):
        return [leaf(path, place) for place in places(module)]
    return [path]


def cell_of(module: nn.Module) -> Cell:
    """Return the equations of a recurrent module."""
    if isinstance(module, (nn.LSTM, nn.LSTMCell)):
        return LSTM()
    if isinstance(module, (nn.GRU, nn.GRUCell)):
        return GRU()
    return SimpleRNN(activation=str(module.nonlinearity))


def raw_weights(module: nn.Module, suffix: str = "") -> list[Tensor]:
    """Return the weights of one layer and direction, in the order PyTorch's kernels take."""
    return [w for w in _weights(module, suffix).values() if w is not None]


def _weights(module: nn.Module, suffix: str) -> dict[str, Any]:
    """Return each weight, or None, as the module's last forward had it.

    A parametrised weight is computed at each access, and one with a state of its own moves on
    by it in training (the power iteration of spectral_norm).
    """
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")
    if isinstance(module, nn.RNNBase):
        held = dict(zip(module._flat_weights_names, module._flat_weights, strict=True))
        return {name: held.get(f"{name}{suffix}") for name in names}
    moving = [part for part in module.modules() if part is not module and part.training]
    for part in moving:
        part.training = False
    try:
        return {name: getattr(module, f"{name}{suffix}", None) for name in names}
    finally:
        for part in moving:
            part.training = True


def widened(a: Tensor) -> Tensor:
    """Return half precision as float32, which is exact; anything else as it is."""
    return a.float() if a.dtype in (torch.float16, torch.bfloat16) else a


def weights_of(module: nn.Module, suffix: str = "") -> Weights:
    """Return the weights of one layer and direction in canonical form, attached to the graph.

    Half precision is widened first: a sum of two biases would be rounded in it.
    """
    w: dict[str, Any] = {
        name: None if a is None else widened(a) for name, a in _weights(module, suffix).items()
    }
    b, b_r = w["bias_ih"], w["bias_hh"]
    if b is not None and not isinstance(module, (nn.GRU, nn.GRUCell)):
        b, b_r = b + b_r, None  # only ever added: one bias is enough
    return Weights(W=w["weight_ih"], R=w["weight_hh"], b=b, b_R=b_r, projection=w["weight_hr"])
