"""Find LSTM and GRU cells among the ops of TensorFlow or ONNX, by their equations.

The ops may come from a graph that is being built, from eager execution, from a GraphDef or from
a model's file; what counts is which value goes where. So a gate is the very value that the
cell computed, whatever class, wrapper or scope it came from:

* LSTM: ``c' = f * c + i * g``, with f, i and g from three parts of one split into four, and
  ``h' = o * activation(c')`` with the fourth (TensorFlow's ``i j f o``, Keras' ``i f c o``);
* the same LSTM with sigmoids and tanh computed apart, where whoever asks knows no split of four;
* GRU: ``h' = z * h + (1 - z) * n``, or PyTorch's ``z * (h - n) + n``, with n computed from
  ``r * something``;
* the fused ops ``LSTMBlockCell`` and ``GRUBlockCell``, whose outputs are the gates.
"""

from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

Value = Hashable
"""Whatever stands for a tensor: a name in a GraphDef, an id otherwise."""

ADDITIONS: Final = ("Add", "AddV2", "AddN")
CLIPS: Final = ("Minimum", "Maximum", "ClipByValue", "Clip")
SCALINGS: Final = ("Mul", "Sub", "RealDiv")
CONSTANTS: Final = ("Const", "Constant")
PASSED: Final = ("Identity", "Snapshot", "Enter")
COMBINING: Final = ("MatMul", "Gemm", "ConcatV2", "Concat", "Split", "SplitV", "Pack")
"""Ops that mix the units of a value, so that a gate is no gate any more behind them."""


@dataclass(frozen=True)
class Op:
    """One op: its type, name, and the values that it takes and gives."""

    type: str
    name: str
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]


@dataclass(frozen=True)
class FoundCell:
    """One cell: its family, the op it was found at, its gates, and which values are its states.

    `before` holds the state that its equations begin with, where they show it: ``c`` of an LSTM,
    ``h`` of a GRU. Of a GRU, `update` says whether z is the share of the state that it ``keeps``
    or ``writes``.
    """

    family: str
    op: Op
    gates: dict[str, Value]
    states: dict[Value, str] = field(default_factory=dict)
    update: str | None = None
    before: dict[str, Value] = field(default_factory=dict)


class Net:
    """Ops with their producers and consumers."""

    def __init__(self, ops: Iterable[Op]) -> None:
        self.ops = list(ops)
        self.producer = {value: op for op in self.ops for value in op.outputs}
        self.consumers: dict[Value, list[Op]] = {}
        for op in self.ops:
            for value in dict.fromkeys(op.inputs):
                self.consumers.setdefault(value, []).append(op)

    def source(self, value: Value) -> Value:
        """Return what a value was before any op that hands it on unchanged."""
        op = self.producer.get(value)
        while op is not None and op.type in PASSED:
            value = op.inputs[0]
            op = self.producer.get(value)
        return value

    def made_by(self, value: Value, *types: str) -> Op | None:
        """Return the op of one of some types that made a value, or None."""
        op = self.producer.get(self.source(value))
        return op if op is not None and op.type in types else None

    def ancestors(
        self, value: Value, but: tuple[str, ...] = (), until: Value = None
    ) -> Iterator[Op]:
        """Yield the ops behind a value, the nearest first.

        None is behind ops of the types `but`, nor behind the value `until`.
        """
        seen: set[int] = set()
        level = [self.producer.get(value)]
        while level:
            following = []
            for op in level:
                if op is None or id(op) in seen or op.type in but:
                    continue
                seen.add(id(op))
                yield op
                following += [self.producer.get(v) for v in op.inputs if v != until]
            level = following

    def constant(self, value: Value) -> bool:
        """Whether a value is a constant of the step itself."""
        op = self.producer.get(self.source(value))
        return op is not None and op.type in CONSTANTS


def recognised(ops: Iterable[Op], *, apart: bool = False) -> list[FoundCell]:
    """Return the cells among some ops of one step, in the order of computation.

    Parameters
    ----------
    ops : iterable of Op
        In the order of computation.
    apart : bool
        Whether to look for LSTMs too whose gates are no parts of one split.
    """
    net = Net(ops)
    found: list[FoundCell] = []
    states: set[Value] = set()
    for op in net.ops:
        cells: list[FoundCell] = []
        if op.type in ("LSTMBlockCell", "GRUBlockCell"):
            cells = [_block_cell(op)]
        elif op.type in ("Split", "SplitV") and len(op.outputs) == 4:
            cells = [*_lstm(net, op)]
        elif op.type in ADDITIONS and len(op.inputs) == 2:
            cells = _gru(net, op) or _blended(net, op)
            if apart and not cells and op.outputs[0] not in states:
                cells = [*_lstm_apart(net, op)]
        found += cells
        states.update(value for cell in cells for value in cell.states)
    return found


