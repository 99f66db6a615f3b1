"""The loops of a GraphDef, of control flow v1 and v2, seen alike.

What they carry, and a way to keep it.

Either kind is given one more loop variable for each value that is kept: a list to which each
step appends. What was there before stays as it is.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from tensorflow.core.framework import attr_value_pb2, function_pb2, graph_pb2, node_def_pb2
from tensorflow.python.framework import dtypes

from everystate.recording.recognition import Op

PREFIX: Final = "everystate_tap/"
"""Scope of every node that is added."""

VARIANT: Final = dtypes.variant.as_datatype_enum
OUTPUTS: Final = {
    "LSTMBlockCell": ("i", "cs", "f", "o", "ci", "co", "h"),
    "GRUBlockCell": ("r", "u", "c", "h"),
}
AT_INDEX: Final = {
    **dict.fromkeys(("TensorArrayReadV3", "TensorArrayWriteV3", "TensorArrayReadV2"), 1),
    **dict.fromkeys(("TensorArrayWriteV2", "TensorListGetItem", "TensorListSetItem"), 1),
    **dict.fromkeys(("GatherV2", "Gather", "StridedSlice"), 1),
}
"""Ops that look at, or write to, one place of a sequence, and which input says where."""


@dataclass(frozen=True)
class Carried:
    """A loop variable.

    Parameters
    ----------
    before, after : str
        Its value inside, before and after a step.
    dtype : int
        Its dtype.
    reader, place : NodeDef, int
        The node outside that takes what it starts from, and as which of its inputs.
    """

    before: str
    after: str
    dtype: int
    reader: node_def_pb2.NodeDef = field(repr=False, compare=False)
    place: int


class Loop(Protocol):
    """A loop of either kind."""

    name: str
    """The scope of the loop itself: ``rnn/while``."""
    ops: list[Op]
    """What a step computes, loops inside it apart."""
    carried: list[Carried]

    def keep(self, value: str, dtype: int, label: str) -> str:
        """Stack a value of each step over time; return the name of the tensor that holds it."""

    def outside(self, value: str) -> str | None:
        """Return the tensor that a value unchanged by the loop came in as."""


def loops_of(graph: graph_pb2.GraphDef) -> list[Loop]:
    """Return the outermost loops of a GraphDef; `Loop.keep` changes the graph itself."""
    frames = FrameLoop.all_of(graph)
    return [
        *frames,
        *(WhileLoop(graph, n) for n in graph.node if n.op in ("While", "StatelessWhile")),
    ]


def node(
    name: str, op: str, inputs: Iterable[str] = (), **attrs: attr_value_pb2.AttrValue
) -> node_def_pb2.NodeDef:
    """Return a node; its attributes are given as they stand in a GraphDef."""
    return node_def_pb2.NodeDef(name=name, op=op, input=list(inputs), attr=attrs)


def of_type(kind: int) -> attr_value_pb2.AttrValue:
    """Return the attribute that holds a dtype."""
    return attr_value_pb2.AttrValue(type=kind)


def _int_constant(name: str, value: int) -> node_def_pb2.NodeDef:
    proto = attr_value_pb2.AttrValue()
    proto.tensor.dtype = dtypes.int32.as_datatype_enum
    proto.tensor.int_val.append(value)
    proto.tensor.tensor_shape.SetInParent()
    return node(name, "Const", dtype=of_type(dtypes.int32.as_datatype_enum), value=proto)


def _list_around(graph: graph_pb2.GraphDef, label: str, dtype: int, after: str) -> tuple[str, Any]:
    """Add an empty list before a loop; return its tensor, and what stacks it behind the loop."""
    scope, element, shape = (
        f"{PREFIX}{label}",
        of_type(dtype),
        of_type(dtypes.int32.as_datatype_enum),
    )
    anyhow = _int_constant(f"{scope}/element_shape", -1)
    most = _int_constant(f"{scope}/max_num_elements", -1)
    # A loop in a branch that is not taken must not be woken by a list that is alive.
    start = [anyhow.name, most.name, f"^{after.partition(':')[0]}"]
    empty = node(f"{scope}/list", "EmptyTensorList", start, element_dtype=element, shape_type=shape)
    graph.node.extend([anyhow, most, empty])

    def stacked(filled: str) -> str:
        count = attr_value_pb2.AttrValue(i=-1)
        inputs = [filled, anyhow.name]
        graph.node.append(
            node(scope, "TensorListStack", inputs, element_dtype=element, num_elements=count)
        )
        return f"{scope}:0"

    return f"{empty.name}:0", stacked


def data_inputs(n: node_def_pb2.NodeDef) -> tuple[str, ...]:
    """Return what a node of a GraphDef takes, always with the index of the output."""
    return tuple(i if ":" in i else f"{i}:0" for i in n.input if not i.startswith("^"))


class FrameLoop:
    """A loop of control flow v1: a frame of Enter, Merge, Switch, NextIteration and Exit."""

    def __init__(
        self, graph: graph_pb2.GraphDef, frame: str, members: list[node_def_pb2.NodeDef]
    ) -> None:
        self.graph, self.frame = graph, frame
        self.members = {n.name: n for n in members}
        (self.condition,) = (n.name for n in members if n.op == "LoopCond")
        self.enters = {f"{n.name}:0": n for n in members if n.op == "Enter"}
        self.name = frame.rpartition("/")[0]
        self.ops = _ops(members)
        self.carried = list(self._carried())

    @classmethod
    def all_of(cls, graph: graph_pb2.GraphDef) -> list["FrameLoop"]:
        """Return the outermost frames of a graph, in its order."""
        frames = _frames(graph)
        found: dict[str, list[node_def_pb2.NodeDef]] = {}
        for n in graph.node:
            if len(path := frames.get(n.name, ())) == 1:
                found.setdefault(path[0], []).append(n)
        return [cls(graph, frame, members) for frame, members in found.items()]

    def _carried(self) -> Iterator[Carried]:
        back = {n.name: data_inputs(n)[0] for n in self.members.values() if n.op == "NextIteration"}
        switches = {data_inputs(n)[0]: n for n in self.members.values() if n.op == "Switch"}
        for merge in (n for n in self.members.values() if n.op == "Merge"):
            inputs = data_inputs(merge)
            enter = next((self.enters[i] for i in inputs if i in self.enters), None)
            after = next((back[i[:-2]] for i in inputs if i[:-2] in back), None)
            switch = switches.get(f"{merge.name}:0")
            if enter is not None and after is not None and switch is not None:
                before = f"{switch.name}:1"
                yield Carried(before, after, merge.attr["T"].type, enter, 0)

    def keep(self, value: str, dtype: int, label: str) -> str:
        """Add a list as one more loop variable: Enter to Exit."""
        enter = next(n for n in self.enters.values() if not n.attr["is_constant"].b)
        scope = f"{PREFIX}{label}/loop"
        empty, stacked = _list_around(self.graph, label, dtype, data_inputs(enter)[0])
        kind, like = (
            of_type(VARIANT),
            {k: enter.attr[k] for k in ("frame_name", "parallel_iterations")},
        )
        element = of_type(dtype)
        added = [
            node(f"{scope}/Enter", "Enter", [empty], T=kind, **like),
            node(
                f"{scope}/Merge",
                "Merge",
                [f"{scope}/Enter", f"{scope}/NextIteration"],
                T=kind,
                N=attr_value_pb2.AttrValue(i=2),
            ),
            node(f"{scope}/Switch", "Switch", [f"{scope}/Merge", self.condition], T=kind),
            node(f"{scope}/Identity", "Identity", [f"{scope}/Switch:1"], T=kind),
            node(
                f"{scope}/append",
                "TensorListPushBack",
                [f"{scope}/Identity", value],
                element_dtype=element,
            ),
            node(f"{scope}/NextIteration", "NextIteration", [f"{scope}/append"], T=kind),
            node(f"{scope}/Exit", "Exit", [f"{scope}/Switch"], T=kind),
        ]
        self.graph.node.extend(added)
        return str(stacked(f"{scope}/Exit:0"))

    def outside(self, value: str) -> str | None:
        """Return what an Enter of a constant was given."""
        enter = self.enters.get(value)
        return data_inputs(enter)[0] if enter is not None and enter.attr["is_constant"].b else None


def _frames(graph: graph_pb2.GraphDef) -> dict[str, tuple[str, ...]]:
    """Return the frames, from the outermost in, of each node that is in one."""
    readers: dict[str, list[node_def_pb2.NodeDef]] = {}
    for n in graph.node:
        for i in n.input:
            readers.setdefault(i.lstrip("^").partition(":")[0], []).append(n)
    found: dict[str, tuple[str, ...]] = {}
    enters = [n for n in graph.node if n.op == "Enter"]
    pending = [(n, (n.attr["frame_name"].s.decode(),)) for n in enters]
    while pending:  # an Enter inside a frame is found again from there, with a longer path
        n, path = pending.pop()
        if len(found.get(n.name, ())) >= len(path):
            continue
        found[n.name] = path
        inner = path[:-1] if n.op == "Exit" else path
        for reader in readers.get(n.name, ()):
            if reader.op == "Enter":
                deeper = (*inner, reader.attr["frame_name"].s.decode())
                pending.append((reader, deeper))
            elif inner:
                pending.append((reader, inner))
    return found


def _ops(nodes: Iterable[node_def_pb2.NodeDef]) -> list[Op]:
    found = []
    nodes = list(nodes)
    most: dict[str, int] = {}
    for n in nodes:
        for i in data_inputs(n):
            name, _, k = i.rpartition(":")
            most[name] = max(most.get(name, 0), int(k))
    for n in nodes:
        count = n.attr["num_split"].i if "num_split" in n.attr else most.get(n.name, 0) + 1
        count = len(OUTPUTS.get(n.op, ())) or count
        outputs = tuple(f"{n.name}:{k}" for k in range(count))
        found.append(Op(n.op, n.name, data_inputs(n), outputs))
    return found


class WhileLoop:
    """A loop of control flow v2: a While op with functions for its condition and body."""

    def __init__(self, graph: graph_pb2.GraphDef, loop: node_def_pb2.NodeDef) -> None:
        self.graph, self.loop = graph, loop
        self.name = loop.name
        self.body = self._function("body")
        self.ops = _body_ops(self.body)
        given = data_inputs(loop)
        arguments = self.body.signature.input_arg
        results = self.body.signature.output_arg
        self.arguments = dict(zip((a.name for a in arguments), given, strict=True))
        self.carried = [
            Carried(a.name, self.body.ret[r.name], a.type, loop, k)
            for k, (a, r) in enumerate(zip(arguments, results, strict=True))
        ]
        self.own: tuple[Any, Any] | None = None

    def _function(self, role: str) -> function_pb2.FunctionDef:
        name = self.loop.attr[role].func.name
        return next(f for f in self.graph.library.function if f.signature.name == name)

    def _own_functions(self) -> tuple[Any, Any]:
        """Return condition and body, copied: another loop may share them."""
        if self.own is None:
            copies = []
            for role in ("cond", "body"):
                copy = function_pb2.FunctionDef()
                copy.CopyFrom(self._function(role))
                copy.signature.name = (
                    f"{copy.signature.name}_everystate_{len(self.graph.library.function)}"
                )
                self.graph.library.function.append(copy)
                self.loop.attr[role].func.name = copy.signature.name
                copies.append(self.graph.library.function[-1])
            self.own = copies[0], copies[1]
        return self.own

    def keep(self, value: str, dtype: int, label: str) -> str:
        """Add a list as one more argument and result of the functions."""
        cond, body = self._own_functions()
        k = len(body.signature.input_arg)
        empty, stacked = _list_around(self.graph, label, dtype, data_inputs(self.loop)[0])
        name = f"everystate_{k}"
        for function in (cond, body):
            function.signature.input_arg.add(name=name, type=VARIANT)
        push = node(
            f"{name}_append", "TensorListPushBack", [name, value], element_dtype=of_type(dtype)
        )
        body.node_def.append(push)
        body.signature.output_arg.add(name=f"{name}_out", type=VARIANT)
        body.ret[f"{name}_out"] = f"{push.name}:output_handle:0"
        controls = [i for i in self.loop.input if i.startswith("^")]
        inputs = [i for i in self.loop.input if not i.startswith("^")]
        del self.loop.input[:]
        self.loop.input.extend([*inputs, empty, *controls])
        self.loop.attr["T"].list.type.append(VARIANT)
        if "output_shapes" in self.loop.attr:
            self.loop.attr["output_shapes"].list.shape.add()
        return str(stacked(f"{self.loop.name}:{k}"))

    def outside(self, value: str) -> str | None:
        """Return what an argument that the body hands on was given."""
        same = any(c.before == value == c.after for c in self.carried)
        return self.arguments[value] if same else None


def _body_ops(body: function_pb2.FunctionDef) -> list[Op]:
    used: dict[str, dict[str, None]] = {}
    for value in (*(i for n in body.node_def for i in n.input), *body.ret.values()):
        used.setdefault(value.partition(":")[0], {})[value] = None
    found = []
    for n in body.node_def:
        outputs = tuple(used.get(n.name, ()))
        if n.op in OUTPUTS:
            outputs = tuple(f"{n.name}:{name}:0" for name in OUTPUTS[n.op])
        elif "num_split" in n.attr:
            outputs = tuple(f"{n.name}:output:{k}" for k in range(n.attr["num_split"].i))
        inputs = tuple(i for i in n.input if not i.startswith("^"))
        found.append(Op(n.op, n.name, inputs, outputs))
    return found
