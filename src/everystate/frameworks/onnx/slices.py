"""Slices that take a value apart, as PyTorch's older exporter writes ``chunk``: one Split."""

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from everystate.recording.recognition import Op

BOUNDS: Final = slice(1, 4)
"""Among the inputs of a Slice: starts, ends and axes."""
Bound = int | str
"""A number, or the name of the value that holds it."""


def joined(ops: Sequence[Op], number: Callable[[str], int | None]) -> Iterator[Op]:
    """Yield ops, each group of slices that lie side by side as one Split in place of the first.

    Parameters
    ----------
    ops : sequence of Op
        Those of a graph.
    number : callable
        What a value is, if that is one constant number.
    """
    parts: dict[tuple[object, Bound], dict[Bound, tuple[Bound, Op]]] = {}
    for op in ops:
        if op.type == "Slice" and len(op.inputs) == BOUNDS.stop:
            start, end, axis = (_bound(str(v), number) for v in op.inputs[BOUNDS])
            parts.setdefault((op.inputs[0], axis), {}).setdefault(start, (end, op))
    groups = [group for found in parts.values() if len(group := _in_order(found)) > 1]
    first = {id(group[0]): group for group in groups}
    others = {id(op) for group in groups for op in group[1:]}
    for op in ops:
        if id(op) in first:
            outputs = tuple(v for part in first[id(op)] for v in part.outputs)
            yield Op("Split", op.name, op.inputs[:1], outputs)
        elif id(op) not in others:
            yield op


def _bound(name: str, number: Callable[[str], int | None]) -> Bound:
    known = number(name)
    return name if known is None else known


def _in_order(parts: dict[Bound, tuple[Bound, Op]]) -> list[Op]:
    """Return the slices from 0 on, each of which begins where the last ends."""
    found: list[Op] = []
    start: Bound = 0
    while start in parts and len(found) < len(parts):
        start, op = parts[start]
        found.append(op)
    return found if len(found) == len(parts) else []
