"""Cells whose states a loop carries, all of them or as a mask chooses between new and old."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final

import onnx

from everystate.frameworks.onnx.graph import Scope
from everystate.frameworks.onnx.loops import WHOLE, carried
from everystate.frameworks.onnx.written import ALWAYS, Mask, Written

SHAPED: Final = ("Cast", "Expand", "Identity", "Reshape", "Squeeze", "Unsqueeze")
"""Operators behind which a condition is the same for each row."""

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
        for new in (step.outputs if name == "h" else [value])
        for after, before in states.items()
        if before in begins and (mask := _mask(layer.scope, after, new, before))
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


def _mask(scope: Scope, value: str, new: str, old: str) -> Mask | None:
    """Return what chooses between a new and an old value, and whether it is true of the new one.

    Written as ``Where``, or ``mask * new + (not mask) * old`` (TensorFlow's converter). None: the
    value is no such choice.
    """
    if value == new:
        return ALWAYS
    node = scope.producers.get(value)
    if node is not None and node.op_type == "Where" and {*node.input[1:]} == {new, old}:
        mask = _condition(scope, node.input[0])
        return mask if node.input[1] == new else mask.turned
    if node is None or node.op_type != "Add":
        return None
    factors = dict(filter(None, (_other_factor(scope, part, (new, old)) for part in node.input)))
    if factors.keys() != {new, old}:
        return None
    taken, kept = (_condition(scope, factors[name]) for name in (new, old))
    return taken if taken == kept.turned else None


def _other_factor(scope: Scope, product: str, known: Sequence[str]) -> tuple[str, str] | None:
    """Return which of some values a product is of, and its other factor."""
    node = scope.producers.get(product)
    if node is None or node.op_type != "Mul":
        return None
    one, other = (str(name) for name in node.input)
    if one in known:
        return one, other
    return (other, one) if other in known else None


def _condition(scope: Scope, value: str) -> Mask:
    """Return the mask of a step that is taken if a value is true, or is one as a number."""
    node = scope.producers.get(value)
    while node is not None and node.op_type == "Cast":
        value = str(node.input[0])
        node = scope.producers.get(value)
    origin, taken = value, True
    while node is not None and node.op_type in (*SHAPED, "Not"):
        taken ^= node.op_type == "Not"
        origin = str(node.input[0])
        node = scope.producers.get(origin)
    return Mask(origin, taken, value)