def _block_cell(op: Op) -> FoundCell:
    if op.type == "LSTMBlockCell":
        i, c, f, o, g, _, h = op.outputs
        return FoundCell("LSTM", op, {"i": i, "f": f, "g": g, "o": o}, {c: "c", h: "h"})
    r, z, n, h = op.outputs
    return FoundCell("GRU", op, {"r": r, "z": z, "n": n}, {h: "h"}, "keeps")


def _parts(net: Net, split: Op) -> dict[Value, int]:
    """Return each value computed, element by element, from one part of a split alone."""
    part = {value: k for k, value in enumerate(split.outputs)}
    waiting = list(split.outputs)
    while waiting:
        value = waiting.pop()
        for op in net.consumers.get(value, ()):
            if op.type in COMBINING or len(op.outputs) != 1 or op.outputs[0] in part:
                continue
            others = [v for v in op.inputs if v != value]
            mixed = any(v in part and part[v] != part[value] for v in others)
            scaled = op.type in SCALINGS and not all(net.constant(v) for v in others)
            if not mixed and not scaled:
                part[op.outputs[0]] = part[value]
                waiting.append(op.outputs[0])
    return part


def _lstm(net: Net, split: Op) -> Iterator[FoundCell]:
    part = _parts(net, split)
    for add in _sums(net, part):
        products = [net.made_by(v, "Mul") for v in add.inputs]
        for keep, write in (products, products[::-1]):
            if keep is None or write is None:
                continue
            f = [v for v in keep.inputs if v in part]
            written = sorted((part[v], k) for k, v in enumerate(write.inputs) if v in part)
            if len(f) != 1 or len(written) != 2 or len({part[f[0]], *dict(written)}) != 3:
                continue
            i, g = (write.inputs[k] for _, k in written)  # i comes first in every known order
            (rest,) = {0, 1, 2, 3} - {part[f[0]], *dict(written)}
            (c,) = {*keep.inputs} - {f[0]} or {f[0]}
            for cell in _with_output(net, split, add, {"i": i, "f": f[0], "g": g}, part, rest):
                yield replace(cell, before={"c": c})


def _sums(net: Net, part: Mapping[Value, int]) -> list[Op]:
    """Return additions of two products, one of them of parts."""
    products = [op for value in part for op in net.consumers.get(value, ()) if op.type == "Mul"]
    sums = {
        id(add): add
        for mul in products
        for value in _onwards(net, mul.outputs[0], ())
        for add in net.consumers.get(value, ())
        if add.type in ADDITIONS and len(add.inputs) == 2
    }
    return list(sums.values())


def _with_output(
    net: Net, split: Op, add: Op, gates: dict[str, Value], part: dict[Value, int], rest: int
) -> Iterator[FoundCell]:
    """Complete an LSTM by its output gate: ``h' = o * activation(c')``, projected or not."""
    states: dict[Value, str] = dict.fromkeys(_onwards(net, add.outputs[0], CLIPS), "c")
    shown = {v for c in states for op in net.consumers.get(c, ()) for v in op.outputs}
    for mul in [op for v in part if part[v] == rest for op in net.consumers.get(v, ())]:
        if mul.type != "Mul" or len(mul.inputs) != 2:
            continue
        o = [v for v in mul.inputs if part.get(v) == rest]
        if len(o) == 1 and ({*mul.inputs} - {*o}) & {*shown, *states}:
            outputs = _onwards(net, mul.outputs[0], (*CLIPS, "MatMul"), once="MatMul")
            states |= dict.fromkeys(outputs, "h")
            yield FoundCell("LSTM", split, {**gates, "o": o[0]}, states)
            return


def _onwards(net: Net, value: Value, types: tuple[str, ...], once: str = "") -> list[Value]:
    """Return a value and what ops of some types make of it, one after the other."""
    found = [value]
    while True:
        ahead = [op for op in net.consumers.get(found[-1], ()) if op.type in (*types, *PASSED)]
        if len(ahead) != 1:
            return found
        found += ahead[0].outputs
        if ahead[0].type == once:
            types = tuple(t for t in types if t != once)


