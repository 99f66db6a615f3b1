"""Tap a graph that exists already: every state of every loop over time, stacked.

For a graph that was frozen, or saved, and whose code is lost or must not be touched. Nothing
is computed again: what the loops carry anyway is also appended to lists.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from tensorflow.core.framework import graph_pb2, node_def_pb2
from tensorflow.python.framework import dtypes

from everystate.errors import InputError, InputTypeError, UnsupportedModelError
from everystate.frameworks.tensorflow.graph_loops import (
    AT_INDEX,
    PREFIX,
    Carried,
    Loop,
    data_inputs,
    loops_of,
    node,
    of_type,
)
from everystate.recording.recognition import (
    COMBINING,
    FoundCell,
    Net,
    Value,
    recognised,
)


@dataclass
class TappedLayer:
    """One recurrent layer of a tapped graph: the names of its tensors.

    Parameters
    ----------
    path : str
        Its scope: ``rnn/multi_rnn_cell/cell_0``.
    variables : dict
        Each state and gate, stacked over the steps executed: (time, batch, units).
    initial : dict
        Each state before the first step: (batch, units). A tensor that nothing but the layer
        reads: what is fed in its place is what the layer begins with.
    lengths : str, optional
        Valid steps of each row: (batch,).
    family : str, optional
        ``LSTM`` or ``GRU``, where its ops are recognised.
    update : str, optional
        Whether z of a GRU is the share of the state that it ``keeps`` or ``writes``.
    reverse : bool
        Whether what it reads was reversed in time before; its variables are in the order of
        processing all the same.
    """

    path: str
    variables: dict[str, str] = field(default_factory=dict)
    initial: dict[str, str] = field(default_factory=dict)
    lengths: str | None = None
    family: str | None = None
    reverse: bool = False
    update: str | None = None


def tap(graph_def: graph_pb2.GraphDef) -> tuple[graph_pb2.GraphDef, dict[str, str]]:
    """Return a graph in which every state of every loop over time is stacked, and where to find it.

    Parameters
    ----------
    graph_def : GraphDef
        Frozen, of a MetaGraph (``meta_graph_def.graph_def``), or of a function; with loops of
        control flow v1 (``Enter``, ``Exit``) or v2 (``While``, ``StatelessWhile``). It is left
        as it is.

    Returns
    -------
    tapped : GraphDef
        The same graph with taps. What it computed before, it computes bit for bit.
    taps : dict of str to str
        From a readable name, ``rnn/multi_rnn_cell/cell_0/h``, to the name of a tensor of shape
        (time, batch, units) in `tapped`: each state, and the gates ``i f g o`` or ``r z n``
        where the ops of an LSTM or GRU are recognised. There are as many steps as the loop
        takes: with sequence lengths, it stops at the longest row's end, and past a shorter
        row's end a state stays as it is carried through.

    Raises
    ------
    InputTypeError
        If it is no GraphDef.
    InputError
        If it was tapped before.
    UnsupportedModelError
        If none of its loops goes over time. Loops inside functions that are called, or inside
        other loops, are not looked at.

    Examples
    --------
    >>> import tensorflow as tf
    >>> from everystate.frameworks.tensorflow import rnn_cell, tap
    >>> v1 = tf.compat.v1
    >>> with tf.Graph().as_default() as graph:
    ...     x = v1.placeholder(tf.float32, [None, None, 3], name="x")
    ...     _ = v1.nn.dynamic_rnn(rnn_cell.LSTMCell(4), x, dtype=tf.float32)
    >>> tapped, taps = tap(graph.as_graph_def())
    >>> list(taps)
    ['rnn/lstm_cell/c', 'rnn/lstm_cell/h', 'rnn/lstm_cell/i', ...]
    """
    tapped, layers = tapped_layers(graph_def)
    return tapped, {f"{a.path}/{name}": t for a in layers for name, t in a.variables.items()}


def tapped_layers(
    graph_def: graph_pb2.GraphDef,
) -> tuple[graph_pb2.GraphDef, list[TappedLayer]]:
    """Return the tapped graph as `tap` does, and its layers."""
    if not isinstance(graph_def, graph_pb2.GraphDef):
        raise InputTypeError(
            f"tap: got a {type(graph_def).__name__}, expected a tf.compat.v1.GraphDef. Give "
            "graph.as_graph_def(), or read_graph(path) for a file."
        )
    if any(n.name.startswith(PREFIX) for n in graph_def.node):
        raise InputError("tap: this graph was tapped before; give the graph as it was.")
    tapped = graph_pb2.GraphDef()
    tapped.CopyFrom(graph_def)
    layers: dict[str, TappedLayer] = {}
    loops = loops_of(tapped)
    for loop in loops:
        for layer in _layers(loop, tapped):
            layers[layer.path] = layer
    for layer in _fused(tapped):
        layers[layer.path] = layer
    if not layers:
        calls = sum(n.op in ("PartitionedCall", "StatefulPartitionedCall") for n in tapped.node)
        hint = f" It calls {calls} functions: read_graph(path) puts them inline." if calls else ""
        raise UnsupportedModelError(
            f"tap: none of the graph's {len(loops)} loops goes over time, carries floats, and "
            f"reads or writes a sequence at its own index.{hint}"
        )
    return tapped, list(layers.values())


FLOATS: Final = tuple(
    t.as_datatype_enum for t in (dtypes.float16, dtypes.bfloat16, dtypes.float32, dtypes.float64)
)
HANDED_ON: Final = {
    "TensorArrayScatterV3": 2,
    "TensorListFromTensor": 0,
    "Transpose": 0,
    "Identity": 0,
}
"""Ops on a sequence's way into a loop, and which input the sequence is."""
SELECTS: Final = ("Select", "SelectV2")
FLOWS: Final = tuple(
    f"TensorArray{what}" for what in ("WriteV3", "WriteV2", "ScatterV3", "SplitV3")
)


