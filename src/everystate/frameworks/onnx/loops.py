"""``Scan`` and ``Loop``: the values that a body carries from one iteration to the next."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import onnx
from onnx import TensorProto

from everystate.frameworks.onnx.files import Tensor, attributes
from everystate.frameworks.onnx.graph import LOOPS, OWN_DOMAINS, Exposure, Scope, Value
from everystate.frameworks.onnx.naming import readable
from everystate.recording.observation import Observation, widened

WHOLE: Final = (TensorProto.INT32, TensorProto.INT64, TensorProto.BOOL)
"""Elements that count, and are no states."""
FIRST_SCAN: Final = 9
"""The operator set since which ``Scan`` has no batch and no lengths of its own."""


def is_loop(node: onnx.NodeProto, opset: int) -> bool:
    """Whether a node is a ``Scan`` or ``Loop`` that carries values."""
    if node.op_type == "Scan" and opset < FIRST_SCAN:
        return False
    return node.op_type in LOOPS and node.domain in OWN_DOMAINS and bool(carried(node))


@dataclass(frozen=True)
class Carried:
    """One carried value.

    Parameters
    ----------
    name, initial, after : str
        Its name in the body, before the loop and after an iteration.
    slot, place : int
        Which input of the node it begins with, and which output it ends as.
    kind : int
        Its type of elements, ONNX's number; 0 if it is not told.
    """

    name: str
    initial: str
    after: str
    slot: int
    place: int
    kind: int = 0


def carried(node: onnx.NodeProto) -> list[Carried]:
    """Return what a loop carries from one iteration to the next.

    What its body hands on as it came is not among it: converters pass weights through loops. Nor
    are lists, such as PyTorch's exporter has it append outputs to.
    """
    given = attributes(node)
    body = given["body"]
    skipped = 2 if node.op_type == "Loop" else 0  # the trip count and the condition
    count = len(node.input) - (skipped or given["num_scan_inputs"])
    inputs, outputs = body.input[skipped:], body.output[1 if skipped else 0 :]
    same = {n.output[0]: n.input[0] for n in body.node if n.op_type == "Identity"}
    found = []
    for k, value in enumerate(inputs[:count]):
        after = outputs[k].name
        while after in same:  # handed on
            after = same[after]
        kind = value.type.tensor_type.elem_type
        if value.type.WhichOneof("value") in (None, "tensor_type"):
            found.append(Carried(value.name, node.input[skipped + k], after, skipped + k, k, kind))
    return [state for state in found if state.after != state.name]


@dataclass(frozen=True, eq=False)
class ShownLoop:
    """A loop whose carried values are shown.

    Parameters
    ----------
    path : str
        Its leaf path.
    op : {"Scan", "Loop"}
        Its operator.
    reverse : bool
        Whether it reads its inputs backwards.
    after, initial : mapping
        Where each carried value is found, by name: of every iteration, and before the first.
    levels : int
        How many loops it is inside of.
    """

    path: str
    op: str
    reverse: bool
    after: Mapping[str, Value]
    initial: Mapping[str, Value]
    levels: int

    def observations(self, results: Mapping[str, Tensor]) -> Iterator[Observation]:
        """Yield what each run of the loop carried; only floating values are states.

        Parameters
        ----------
        results : mapping
            What was fed to the model, and what it put out.
        """
        shown = {n: results[v.name] for n, v in self.after.items()}
        floats = {n: a for n, a in shown.items() if a.dtype.kind == "f"}
        if not any(a.size for a in floats.values()):
            return  # no iteration, or inside a branch that was not taken
        loops = next(iter(floats.values())).shape[: self.levels]
        after = {n: self.after[n].calls(results, loops) for n in floats}
        before = {n: self.initial[n].calls(results, loops) for n in floats}
        for k in range(int(np.prod(loops, dtype=int))):
            observed = _alike({n: _steps(calls[k]) for n, calls in after.items()})
            initial = _alike({n: _steps(calls[k][None]) for n, calls in before.items()})
            yield Observation(
                path=self.path,
                observed={n: a[::-1] if self.reverse else a for n, a in observed.items()},
                initial={n: a[0] for n, a in initial.items()},
                final={n: a[-1] for n, a in observed.items() if len(a)},
                reverse=self.reverse,
                precision=next(iter(observed.values())).dtype.name,
                attrs={"module": self.op},
            )


def _steps(a: Tensor) -> Tensor:
    """Return carried values as (time, batch, units); more dimensions are flattened into units."""
    wide = widened(a)
    if wide.ndim < 3:
        return wide.reshape((len(wide), 1, -1))
    return wide.reshape((*wide.shape[:2], -1))


def _alike(states: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return states of one batch: what has another, or none, is the same for every row."""
    rows = next((a.shape[1] for a in states.values() if a.shape[1] > 1), 1)
    return {
        n: a
        if a.shape[1] == rows
        else np.broadcast_to(a.reshape((len(a), 1, -1)), (len(a), rows, a[0].size))
        for n, a in states.items()
    }


def show_loop(path: str, scope: Scope, node: onnx.NodeProto, exposure: Exposure) -> ShownLoop:
    """Show what a loop carries.

    Parameters
    ----------
    path : str
        Its leaf path.
    scope, node : Scope, onnx.NodeProto
        The node, and the graph it is in.
    exposure : Exposure
        What shows values.
    """
    body = scope.body_of(node)
    states = carried(node)
    names = readable([state.name for state in states])
    after, initial = {}, {}
    for name, state in zip(names, states, strict=True):
        value = exposure.value(body, state.after)
        if value.levels == body.levels:  # else it is not computed by the loop
            after[name] = replace(value, levels=scope.levels)
            initial[name] = exposure.value(scope, state.initial)
    backwards = attributes(node).get("scan_input_directions", [0])
    return ShownLoop(path, node.op_type, all(backwards), after, initial, scope.levels)