def _lstm_apart(net: Net, add: Op) -> Iterator[FoundCell]:
    """Yield an LSTM whose gates are told by their activations: i, f, o of a sigmoid, g of tanh."""
    products = [net.made_by(v, "Mul") for v in add.inputs]
    for keep, write in (products, products[::-1]):
        kept, written = (_sigmoid_times(net, op) for op in (keep, write))
        if kept is None or written is None or not net.made_by(written[1], "Tanh"):
            continue
        for tanh in (op for op in net.consumers.get(add.outputs[0], ()) if op.type == "Tanh"):
            for mul in net.consumers.get(tanh.outputs[0], ()):
                shown = _sigmoid_times(net, mul)
                if mul.type == "Mul" and shown is not None:
                    gates = {"i": written[0], "f": kept[0], "g": written[1], "o": shown[0]}
                    states: dict[Value, str] = {add.outputs[0]: "c", mul.outputs[0]: "h"}
                    yield FoundCell("LSTM", add, gates, states, before={"c": kept[1]})
                    return


def _sigmoid_times(net: Net, mul: Op | None) -> tuple[Value, Value] | None:
    """Return the factors of a product, if just one is a sigmoid: that one first."""
    factors = mul.inputs if mul is not None and len(mul.inputs) == 2 else ()
    gates = [k for k, v in enumerate(factors) if net.made_by(v, "Sigmoid")]
    return (factors[gates[0]], factors[1 - gates[0]]) if len(gates) == 1 else None


def _gru(net: Net, add: Op) -> list[FoundCell]:
    products = [net.made_by(v, "Mul") for v in add.inputs]
    for first, second in (products, products[::-1]):
        if first is None or second is None:
            continue
        for k, value in enumerate(second.inputs):
            rest = net.made_by(value, "Sub")  # 1 - z
            if rest is None or rest.inputs[1] not in first.inputs:
                continue
            z = rest.inputs[1]
            p = next(v for v in (*first.inputs, z) if v != z)
            q = second.inputs[1 - k]
            keeps = _depends(net, q, p)
            if not keeps and not _depends(net, p, q):  # the state is a constant, and was folded
                keeps = net.made_by(q, "Tanh") is not None
            n, h = (q, p) if keeps else (p, q)
            if found := _with_reset(net, add, z, n, h, update="keeps" if keeps else "writes"):
                return found
    return []


def _blended(net: Net, add: Op) -> list[FoundCell]:
    """Return a GRU written as ``h' = z * (h - n) + n``."""
    for k, n in enumerate(add.inputs):
        mul = net.made_by(add.inputs[1 - k], "Mul")
        for j, difference in enumerate(mul.inputs if mul else ()):
            sub = net.made_by(difference, "Sub")
            if mul is not None and sub is not None and sub.inputs[1] == n:
                return _with_reset(net, add, mul.inputs[1 - j], n, sub.inputs[0], update="keeps")
    return []


def _with_reset(net: Net, add: Op, z: Value, n: Value, h: Value, *, update: str) -> list[FoundCell]:
    """Complete a GRU by its reset gate, if it has one."""
    r = _reset(net, n, h, z)
    if r is None:
        return []
    gates = {"r": r, "z": z, "n": n}
    return [FoundCell("GRU", add, gates, {add.outputs[0]: "h"}, update, {"h": h})]


def _depends(net: Net, value: Value, on: Value) -> bool:
    on = net.source(on)
    return any(net.source(v) == on for op in net.ancestors(value) for v in op.inputs)


def _reset(net: Net, n: Value, h: Value, z: Value) -> Value | None:
    """Return the reset gate: what the candidate multiplies by, h itself or what is made of it."""
    products = [
        op
        for op in net.ancestors(n, until=h)
        if op.type == "Mul" and len(op.inputs) == 2 and z not in op.inputs
    ]
    for op in products:  # reset before the matrix product: r * h
        rest = [v for v in op.inputs if net.source(v) != net.source(h)]
        if len(rest) == 1:
            return rest[0]
    for op in products:  # after it: r * (R h + b), the nearest, as a layer below has some too
        gates = [v for v in op.inputs if _activated(net, v)]
        if len(gates) == 1:
            return gates[0]
    return None


def _activated(net: Net, value: Value) -> bool:
    op = net.made_by(value, "Sigmoid", "Split", "SplitV", *CLIPS)
    if op is None or op.type not in ("Split", "SplitV"):
        return op is not None
    return any(net.made_by(v, "Sigmoid", *CLIPS) is not None for v in op.inputs)