@dataclass(frozen=True)
class _State:
    """A loop variable that is a state: of which layer, and its name if a cell gives it one."""

    carried: Carried
    path: str
    name: str | None
    cell: FoundCell | None
    lengths: str | None


def _layers(loop: Loop, graph: graph_pb2.GraphDef) -> Iterator[TappedLayer]:
    """Yield the layers of a loop, if it goes over time; their values are kept from now on."""
    net = Net(loop.ops)
    if not _over_time(loop, net):
        return
    cells = recognised(loop.ops)
    reverse = _reads_backwards(loop, graph)
    states = [_state(loop, net, cells, c) for c in loop.carried if _is_state(c, net)]
    for path in dict.fromkeys(state.path for state in states):
        own = [state for state in states if state.path == path]
        unnamed = [state for state in own if state.name is None]
        layer = TappedLayer(path, lengths=own[0].lengths, reverse=reverse)
        if (found := own[0].cell) is not None:
            layer.family, layer.update = found.family, found.update
        for state in own:
            # One state that no gate belongs to is what the cell puts out, as a rule.
            name = state.name or ("h" if len(unnamed) == 1 else f"state_{unnamed.index(state)}")
            carried = state.carried
            label = f"{path}/{name}"
            layer.initial[name] = _own_initial(
                graph, carried.reader, carried.place, carried.dtype, label
            )
            layer.variables[name] = loop.keep(carried.after, carried.dtype, label)
        for cell in cells:
            if _path(loop, cell.op.name) == path:
                for name, value in cell.gates.items():
                    kept = loop.keep(str(value), own[0].carried.dtype, f"{path}/{name}")
                    layer.variables[name] = kept
        yield layer


def _state(loop: Loop, net: Net, cells: list[FoundCell], carried: Carried) -> _State:
    made, lengths = _new_value(loop, net, carried)
    for cell in cells:
        for value in (made, *(v for op in net.ancestors(made, COMBINING) for v in op.outputs)):
            if value in cell.states:
                path = _path(loop, cell.op.name)
                return _State(carried, path, cell.states[value], cell, lengths)
    maker = net.producer.get(net.source(made))
    return _State(carried, _path(loop, maker.name if maker else ""), None, None, lengths)


def _over_time(loop: Loop, net: Net) -> bool:
    """Whether a step looks at, or writes to, the place of a sequence that the loop has come to."""
    counters = {net.source(c.before) for c in loop.carried if _counts(c, net)}
    return any(
        place in counters
        for op in loop.ops
        if op.type in AT_INDEX and len(op.inputs) > AT_INDEX[op.type]
        for place in _places(net, op.inputs[AT_INDEX[op.type]])
    )


