"""Cells that an exporter wrote out as single operators, and which of them are one layer's steps.

A loop in Python over ``LSTMCell``, Keras' ``unroll=True``, PyTorch's ``nn.RNN`` by its newer
exporter end as many operators, a cell after the other; a GRU by TensorFlow's converter as those
of one step in the body of a ``Loop``. LSTM and GRU are known by their equations. Of a simple RNN,
``h' = tanh(W x + R h)``, two steps at least: one alone is like any other layer.
"""

from dataclasses import dataclass, field
from typing import Final, cast

import onnx

from everystate.frameworks.onnx.files import Source
from everystate.frameworks.onnx.graph import LOOPS, Scope
from everystate.frameworks.onnx.steps import ACTIVATIONS, PRODUCTS, Reader, Step, net_of

OPS: Final = {"LSTM": "LSTM", "GRU": "GRU", "SimpleRNN": "RNN"}
"""Families, and what an operator of them is called."""


@dataclass(frozen=True)
class Mask:
    """Which rows take a step; two are the same if they come of one condition.

    Parameters
    ----------
    origin : str
        The condition, before it was reshaped or turned.
    taken : bool
        What it is where a step is taken.
    name : str
        A form of it whose rows are those of the states.
    true : bool
        What that one is where a step is taken.
    """

    origin: str
    taken: bool
    name: str = field(compare=False)
    true: bool = field(default=True, compare=False)

    @property
    def turned(self) -> "Mask":
        """The rows that do not take it."""
        return Mask(self.origin, not self.taken, self.name, not self.true)


ALWAYS: Final = Mask("", True, "")
"""Every row takes it."""


@dataclass(frozen=True, eq=False)
class Written:
    """The steps of one layer, in the order of computation.

    Parameters
    ----------
    scope : Scope
        The graph that they are in.
    steps : list of Step
        At least one.
    reverse : bool
        Whether they read a sequence from its end.
    path : str
        Its leaf path.
    way : {"", "forward", "backward"}
        Which of two directions it is.
    key : str
        What tells its weights from others', if it shares them with another direction.
    mask : Mask
        Which rows take a step; the states of others are carried over.
    """

    scope: Scope
    steps: list[Step]
    reverse: bool
    path: str = ""
    way: str = ""
    key: str = ""
    mask: Mask = ALWAYS

    @property
    def family(self) -> str:
        """``LSTM``, ``GRU`` or ``SimpleRNN``."""
        return self.steps[0].cell.family

    @property
    def node(self) -> onnx.NodeProto:
        """The node that it is named by: of a gate of the first step, or of its state."""
        first = self.steps[0]
        name = str(next(iter(first.cell.gates.values()), first.after["h"]))
        return cast(onnx.NodeProto, self.scope.producers[name])

    @property
    def weights(self) -> str:
        """What tells its weights from others'."""
        return self.key or " ".join(sorted(self.steps[-1].weights))


def written_in(source: Source, scope: Scope) -> list[Written]:
    """Return the layers of a graph that are written out as single operators, bodies apart.

    Parameters
    ----------
    source : Source
        The model.
    scope : Scope
        The graph.
    """
    kinds = {node.op_type for node in scope.graph.node}
    if not kinds.intersection(ACTIVATIONS) or not kinds.intersection((*PRODUCTS, "Split", "Slice")):
        return []
    reader = Reader(source, scope, net_of(source, scope))
    found = _chains(reader, reader.cells())
    looping = scope.node is not None and scope.node.op_type in LOOPS  # which carries its state
    found += [c for c in _chains(reader, reader.simple()) if len(c) > 1 or looping]
    return [
        Written(scope, reader.begun(chain), reader.backwards(chain))
        for chain in found
        if reader.used(chain) and reader.whole(chain)
    ]


def _chains(reader: Reader, steps: list[Step]) -> list[list[Step]]:
    """Return steps that go on from one another, each chain in order."""
    ended = {(s.cell.family, reader.same(s.after[s.carried])): s for s in steps}
    chains: list[list[Step]] = []
    tails: dict[int, list[Step]] = {}
    for step in steps:
        begins = step.before.get(step.carried)
        key = None if begins is None else (step.cell.family, reader.same(begins))
        before = None if key is None else ended.get(key)
        known = reader.recurrent(step, before)
        chain: list[Step] | None = None
        if before is not None and reader.goes_on(known, before):
            chain = tails.pop(id(before), None)
        if chain is None:
            chains.append(chain := [])
        chain.append(known)
        tails[id(step)] = chain
    return chains
