"""Recurrent nodes: what shows each of them, and the observations that come of a run."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import onnx
from onnx import helper

from everystate.cells import Weights
from everystate.frameworks.onnx import quantised
from everystate.frameworks.onnx.files import Tensor, attributes, subgraphs
from everystate.frameworks.onnx.graph import OWN_DOMAINS, Calls, Exposure, Scope, Value
from everystate.frameworks.onnx.nodes import (
    GATE_ORDER,
    INPUTS,
    OUTPUTS,
    WEIGHTS,
    Direction,
    canonical,
    directions,
)
from everystate.frameworks.onnx.stepwise import Trial, step
from everystate.recording.observation import Observation

RANK_OF_Y: Final = 4
EACH_C: Final = "c of each step"
"""Where ``c`` is found if the node is run step by step."""
_BATCH_FIRST: Final[Mapping[str, tuple[int, ...]]] = {
    "X": (1, 0, 2),
    "initial_h": (1, 0, 2),
    "initial_c": (1, 0, 2),
    "Y": (2, 0, 1, 3),
    "Y_h": (1, 0, 2),
    "Y_c": (1, 0, 2),
}
"""How to turn what has ``layout=0`` for a node of ``layout=1``, and back."""


def is_recurrent(node: onnx.NodeProto) -> bool:
    """Whether a node is one of ONNX's recurrent operators, or onnxruntime's quantised one."""
    if node.op_type == quantised.OP:
        return node.domain == quantised.DOMAIN
    return node.op_type in INPUTS and node.domain in OWN_DOMAINS


def time_first(graph: onnx.GraphProto) -> None:
    """Rewrite recurrent nodes of ``layout=1``, which onnxruntime does not run, as ``layout=0``.

    Transposing before and after is what the operator's definition says of it.
    """
    nodes = list(graph.node)
    if any(_batch_first(node) for node in nodes):
        rewritten = [n for node in nodes for n in _turned(node)]
        del graph.node[:]
        graph.node.extend(rewritten)
    for node in graph.node:
        for _, body in subgraphs(node):
            time_first(body)


def _batch_first(node: onnx.NodeProto) -> bool:
    return is_recurrent(node) and bool(attributes(node).get("layout"))


def _turned(node: onnx.NodeProto) -> list[onnx.NodeProto]:
    if not _batch_first(node):
        return [node]
    own = next(name for name in node.output if name)  # no other node has an output of this name
    before, after = [], []
    for k, (role, name) in enumerate(zip(INPUTS[node.op_type], node.input, strict=False)):
        if role in _BATCH_FIRST and name:
            node.input[k] = f"everystate:{own}:{role}"
            before.append(_transpose(name, node.input[k], _BATCH_FIRST[role]))
    for k, (role, name) in enumerate(zip(OUTPUTS[node.op_type], node.output, strict=False)):
        if name:
            node.output[k] = f"everystate:{own}:{role}"
            after.append(_transpose(node.output[k], name, _BATCH_FIRST[role]))
    kept = [a for a in node.attribute if a.name != "layout"]
    del node.attribute[:]
    node.attribute.extend(kept)
    return [*before, node, *after]


def _transpose(name: str, to: str, perm: Sequence[int]) -> onnx.NodeProto:
    return helper.make_node("Transpose", [name], [to], perm=list(perm))


@dataclass(frozen=True, eq=False)
class ShownNode:
    """A recurrent node whose values are shown.

    Parameters
    ----------
    path : str
        Its leaf path, its directions apart.
    op : {"LSTM", "GRU", "RNN"}
        Its operator.
    ways : list of Direction
        Its directions.
    values : mapping
        Where each of its inputs and outputs is found, by its name in ONNX's definition.
    levels : int
        How many loops it is inside of.
    trial : Trial, optional
        What must hold if it is run step by step.
    """

    path: str
    op: str
    ways: list[Direction]
    values: Mapping[str, Value]
    levels: int
    trial: Trial | None = None
    _stored: dict[int, Weights] = field(default_factory=dict)

    def observations(self, results: Mapping[str, Tensor]) -> Iterator[Observation]:
        """Yield every sequence that each direction processed.

        Parameters
        ----------
        results : mapping
            What was fed to the model, and what it put out.
        """
        Y = results[self.values["Y"].name]
        if Y.ndim != self.levels + RANK_OF_Y:
            return  # inside a branch that was not taken
        loops = Y.shape[: self.levels]
        calls = {role: value.calls(results, loops) for role, value in self.values.items()}
        for way in self.ways:
            for run in self._runs(calls, way, int(np.prod(loops, dtype=int))):
                yield self._observation(calls, way, run)

    def _runs(self, calls: Mapping[str, Calls], way: Direction, count: int) -> Iterator[range]:
        """Yield the calls that are one sequence: each begins with the state the last ended in."""
        start = 0
        for k in range(1, count + 1):
            if k == count or not self._goes_on(calls, way, k):
                yield range(start, k)
                start = k

    def _goes_on(self, calls: Mapping[str, Calls], way: Direction, k: int) -> bool:
        alone = self.op == quantised.OP  # each call rounds its input by itself
        if way.reverse or "sequence_lens" in calls or self.values["W"].levels or alone:
            return False
        for before, after in (("Y_h", "initial_h"), ("Y_c", "initial_c")):
            if before not in calls:
                continue
            if after not in calls:
                return False
            ended, begins = calls[before][k - 1][way.place], calls[after][k][way.place]
            if not np.array_equal(ended, begins, equal_nan=True):
                return False
        return True

    def _observation(self, calls: Mapping[str, Calls], way: Direction, run: range) -> Observation:
        d = way.place
        observed = {"h": _along_time([calls["Y"][k][:, d] for k in run])}
        if EACH_C in calls:
            observed["c"] = _along_time([calls[EACH_C][k][:, d] for k in run])
        elif "c" in way.cell.states and len(observed["h"]) == len(run):  # a step a call
            observed["c"] = np.stack([calls["Y_c"][k][d] for k in run])
        first, last = run[0], run[-1]
        final = {s: calls[f"Y_{s}"][last][d] for s in way.cell.states}
        initial = {
            s: calls[f"initial_{s}"][first][d] if f"initial_{s}" in calls else np.zeros_like(end)
            for s, end in final.items()
        }
        lengths = calls["sequence_lens"][first] if "sequence_lens" in calls else None
        weights = self._weights(calls, way, first)
        seen = Observation(
            path=f"{self.path}/{way.name}" if way.name else self.path,
            observed=observed,
            initial=initial,
            final=final,
            inputs=_along_time([calls["X"][k] for k in run]),
            cell=way.cell,
            weights=weights,
            lengths=None if lengths is None else np.asarray(lengths, np.int64),
            reverse=way.reverse,
            precision=observed["h"].dtype.name,
            attrs={
                "cell": type(way.cell).__name__,
                "module": self.op,
                "framework_gate_order": GATE_ORDER[self.op],
            },
        )
        return quantised.as_read(seen) if self.op == quantised.OP else seen

    def _weights(self, calls: Mapping[str, Calls], way: Direction, k: int) -> Weights:
        """Return a direction's weights in one call; those that the model stores are read once."""
        roles = [role for role in WEIGHTS if role in calls]
        stored = all(not self.values[role].name for role in roles)
        if stored and way.place in self._stored:
            return self._stored[way.place]
        arrays = {role: calls[role][k] for role in roles}
        if self.op == quantised.OP:
            arrays = quantised.dequantised(arrays)
        weights = canonical(self.op, arrays, way.place)
        if stored:
            self._stored[way.place] = weights
        return weights


def _along_time(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def show_node(
    path: str, scope: Scope, node: onnx.NodeProto, exposure: Exposure, *, stepwise: bool = False
) -> ShownNode:
    """Show every value of a recurrent node.

    Parameters
    ----------
    path : str
        Its leaf path, its directions apart.
    scope, node : Scope, onnx.NodeProto
        The node, and the graph it is in; outputs that it lacks are added.
    exposure : Exposure
        What shows values.
    stepwise : bool
        Whether to run it step by step (see `stepwise`).
    """
    op, ways = node.op_type, directions(path, node)
    roles = OUTPUTS[op]
    names = [*node.output, *[""] * (len(roles) - len(node.output))]
    del node.output[:]
    node.output.extend(name or exposure.fresh() for name in names)
    scope.producers |= dict.fromkeys(node.output, node)
    named = [
        *zip(INPUTS[op], node.input, strict=False),
        *zip(roles, node.output, strict=True),
    ]
    trial = step(scope, node, exposure) if stepwise else None
    if trial is not None:
        named.append((EACH_C, trial.c))
    values = {role: exposure.value(scope, name) for role, name in named if name}
    return ShownNode(path, op, ways, values, scope.levels, trial)
