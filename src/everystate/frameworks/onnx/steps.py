"""One step of a cell that is written out as single operators: what it begins with, reads, gives."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Final

import onnx

from everystate.frameworks.onnx.files import Source, attributes
from everystate.frameworks.onnx.graph import Scope
from everystate.frameworks.onnx.slices import joined
from everystate.recording.recognition import ADDITIONS, FoundCell, Net, Op, recognised

PRODUCTS: Final = ("MatMul", "Gemm", "MatMulInteger", "DynamicQuantizeMatMul", "FusedMatMul")
FACTORS: Final = 2
"""Of a product; a Gemm has a bias too."""
RESHAPED: Final = ("Identity", "Squeeze", "Unsqueeze", "Reshape", "SplitToSequence")
ROUNDED: Final = "DynamicQuantizeLinear"
"""What a quantised product reads in place of a value."""
ACTIVATIONS: Final = ("Tanh", "Relu", "Sigmoid", "Softsign", "Softplus", "HardSigmoid")
READING: Final = ("Gather", "Slice", "Split", "SequenceAt")
"""What takes a step off a sequence."""


@dataclass(frozen=True, eq=False)
class Step:
    """One cell in one step: the names of its values.

    Parameters
    ----------
    cell : FoundCell
        The cell.
    after, before : mapping
        Its states after the step, and before it as far as they are known.
    weights : mapping
        The matrices of the step, and what is multiplied by each.
    recurrent : str, optional
        Which of them the state is multiplied by.
    """

    cell: FoundCell
    after: Mapping[str, str]
    before: Mapping[str, str]
    weights: Mapping[str, str]
    recurrent: str | None = None

    @property
    def outputs(self) -> list[str]:
        """What may be ``h``: as it leaves the cell, clipped, projected."""
        return [str(v) for v, state in self.cell.states.items() if state == "h"]

    @property
    def carried(self) -> str:
        """The state that tells from which step another goes on."""
        return "c" if "c" in self.after else "h"


def net_of(source: Source, scope: Scope) -> Net:
    """Return the ops of a graph; what it stores are constants, slices side by side one Split."""
    ops = [Op("Constant", name, (), (name,)) for name in scope.initializers]
    for node in scope.graph.node:
        inputs, outputs = (tuple(n for n in names if n) for names in (node.input, node.output))
        ops.append(Op(node.op_type, node.name, inputs, outputs))
    return Net(joined(ops, partial(_number, source, scope)))


def _number(source: Source, scope: Scope, name: str) -> int | None:
    """Return what a value is, if that is one constant number."""
    scope = scope.owner(name)
    stored = scope.initializers.get(name)
    node = scope.producers.get(name)
    if node is not None and node.op_type == "Constant":
        (stored,) = attributes(node).values()
    if not isinstance(stored, onnx.TensorProto):
        return None
    array = source.array(stored)
    return int(array.flat[0]) if array.size == 1 else None


@dataclass(eq=False)
class Reader:
    """Reads what a graph computes."""

    source: Source
    scope: Scope
    net: Net

    def __post_init__(self) -> None:
        self.states: set[str] = set()
        """All states, behind which is another step."""
        self.inside: set[str] = set()
        """All gates."""

    def same(self, value: object) -> str:
        """Return what a value was before axes of one were added or removed, or it was rounded."""
        op = self.net.producer.get(value)
        while op is not None and op.type in (*RESHAPED, ROUNDED):
            value = op.inputs[0]
            op = self.net.producer.get(value)
        return str(value)

    def cells(self) -> list[Step]:
        """Return the steps of LSTMs and GRUs."""
        found = [cell for cell in recognised(self.net.ops, apart=True) if cell.states]
        self.states |= {str(value) for cell in found for value in cell.states}
        self.inside = {str(value) for cell in found for value in cell.gates.values()}
        return [self._step(cell) for cell in found]

    def _step(self, cell: FoundCell) -> Step:
        after: dict[str, str] = {}
        for value, state in cell.states.items():
            if state == "c" or state not in after:  # c as it is clipped, h as it leaves the cell
                after[state] = str(value)
        before = {state: str(value) for state, value in cell.before.items()}
        split = cell.op.type == "Split"
        begins = cell.op.inputs[:1] if split else tuple(cell.gates.values())
        return Step(cell, after, before, self._weights(begins, {*before.values()}))

    def simple(self) -> list[Step]:
        """Return what may be steps of simple RNNs."""
        found: dict[str, Step] = {}
        known = self.inside | self.states
        for op in self.net.ops:
            if not known.isdisjoint((*op.outputs, *op.inputs)):
                continue  # a gate, or the tanh of an LSTM's c
            if op.type in ACTIVATIONS and self.net.made_by(op.inputs[0], *ADDITIONS, *PRODUCTS):
                cell = FoundCell("SimpleRNN", op, {}, {op.outputs[0]: "h"})
                h = str(op.outputs[0])
                found[h] = Step(cell, {"h": h}, {}, self._weights(op.inputs[:1], set(), sums=True))
        self.states |= set(found)
        return [self._begins(step, found) for step in found.values()]

    def _begins(self, step: Step, others: Mapping[str, Step]) -> Step:
        """Return a step of a simple RNN that knows its state before, if it is another's."""
        for weight, data in step.weights.items():
            for part in self._parts(data, ("Concat",)):
                before = others.get(part)
                if before is None or before.cell.op.type != step.cell.op.type:
                    continue
                folded = before.weights.keys() < step.weights.keys()
                if weight in before.weights or folded:
                    return replace(step, before={"h": part}, recurrent=weight)
        return step

    def recurrent(self, step: Step, before: Step | None) -> Step:
        """Return a step that knows the matrix its state is multiplied by."""
        if step.recurrent:
            return step
        for h in before.outputs if before else [*step.before.values()][:1]:
            for weight, data in step.weights.items():
                if self.same(h) in self._parts(data):
                    return replace(step, before={**step.before, "h": h}, recurrent=weight)
        return step

    def _parts(self, data: str, ways: tuple[str, ...] = ("Concat", "Mul")) -> list[str]:
        """Return what is multiplied: the state, or the state beside the input, or scaled."""
        op = self.net.producer.get(data)
        parts = op.inputs if op is not None and op.type in ways else ()
        return [self.same(part) for part in (data, *parts)]

    def goes_on(self, step: Step, before: Step) -> bool:
        """Whether two steps are of one layer, if one begins where the other ended."""
        if step.recurrent is None or step.recurrent in before.weights:
            return True
        if not before.weights.keys() < step.weights.keys():
            return False
        # The product with a state of zeros was folded into a constant.
        reads = [self.read(s, step.recurrent) for s in (step, before)]
        return None not in reads and len({read[0] for read in reads if read}) == 1

    def begun(self, steps: list[Step]) -> list[Step]:
        """Return steps the first of which knows the ``h`` that it begins with, if that is told."""
        steps = [self._as_read(steps, k) for k in range(len(steps))]
        first = steps[0]
        if "h" in first.before:
            return steps
        known = steps[1].recurrent if len(steps) > 1 else self._square(first)
        data = first.weights.get(known or "")
        op = self.net.producer.get(data)
        if data is None or (op is not None and op.type == "Concat"):
            return steps
        return [replace(first, before={**first.before, "h": data}, recurrent=known), *steps[1:]]

    def _as_read(self, steps: list[Step], k: int) -> Step:
        """Return a step whose ``h`` is what the next one reads, projected or not."""
        if len(steps) == 1:
            return steps[0]
        end = min(k + 1, len(steps) - 1)
        read, outputs = steps[end].before.get("h"), steps[end - 1].outputs
        place = outputs.index(read) if read in outputs else 0
        return replace(steps[k], after={**steps[k].after, "h": steps[k].outputs[place]})

    def _square(self, step: Step) -> str | None:
        """Return the matrix of an LSTM's state: told by its shape, or by where its data are."""
        if step.cell.family != "LSTM":
            return None
        sizes = {weight: self._sizes(weight) for weight in step.weights}
        fits = [w for w, n in sizes.items() if len(n) == FACTORS and max(n) == 4 * min(n)]
        if len(fits) > 1:  # taken off the same array as c
            origin = self._origin(step.before["c"])
            fits = [w for w in fits if self._origin(step.weights[w]) == origin]
        return fits[0] if len(fits) == 1 else None

    def _sizes(self, name: str) -> tuple[int, ...]:
        stored = self.scope.owner(name).initializers
        return tuple(stored[name].dims) if name in stored else ()

    def _origin(self, value: str) -> str:
        op = self.net.producer.get(self.same(value))
        return self.same(op.inputs[0]) if op is not None and op.type in READING else value

    def _weights(
        self, values: Iterable[object], until: set[str], *, sums: bool = False
    ) -> dict[str, str]:
        """Return the matrices of the nearest products behind values, and their other factors."""
        found = {}
        for op, _ in self._behind(values, until, sums=sums):
            if op.type in PRODUCTS:
                data, weight = (str(value) for value in op.inputs[:FACTORS])
                if self._sizes(data) and not self._sizes(weight):
                    data, weight = weight, data
                found[weight] = data
        return found

    def _behind(
        self, values: Iterable[object], until: set[str], *, sums: bool = False
    ) -> Iterator[tuple[Op, object]]:
        """Yield what is behind values, up to products; or only through additions."""
        seen: set[int] = set()
        waiting = [v for v in values if v not in until]
        for value in waiting:  # it grows
            op = self.net.producer.get(value)
            if op is None or id(op) in seen:
                continue
            seen.add(id(op))
            yield op, value
            if op.type not in PRODUCTS and (not sums or self._adds(op)):
                waiting += [v for v in op.inputs if v not in until]

    def _adds(self, op: Op) -> bool:
        """Whether an op hands on a sum, or scales a product of whole numbers."""
        scales = op.type == "Mul" and any(self.net.made_by(v, "Cast") for v in op.inputs)
        return scales or op.type in (*ADDITIONS, *RESHAPED, "Cast")

    def read(self, step: Step, recurrent: str | None) -> tuple[str, int] | None:
        """Return the sequence that a step's input is a part of, and which part, if that is told."""
        data: list[object] = [v for w, v in step.weights.items() if w != recurrent]
        added = () if step.cell.family == "GRU" else step.cell.op.inputs[:1]
        for op, value in self._behind([*data, *added], self.states):
            if op.type in READING and (place := self._place(op, value)) is not None:
                return self.same(op.inputs[0]), place
        return None

    def _place(self, op: Op, value: object) -> int | None:
        """Return which part an op takes, if that is a constant."""
        if op.type == "Split":
            return op.outputs.index(value)
        return self._number(op.inputs[1:])

    def _number(self, values: Sequence[object]) -> int | None:
        """Return the first of some values, if that is a constant."""
        return _number(self.source, self.scope, str(next(iter(values), "")))

    def _turned(self, value: str) -> bool:
        """Whether a sequence is another from its end to its beginning: a slice of steps -1."""
        op = self.net.producer.get(value)
        return op is not None and op.type == "Slice" and self._number(op.inputs[4:]) == -1

    def used(self, steps: list[Step]) -> bool:
        """Whether there is more use of what steps end with than its shape (Keras' converter)."""
        users = self.net.consumers.get(steps[-1].after["h"], ())
        return not users or any(op.type != "Shape" for op in users)

    def whole(self, steps: list[Step]) -> bool:
        """Whether no step is missing before the first: one that was written in another way.

        Such a one would have computed the state that these begin with, from the part of the
        sequence before theirs.
        """
        first = steps[0]
        begins = self.same(first.before.get(first.carried, ""))
        op = self.net.producer.get(begins)
        computed = op is not None and op.type in (*ADDITIONS, *ACTIVATIONS, "Mul")
        read = self.read(first, first.recurrent)
        return not computed or begins in self.states or read is None or read[1] == 0

    def backwards(self, steps: list[Step]) -> bool:
        """Whether steps read a sequence from its end to its beginning."""
        reads = [self.read(step, steps[-1].recurrent) for step in steps]
        known = [read for read in reads if read is not None]
        if len(known) < max(2, len(steps)) or len({source for source, _ in known}) > 1:
            return False
        places = [-p if self._turned(source) else p for source, p in known]
        return all(b < a for a, b in pairwise(places))
