"""A user's own cell, by one attribute: the names of its states.

A module that is called once per step, ``forward(x, state) -> state`` or
``forward(x, state) -> (output, state)``, is recorded as soon as it says what its states
are called, on the class or on the instance:

>>> import torch, everystate as es
>>> class Leaky(torch.nn.Module):
...     everystate_states = ("v",)
...     def forward(self, x, v):
...         return 0.9 * v + 0.1 * x
>>> cell, v = Leaky(), torch.zeros(2, 3, dtype=torch.float64)
>>> with es.recording(cell) as rec:
...     for x in torch.ones(5, 2, 3, dtype=torch.float64):
...         v = cell(x, v)
>>> rec.trace["leaky"].v.isel(batch=0, unit=0).values.round(3).tolist()
[0.1, 0.19, 0.271, 0.344, 0.41]

A state is a tensor, or any nesting of tuples, lists and dicts of tensors, with as many
tensors as there are names, in that order; a dict whose keys are the names goes by them.
Further dimensions than (batch, units) are flattened into units.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from torch import Tensor, nn

from everystate.errors import UnsupportedModelError

ATTRIBUTE: Final = "everystate_states"


def is_cell(module: nn.Module) -> bool:
    """Whether a module says what its states are called."""
    return hasattr(module, ATTRIBUTE)


def state_names(module: nn.Module) -> tuple[str, ...]:
    """Return the names of a module's states."""
    names = getattr(module, ATTRIBUTE)
    return (names,) if isinstance(names, str) else tuple(names)


def states(path: str, names: tuple[str, ...], value: Any) -> dict[str, Tensor]:
    """Return the named states in what a step was given or returned.

    Parameters
    ----------
    path : str
        The module's path, for the message.
    names : tuple of str
        The states' names.
    value : tensor or nested structure
        A state, or ``(output, state)``.

    Raises
    ------
    UnsupportedModelError
        If neither the value nor its last element holds as many tensors as there are names.
    """
    last = value[-1] if isinstance(value, (tuple, list)) and value else None
    for candidate in (value, last):
        if isinstance(candidate, Mapping) and set(candidate) == set(names):
            candidate = {name: candidate[name] for name in names}  # whatever its order
        found = list(_tensors(candidate))
        if len(found) == len(names):
            return dict(zip(names, found, strict=True))
    raise UnsupportedModelError(
        f"{path}: {ATTRIBUTE} names {len(names)} states ({', '.join(names)}), but a step "
        f"gave {len(list(_tensors(value)))} tensors. A step returns its state, or (output, state)."
    )


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _tensors(part)
    elif isinstance(value, (tuple, list)):
        for part in value:
            yield from _tensors(part)
