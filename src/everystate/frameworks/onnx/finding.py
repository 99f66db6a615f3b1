"""What there is to record in a model: nodes, loops and layers that are written out, by path."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import onnx

from everystate.errors import UnsupportedModelError
from everystate.frameworks.onnx import quantised
from everystate.frameworks.onnx.files import Source
from everystate.frameworks.onnx.graph import LOOPS, OWN_DOMAINS, Scope
from everystate.frameworks.onnx.looping import carried_by
from everystate.frameworks.onnx.loops import is_loop
from everystate.frameworks.onnx.naming import Named, name_of, paths
from everystate.frameworks.onnx.nodes import FAMILY, directions
from everystate.frameworks.onnx.recurrent import is_recurrent, time_first
from everystate.frameworks.onnx.written import OPS, Written, written_in

WAYS: Final = {False: "forward", True: "backward"}


@dataclass(frozen=True, eq=False)
class Found:
    """What is recorded: a recurrent node, a loop, or layers that are written out.

    Parameters
    ----------
    path : str
        Its path.
    scope, node : Scope, onnx.NodeProto
        The node, and the graph it is in; of a layer that is written out, one of its nodes.
    written : list of Written
        The layers that are written out, each with its leaf path: this one, or all that a loop
        carries.
    """

    path: str
    scope: Scope
    node: onnx.NodeProto
    written: Sequence[Written] = ()

    @property
    def leaves(self) -> list[str]:
        """Its leaf paths: one for each direction, or layer."""
        if self.written:
            return [layer.path for layer in self.written]
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
    opset, root = opset_of(source), Scope(source.proto.graph)
    met = [
        Found("", scope, node)
        for scope, node in root.walk()
        if scope.visible and (is_recurrent(node) or is_loop(node, opset))
    ]
    place = {tuple(found.node.output): k for k, found in enumerate(met)}
    for scope in (root, *root.scopes()):
        if scope.visible:
            _add_written(met, scope, written_in(source, scope), place)
    if not met:
        raise UnsupportedModelError(_nothing(source))
    named = [_named(found, k, _around(found.scope, place)) for k, found in enumerate(met)]
    return [_at(path, found) for path, found in zip(paths(named), met, strict=True)]


def _add_written(
    met: list[Found], scope: Scope, layers: list[Written], place: Mapping[tuple[str, ...], int]
) -> None:
    """Add the layers that are written out in a graph; in a loop's body, those that it carries."""
    if scope.node is not None and scope.node.op_type in LOOPS:
        begun, alone = carried_by(scope.node, layers)
        k = place.get(tuple(scope.node.output))
        if k is not None and begun and alone:
            met[k] = replace(met[k], written=begun)
            return
        layers = begun + [layer for layer in layers if len(layer.steps) > 1]
    met += [Found("", scope, layer.node, [layer]) for layer in _paired(layers)]


def _paired(layers: Sequence[Written]) -> list[Written]:
    """Return layers of which one that reads backwards shares a path with one beside it."""
    found: list[Written] = []
    for layer in layers:
        if found and _beside(found[-1], layer):
            key = found[-1].weights
            found[-1:] = [replace(w, way=WAYS[w.reverse], key=key) for w in (found[-1], layer)]
        else:
            found.append(layer)
    return found


def _beside(one: Written, other: Written) -> bool:
    alike = (_module(one), len(one.steps)) == (_module(other), len(other.steps))
    return alike and one.reverse != other.reverse and not one.way


def _named(found: Found, k: int, within: int | None) -> Named:
    node = found.node
    if is_recurrent(node):
        op = FAMILY.get(node.op_type, node.op_type)
        name = name_of(node, op).removesuffix(quantised.SUFFIX)
        return Named(name, op, within, " ".join(node.input[1:3]))
    if node.op_type in LOOPS and (len(found.written) != 1 or "/" in node.name.strip("/")):
        return Named(name_of(node, node.op_type), node.op_type, within, str(k))
    (layer,) = found.written  # in a loop that has no name, its own tells more
    return Named(_module(layer), OPS[layer.family], within, layer.weights)


def _module(layer: Written) -> str:
    """Return the name that an operator in the place of a layer would have."""
    node, op = layer.node, OPS[layer.family]
    name = name_of(node, op)
    module = name.rpartition("/")[0] if name == node.name else name.removesuffix(f"/{op}")
    module = re.sub(r"/while(_\d+)?(?=/|$)", "", module)
    return f"{module}/{op}" if module else ""


def _at(path: str, found: Found) -> Found:
    """Return what was found with its path, and its layers with theirs."""
    layers = [
        replace(layer, path="/".join(part for part in (path, own) if part))
        for layer, own in zip(found.written, _own(found.written), strict=True)
    ]
    return replace(found, path=path, written=layers)


def _own(layers: Sequence[Written]) -> list[str]:
    """Return how the paths of layers end, that share a loop or a place."""
    return [layer.way if len(layers) == 1 else f"layer_{k}" for k, layer in enumerate(layers)]


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


def _nothing(source: Source) -> str:
    scopes = list(Scope(source.proto.graph).walk())
    hidden = [scope.node.op_type for scope, n in scopes if is_recurrent(n) and scope.node]
    if hidden:
        return (
            f"{source.name}: its recurrent nodes are inside of {', '.join(sorted(set(hidden)))}, "
            "whose bodies onnxruntime does not show; known are Loop, Scan and If."
        )
    kinds = sorted({".".join(filter(None, (n.domain, n.op_type))) for _, n in scopes})
    return (
        f"{source.name} has no recurrent node; it is made of {', '.join(kinds[:12])}. Known are "
        "LSTM, GRU, RNN, Scan and Loop that carry values, and LSTM, GRU and simple RNN cells "
        "that are written out as single operators."
    )
