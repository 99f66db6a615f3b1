"""What `unroll` returns, whatever the framework: results, and all states by layer and name."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from everystate.cells.activations import Array
from everystate.errors import UnknownLayerError


class LayerStates(Mapping[str, Array]):
    """States and gates of one layer in one direction, by name or as attributes.

    Each is (time, batch, units), or as the layer's own layout has it: (batch, time, units)
    with ``batch_first``, (time, units) without a batch. ``initial_h`` and ``initial_c`` are
    (batch, units).
    """

    def __init__(self, variables: Mapping[str, Array]) -> None:
        self._variables = dict(variables)

    def __getitem__(self, name: str) -> Array:
        return self._variables[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._variables)

    def __len__(self) -> int:
        return len(self._variables)

    def __getattr__(self, name: str) -> Array:
        if name.startswith("_") or name not in self._variables:
            raise AttributeError(f"no state {name!r}; there are {', '.join(self._variables)}.")
        return self._variables[name]

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._variables]

    def __repr__(self) -> str:
        shapes = ", ".join(f"{name}: {tuple(a.shape)}" for name, a in self.items())
        return f"LayerStates({shapes})"


class States(Mapping[str, LayerStates]):
    """States by layer: ``states["layer_1/backward"].c``; of a single layer ``states.c`` too."""

    def __init__(self, layers: Mapping[str, LayerStates]) -> None:
        self._layers = dict(layers)

    def __getitem__(self, name: str) -> LayerStates:
        try:
            return self._layers[name]
        except KeyError:
            raise UnknownLayerError(f"no layer {name!r}; there are {list(self._layers)}.") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._layers)

    def __len__(self) -> int:
        return len(self._layers)

    def __getattr__(self, name: str) -> Array:
        if name.startswith("_"):
            raise AttributeError(name)
        if len(self._layers) > 1:
            raise AttributeError(f"which layer's {name}? Try states[{next(iter(self._layers))!r}].")
        return getattr(next(iter(self._layers.values())), name)

    def __dir__(self) -> list[str]:
        only = next(iter(self._layers.values())) if len(self._layers) == 1 else ()
        return [*super().__dir__(), *only]

    def __repr__(self) -> str:
        layers = "".join(f"\n  {name}: {states!r}" for name, states in self.items())
        return f"States({layers}\n)"


@dataclass(frozen=True, eq=False)
class Unrolled:
    """What a layer returns, and all its states.

    Parameters
    ----------
    outputs : array
        As the layer returns them; of a cell, ``h`` at every step.
    final_state : array or tuple of array
        As the layer returns it: ``h_n``, or ``(h_n, c_n)``.
    states : States
        Every state and gate of every layer at every step.
    lengths : array, optional
        Length of each row where there are several; states past it are zero.
    probes : States, optional
        Zeros that were added to each state, if asked for: the gradient by a probe is that by the
        state, by every way from there to the loss.
    """

    outputs: Any
    final_state: Any
    states: States
    lengths: Array | None = None
    probes: States | None = None

    def __repr__(self) -> str:
        outputs, final = _shape(self.outputs), _shape(self.final_state)
        lengths = "" if self.lengths is None else f", lengths={_shape(self.lengths)}"
        return f"Unrolled(outputs: {outputs}, final_state: {final}{lengths}, states={self.states})"


def _shape(value: Any) -> str:
    """Return the shapes of a nested structure of arrays, as text."""
    if hasattr(value, "shape"):
        return str(tuple(value.shape))
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_shape, value))}]"
    return type(value).__name__
