"""What is shown of a model: its recurrent nodes and loops, each by its path."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import onnx

from everystate.errors import UnsupportedModelError
from everystate.frameworks.onnx import quantised
from everystate.frameworks.onnx.files import Source, Tensor
from everystate.frameworks.onnx.graph import OWN_DOMAINS, Exposure, Scope
from everystate.frameworks.onnx.loops import ShownLoop, is_loop, show_loop
from everystate.frameworks.onnx.naming import Named, name_of, paths
from everystate.frameworks.onnx.nodes import FAMILY, directions
from everystate.frameworks.onnx.recurrent import ShownNode, is_recurrent, show_node, time_first
from everystate.frameworks.onnx.stepwise import can_be_stepped


@dataclass(frozen=True, eq=False)
class Found:
    """A recurrent node or loop, the graph it is in, and its path."""

    path: str
    scope: Scope
    node: onnx.NodeProto

    @property
    def leaves(self) -> list[str]:
        """Its leaf paths: one for each direction."""
        if not is_recurrent(self.node):
            return [self.path]
        ways = directions(self.path, self.node)
        return [f"{self.path}/{way.name}" if way.name else self.path for way in ways]


def find(source: Source) -> list[Found]:
    """Return what there is to record in a model; its nodes of ``layout=1`` are rewritten.

    Raises
    ------
    UnsupportedModelError
        If there is nothing.
    """
    time_first(source.proto.graph)
    opset = opset_of(source)
    met = [
        (scope, node)
        for scope, node in Scope(source.proto.graph).walk()
        if scope.visible and (is_recurrent(node) or is_loop(node, opset))
    ]
    if not met:
        raise UnsupportedModelError(_nothing(source))
    place = {tuple(node.output): k for k, (_, node) in enumerate(met)}
    named = []
    for k, (scope, node) in enumerate(met):
        op = FAMILY.get(node.op_type, node.op_type)
        name = name_of(node, op).removesuffix(quantised.SUFFIX)
        named.append(Named(name, op, _around(scope, place), _weights(node, k)))
    return [Found(path, *pair) for path, pair in zip(paths(named), met, strict=True)]


def opset_of(source: Source) -> int:
    """Return the version of ONNX's own operators that a model uses."""
    versions = (o.version for o in source.proto.opset_import if o.domain in OWN_DOMAINS)
    return max(versions, default=0)


def _around(scope: Scope, place: dict[tuple[str, ...], int]) -> int | None:
    """Return the place of the loop next around a scope, among those that are recorded."""
    while scope.parent is not None and scope.node is not None:
        if (found := place.get(tuple(scope.node.output))) is not None:
            return found
        scope = scope.parent
    return None


def _weights(node: onnx.NodeProto, k: int) -> str:
    return " ".join(node.input[1:3]) if is_recurrent(node) else str(k)


def _nothing(source: Source) -> str:
    scopes = list(Scope(source.proto.graph).walk())
    hidden = [scope.node.op_type for scope, n in scopes if is_recurrent(n) and scope.node]
    if hidden:
        return (
            f"{source.name}: its recurrent nodes are inside of {', '.join(sorted(set(hidden)))}, "
            "whose bodies onnxruntime does not show; known are Loop, Scan and If."
        )
    kinds = sorted({node.op_type for _, node in scopes})
    return (
        f"{source.name} has no recurrent node; it is made of {', '.join(kinds[:12])}. Known are "
        "LSTM, GRU, RNN, and Scan and Loop that carry values."
    )


@dataclass(frozen=True, eq=False)
class Plan:
    """A model that shows what is wanted of it.

    Parameters
    ----------
    source : Source
        The model, changed.
    outputs : list of str
        What it puts out beside its own outputs.
    shown : list of ShownNode or ShownLoop
        What makes observations of these.
    """

    source: Source
    outputs: list[str]
    shown: Sequence[ShownNode | ShownLoop]

    def holds(self, results: Mapping[str, Tensor]) -> bool:
        """Whether nodes that are run step by step gave what they give else."""
        trials = [s.trial for s in self.shown if isinstance(s, ShownNode) and s.trial]
        return all(trial.holds(results) for trial in trials)

    @property
    def hint(self) -> str:
        """What may be the reason if onnxruntime fails, though the model alone does not."""
        loops = [s.path for s in self.shown if s.levels or isinstance(s, ShownLoop)]
        if not loops:
            return ""
        return (
            f" What loops carry is shown only if its shape stays from iteration to iteration; if "
            f"that is why, leave out {', '.join(loops)}: select=es.Select(layers=...)."
        )


def plan(
    source: Source,
    wants: Callable[[str], bool],
    rows_of: Callable[[str], int] | None = None,
) -> Plan:
    """Make a model show its recurrent nodes and loops.

    Parameters
    ----------
    source : Source
        Its graph is changed: outputs are added.
    wants : callable
        Whether a leaf's path is wanted.
    rows_of : callable, optional
        How many rows an input has, 1 if that is not known: nodes are run step by step where
        that shows more and is worth while. None: they are not.
    """
    exposure = Exposure(source)
    shown: list[ShownNode | ShownLoop] = []
    for path, scope, node in ((f.path, f.scope, f.node) for f in find(source) if _wanted(f, wants)):
        if is_recurrent(node):
            stepwise = rows_of is not None and can_be_stepped(
                scope, node, opset_of(source), rows_of(node.input[0])
            )
            shown.append(show_node(path, scope, node, exposure, stepwise=stepwise))
        else:
            shown.append(show_loop(path, scope, node, exposure))
    return Plan(source, exposure.outputs, shown)


def _wanted(found: Found, wants: Callable[[str], bool]) -> bool:
    return any(wants(leaf) for leaf in found.leaves)
