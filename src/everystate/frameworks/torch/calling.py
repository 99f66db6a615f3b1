"""Whether a model is PyTorch's, which recurrent layers it has, and calling it once."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from everystate.frameworks.torch.modules import leaves, module_of, recurrent_modules
from everystate.recording.discovery import no_layer
from everystate.recording.observation import check_numbers


def matches(model: object) -> bool:
    """Whether `model` is a PyTorch module, a method of one, or a `functools.partial` of either."""
    return module_of(model) is not None


def layers(model: Any) -> list[str]:
    """Return the leaf path of each recurrent layer and direction.

    Raises
    ------
    UnsupportedModelError
        If there is none, or the model is compiled or scripted.
    """
    model = module_of(model)
    found = [name for path, module in recurrent_modules(model) for name in leaves(path, module)]
    if not found:
        raise no_layer(
            type(model).__name__,
            (type(module).__name__ for module in model.modules()),
            "Known are nn.LSTM, nn.GRU, nn.RNN and their cells, and any module called once per "
            "step that names its states: everystate_states = ('h',).",
        )
    return found


def call(model: Any, inputs: Sequence[Any]) -> object:
    """Call the model once, without gradients; NumPy arrays become tensors like its weights."""
    weights = (p for p in module_of(model).parameters() if p.is_floating_point())
    weight = next(weights, torch.empty(0))
    with torch.no_grad():
        return model(*(_to_tensor(x, weight) for x in inputs))


def _to_tensor(x: Any, weight: torch.Tensor) -> Any:
    if type(x) in (list, tuple):  # not a PackedSequence, which is a named tuple
        return type(x)(_to_tensor(part, weight) for part in x)
    if isinstance(x, Mapping):
        return {key: _to_tensor(part, weight) for key, part in x.items()}
    if not isinstance(x, np.ndarray):
        return x
    check_numbers(x)
    tensor = torch.from_numpy(np.ascontiguousarray(x))
    dtype = weight.dtype if tensor.is_floating_point() else tensor.dtype
    return tensor.to(weight.device, dtype)