def _reads_backwards(loop: Loop, graph: graph_pb2.GraphDef) -> bool:
    """Whether a sequence that the loop reads comes from an op that reverses it."""
    nodes = {n.name: n for n in graph.node}
    for op in loop.ops:
        if op.type not in ("TensorArrayReadV3", "TensorListGetItem"):
            continue
        for source in filter(None, map(loop.outside, map(str, op.inputs))):
            n = nodes[source.partition(":")[0]]
            while n.op in HANDED_ON:
                n = nodes[data_inputs(n)[HANDED_ON[n.op]].partition(":")[0]]
            if n.op in ("ReverseV2", "ReverseSequence"):
                return True
    return False


def _places(net: Net, index: Value) -> list[Value]:
    packed = net.made_by(index, "Pack")
    return [net.source(v) for v in (packed.inputs if packed else (index,))]


def _counts(carried: Carried, net: Net) -> bool:
    if carried.dtype not in (dtypes.int32.as_datatype_enum, dtypes.int64.as_datatype_enum):
        return False
    add = net.made_by(carried.after, "Add", "AddV2")
    return add is not None and net.source(carried.before) in map(net.source, add.inputs)


def _is_state(carried: Carried, net: Net) -> bool:
    """Whether a loop variable holds floats that change, and is not a TensorArray's flow."""
    if carried.dtype not in FLOATS or net.made_by(carried.after, *FLOWS) is not None:
        return False
    return net.source(carried.after) != net.source(carried.before)


def _new_value(loop: Loop, net: Net, carried: Carried) -> tuple[Value, str | None]:
    """Return what the cell made of a state before shorter rows were held, and their lengths."""
    select = net.made_by(carried.after, *SELECTS)
    if select is None or net.source(carried.before) not in map(net.source, select.inputs[1:]):
        return carried.after, None
    condition, *choices = select.inputs
    (made, *_) = [v for v in choices if net.source(v) != net.source(carried.before)] or choices
    over = net.made_by(condition, "GreaterEqual")
    lengths = None if over is None else loop.outside(str(over.inputs[1]))
    return made, lengths


def _path(loop: Loop, op: str) -> str:
    """Return the readable path of the layer that an op of a loop belongs to.

    ``rnn/while`` and ``rnn/while/rnn/multi_rnn_cell/cell_0/lstm_cell/split`` give
    ``rnn/multi_rnn_cell/cell_0``: the loop's own part goes, and what stands twice.
    """
    *outer, own = loop.name.split("/")
    inner = op.removeprefix(f"{loop.name}/").split("/")[:-1]
    for k in range(min(len(outer), len(inner)), 0, -1):
        if outer[-k:] == inner[:k]:
            inner = inner[k:]
            break
    inner = inner[1:] if inner[:1] == [own] else inner
    scopes = [p for p in (*outer, *inner) if not p.endswith("PartitionedCall")]
    parts = [p for k, p in enumerate(scopes) if not k or p != scopes[k - 1]]
    layers = [k for k, p in enumerate(parts) if re.fullmatch(r"cell_\d+", p)]
    return "/".join(parts[: layers[-1] + 1] if layers else parts) or loop.name


def _own_initial(
    graph: graph_pb2.GraphDef, reader: node_def_pb2.NodeDef, place: int, dtype: int, label: str
) -> str:
    """Let a node take an input through a tensor that is its own, so that it can be fed.

    Parameters
    ----------
    graph : GraphDef
        It is changed.
    reader, place : NodeDef, int
        The node, and which of its inputs.
    dtype : int
        Of that input.
    label : str
        What the tensor is called by.

    Returns
    -------
    str
        The tensor's name.
    """
    name = f"{PREFIX}{label}/initial"
    graph.node.append(node(name, "Identity", [reader.input[place]], T=of_type(dtype)))
    reader.input[place] = f"{name}:0"
    return f"{name}:0"


def _fused(graph: graph_pb2.GraphDef) -> Iterator[TappedLayer]:
    """Yield the layers that are one op: its outputs are stacked already."""
    for n in [n for n in graph.node if n.op in ("BlockLSTM", "BlockLSTMV2")]:
        path = n.name.rpartition("/")[0] or n.name
        found = {
            name: f"{n.name}:{k}" for name, k in zip("cifgoh", (1, 0, 2, 4, 3, 6), strict=True)
        }
        dtype = n.attr["T"].type
        initial = {
            name: _own_initial(graph, n, place, dtype, f"{n.name}/{name}")
            for name, place in (("c", 2), ("h", 3))
        }
        yield TappedLayer(path, found, initial, family="LSTM")
