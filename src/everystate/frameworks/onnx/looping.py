"""Cells whose states a loop carries, all of them or as a mask chooses between new and old."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import onnx

from everystate.frameworks.onnx.graph import Scope
from everystate.frameworks.onnx.loops import WHOLE, carried
from everystate.frameworks.onnx.written import Written

States = Mapping[str, str]
"""What a loop carries: values after an iteration, and what they are called before it."""


def carried_by(node: onnx.NodeProto, layers: Sequence[Written]) -> tuple[list[Written], bool]:
    """Return the layers whose states a loop carries, and whether it carries nothing else.

    Parameters
    ----------
    node : onnx.NodeProto
        The loop.
    layers : sequence of Written
        Those in its body.

    Returns
    -------
    layers : list of Written
        With the names of the states before and after each step, and of the mask.
    alone : bool
        Whether they are all that is carried, whole numbers and the last output apart.
    """
    states = {state.after: state.name for state in carried(node) if state.kind not in WHOLE}
    pairs = [(layer, begun) for layer in layers if (begun := _begun(layer, states))]
    own = {value for _, layer in pairs for value in layer.steps[0].after.values()}
    own |= {
        after
        for after, before in states.items()
        for layer, _ in pairs
        for value in layer.steps[0].after.values()
        if _mask(layer.scope, after, value, before)
    }
    return [layer for _, layer in pairs], own == states.keys()


def _begun(layer: Written, states: States) -> Written | None:
    """Return a layer whose step begins with what a loop carries; None if it does not."""
    if len(layer.steps) > 1:
        return None
    step = layer.steps[0]
    begins = {*step.before.values(), *_parts(layer.scope, step.weights.values())}
    found = {
        name: (after, before, mask)
        for name, value in step.after.items()
        for after, before in states.items()
        if before in begins
        and (mask := "" if after == value else _mask(layer.scope, after, value, before)) is not None
    }
    masks = {mask for _, _, mask in found.values()}
    told = step.before.get(step.carried)
    if found.keys() != step.after.keys() or len(masks) > 1:
        return None
    if told not in (None, found[step.carried][1]):
        return None
    after = {name: value for name, (value, _, _) in found.items()}
    before = {name: value for name, (_, value, _) in found.items()}
    return replace(layer, steps=[replace(step, after=after, before=before)], mask=masks.pop())


def _parts(scope: Scope, values: Iterable[str]) -> Iterator[str]:
    """Yield values that are multiplied, and what they are put together from."""
    for value in values:
        node = scope.producers.get(value)
        yield from (value, *(node.input if node is not None and node.op_type == "Concat" else ()))


def _mask(scope: Scope, value: str, new: str, old: str) -> str | None:
    """Return what chooses between a new and an old value; None if the value is no such choice.

    TensorFlow's converter writes it as ``Where``, or ``mask * new + (not mask) * old``.
    """
    node = scope.producers.get(value)
    if node is None:
        return None
    if node.op_type == "Where" and list(node.input[1:]) == [new, old]:
        return str(node.input[0])
    factors = [_other_factor(scope, part, (new, old)) for part in node.input]
    if node.op_type != "Add" or None in factors:
        return None
    chosen = {kept: _cast(scope, factor) for kept, factor in filter(None, factors)}
    inverse = scope.producers.get(chosen.get(old, ""))
    if inverse is None or inverse.op_type != "Not" or inverse.input[0] != chosen.get(new):
        return None
    return chosen[new]


def _other_factor(scope: Scope, product: str, known: Sequence[str]) -> tuple[str, str] | None:
    """Return which of some values a product is of, and its other factor."""
    node = scope.producers.get(product)
    if node is None or node.op_type != "Mul":
        return None
    one, other = node.input
    if one in known:
        return str(one), str(other)
    return (str(other), str(one)) if other in known else None


def _cast(scope: Scope, value: str) -> str:
    node = scope.producers.get(value)
    return str(node.input[0]) if node is not None and node.op_type == "Cast" else value
