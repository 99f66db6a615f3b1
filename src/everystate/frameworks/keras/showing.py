"""Showing: within a block, each loop of a layer also gives all that its steps compute."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import keras
from keras import layers, tree

from everystate.frameworks.keras.backend import Tensor, is_compiled, is_described
from everystate.frameworks.keras.finding import leaves, one_kernel_each, recurrent_layers
from everystate.frameworks.keras.kinds import state_names
from everystate.frameworks.keras.replacing import replaced
from everystate.frameworks.keras.stepping import Leaf, cells_of, stepped
from everystate.frameworks.keras.watching import Watcher, counters, rewound


@dataclass(eq=False)
class Shown:
    """What the loops gave.

    Parameters
    ----------
    leaves : dict
        For each leaf below the layer (``forward``, ``layer_0``; the layer's class if it is the
        only one): every state and gate, and each state before the first step as ``initial_h``.
    final : list
        Every last state, in the order in which the layer returns them.
    """

    leaves: dict[str, Leaf] = field(default_factory=dict)
    final: list[Any] = field(default_factory=list)


@contextmanager
def showing(layer: keras.Layer) -> Iterator[Shown]:
    """Within the block, calls of one recurrent layer give all their states.

    Parameters
    ----------
    layer : keras.layers.RNN or Bidirectional
        Compiled or not: what is given belongs to the graph that the layer is called in.
    """
    shown = Shown()
    with ExitStack() as stack:
        stack.enter_context(one_kernel_each(layer))
        for path, inner in recurrent_layers(layer):
            stack.enter_context(replaced(inner, "inner_loop", _Loop(path, inner, shown)))
        yield shown


class _Loop:
    """Stands in for a layer's loop."""

    def __init__(self, path: str, layer: layers.RNN, shown: Shown) -> None:
        self.path, self.layer, self.shown = path, layer, shown
        self.loop = layer.inner_loop

    def __call__(
        self, sequences: Tensor, initial_state: Any, mask: Any = None, training: bool = False
    ) -> Any:
        """Run the loop so that it shows all; return what the layer's own returns."""
        found = next((m for m in tree.flatten(mask) if m is not None), None)
        concrete = not (is_described(sequences) or is_compiled(sequences))
        watched = isinstance(self.loop, Watcher) and found is None
        before = counters(self.layer.cell) if watched and concrete else []
        outputs, final, leaves_found = stepped(
            self.layer, sequences, initial_state, found, training
        )
        starts = initial_state if len(leaves_found) > 1 else [initial_state]
        for path, cell, leaf, start in zip(
            leaves(self.path, self.layer), cells_of(self.layer), leaves_found, starts, strict=True
        ):
            flat = tree.flatten(start)
            names = state_names(cell, len(flat))
            first = {f"initial_{n}": a for n, a in zip(names, flat, strict=True)}
            self.shown.leaves[path.partition("/")[2] or path] = {**leaf, **first}
        self.shown.final += final
        if found is not None:  # what Keras puts out at masked steps differs by back end
            return self.loop(sequences, initial_state, mask=mask, training=training)
        if watched:  # by a recording around it, which sees what goes through the loop alone
            with rewound(self.layer.cell, before):
                self.loop(sequences, initial_state, mask=mask, training=training)
        return outputs[:, -1], outputs, final
