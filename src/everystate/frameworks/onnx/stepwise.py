"""An LSTM one step at a time: onnxruntime's own kernel in a ``Scan``, which shows ``c`` of each.

The kernel goes step by step itself, so that cutting the sequence there changes no bit of its
results. This is not believed: the node as it was runs as well, on the first steps, and what it
says of them must be what the ``Scan`` says, bit by bit.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from everystate.frameworks.onnx.files import Tensor, attributes
from everystate.frameworks.onnx.graph import OWN_DOMAINS, Exposure, Scope

OP: Final = "LSTM"
OPSET: Final = 13
"""The operator set since which ``Unsqueeze`` takes its axes as an input."""
TRIED: Final = 2
"""Steps that are run both ways: the second begins with a state."""
WORK: Final = 1 << 18
"""Weights times rows from which on a step takes longer than what the ``Scan`` adds to it.

On one machine that was 4 to 6 microseconds a step; so was an LSTM of 64 units on 16 rows."""
_X, _W, _R, _B, _LENGTHS, _H, _C, _P = range(8)
_LAST: Final = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Trial:
    """Some steps of a node both ways: the names of outputs that must be equal.

    Parameters
    ----------
    h, c : str
        ``h`` and ``c`` of every step, from the ``Scan``.
    tried_h, tried_c : str
        ``h`` of the steps tried and ``c`` after the last of them, from the node as it was.
    reverse : bool
        Whether it reads backwards, so that the last steps are its first.
    """

    h: str
    c: str
    tried_h: str
    tried_c: str
    reverse: bool

    def holds(self, results: Mapping[str, Tensor]) -> bool:
        """Whether both ways gave the same bits."""
        tried = results[self.tried_h]
        few = slice(-len(tried), None) if self.reverse else slice(len(tried))
        h, c = results[self.h][few], results[self.c][few]
        ended = c[0] if self.reverse else c[-1]
        pairs = ((h, tried), (ended, results[self.tried_c]))
        return all(np.array_equal(a, b, equal_nan=True) for a, b in pairs)


def can_be_stepped(scope: Scope, node: onnx.NodeProto, opset: int, rows: int) -> bool:
    """Whether a node can be run step by step, and it is worth while.

    Parameters
    ----------
    scope, node : Scope, onnx.NodeProto
        The node, and the graph it is in.
    opset : int
        The model's operator set.
    rows : int
        The size of the batch, as far as it is known; else 1.
    """
    names = _inputs(node)
    weights = [scope.initializers.get(names[k]) for k in (_W, _R)]
    if node.op_type != OP or node.domain not in OWN_DOMAINS or opset < OPSET:
        return False
    if scope.parent is not None or names[_LENGTHS]:
        return False
    if attributes(node).get("direction", "forward") == "bidirectional":
        return False
    if any(
        w is None or w.data_type != TensorProto.FLOAT or w.name in scope.inputs for w in weights
    ):
        return False  # prepared anew at each step, perhaps in another way
    return rows * sum(int(np.prod(w.dims)) for w in weights if w is not None) >= WORK


def step(scope: Scope, node: onnx.NodeProto, exposure: Exposure) -> Trial:
    """Replace a node by a ``Scan`` over its steps, and show ``c`` of each, and a trial.

    Parameters
    ----------
    scope, node : Scope, onnx.NodeProto
        The node, all of whose outputs have names, and the graph it is in; both are changed.
    exposure : Exposure
        What shows values.
    """
    graph, fresh = scope.graph, exposure.fresh
    Y, Y_h, Y_c = node.output
    names, reverse = _inputs(node), attributes(node).get("direction") == "reverse"

    def stored(*numbers: int) -> str:
        graph.initializer.append(numpy_helper.from_array(np.array(numbers, np.int64), fresh()))
        return str(graph.initializer[-1].name)

    before: list[onnx.NodeProto] = []

    def made(op: str, *inputs: str, **options: Any) -> str:
        before.append(helper.make_node(op, inputs, [fresh()], **options))
        return str(before[-1].output[0])

    if not names[_H] or not names[_C]:
        rows = made("Gather", made("Shape", names[_X]), stored(1))
        units = scope.initializers[names[_R]].dims[-1]
        sizes = made("Concat", stored(1), rows, stored(units), axis=0)
        zero = made("ConstantOfShape", sizes)
    h, c = names[_H] or zero, names[_C] or zero

    span = (-TRIED, _LAST) if reverse else (0, TRIED)
    some = made("Slice", names[_X], *(stored(k) for k in span), stored(0))
    tried = _like(node, [some, *names[_X + 1 :]], [fresh(), "", fresh()])

    each_y, each_c = fresh(), fresh()
    backwards: dict[str, Any] = {"scan_input_directions": [1], "scan_output_directions": [1, 1]}
    scan = helper.make_node(
        "Scan",
        [h, c, made("Unsqueeze", names[_X], stored(1))],
        [Y_h, Y_c, each_y, each_c],
        body=_body(node, names, fresh),
        num_scan_inputs=1,
        **(backwards if reverse else {}),
    )
    whole = helper.make_node("Squeeze", [each_y, stored(1)], [Y])
    place = next(k for k, other in enumerate(graph.node) if Y in other.output)
    node.CopyFrom(scan)
    graph.node.insert(place + 1, whole)
    for made_before in reversed([*before, tried]):
        graph.node.insert(place, made_before)
    scope.producers |= {name: n for n in (*before, tried, node, whole) for name in n.output if name}
    trial = Trial(Y, each_c, tried.output[0], tried.output[2], reverse)
    for name in (each_c, trial.tried_h, trial.tried_c):
        exposure.value(scope, name)
    return trial


def _body(node: onnx.NodeProto, names: list[str], fresh: Callable[[], str]) -> onnx.GraphProto:
    """Return one step: the node as it was, forwards, on a sequence of one."""
    x, h, c, y, next_h, next_c, shown_c = (fresh() for _ in range(7))
    one = _like(node, [x, *names[_W:_H], h, c, names[_P]], [y, next_h, next_c])
    forwards = [a for a in one.attribute if a.name != "direction"]
    del one.attribute[:]
    one.attribute.extend(forwards)
    return helper.make_graph(
        [one, helper.make_node("Identity", [next_c], [shown_c])],
        "step",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in (h, c, x)],
        [onnx.ValueInfoProto(name=name) for name in (next_h, next_c, y, shown_c)],
    )


def _like(node: onnx.NodeProto, inputs: list[str], outputs: list[str]) -> onnx.NodeProto:
    """Return a node of the same attributes, on other inputs."""
    other = onnx.NodeProto()
    other.CopyFrom(node)
    other.name = ""
    del other.input[:]
    del other.output[:]
    other.input.extend(inputs)
    other.output.extend(outputs)
    return other


def _inputs(node: onnx.NodeProto) -> list[str]:
    """Return the names of all inputs that the operator knows, empty where it has none."""
    return [*node.input, *[""] * (_P + 1 - len(node.input))]
