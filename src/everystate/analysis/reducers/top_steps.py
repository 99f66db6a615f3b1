"""The steps at which a layer is most extreme, with what went before and came after."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import xarray as xr

from everystate import schema
from everystate.analysis.reducers.base import Reducer, variable
from everystate.analysis.reducers.span import Part, Span, State, Values, ends, joined_ends
from everystate.errors import SelectionError

Score = Literal["max", "norm"]
Places = npt.NDArray[np.int64]


@dataclass
class TopSteps(Reducer):
    r"""The steps of the largest scores among all rows, with their context.

    Parameters
    ----------
    count : int
        How many. Default: 10.
    context : int
        How many of the steps fed before and after each are kept. Default: 5.
    score : {"max", "norm"}
        :math:`\max_u |x_u|` or :math:`\sqrt{\sum_u x_u^2}` over the units. Default: ``"max"``.

    Raises
    ------
    SelectionError
        If `count` is below 1, `context` below 0, or the score another.

    Notes
    -----
    Result: ``score``, ``row`` and ``step`` (rank), the largest score first, of equal ones the
    lower row and the earlier step; ``context`` (rank, offset, unit), NaN beyond the ends of the
    row. There are fewer ranks where there are fewer steps. A step at which a unit is NaN has no
    score; infinite values are the most extreme. Neighbouring steps are not told apart from one
    event: they each take a rank.

    Merging along time completes contexts across the seam; along batch the other's rows are
    numbered behind those so far.

    Examples
    --------
    >>> top = TopSteps(count=1, context=1)
    >>> top.update(np.array([1.0, -5.0]).reshape(2, 1, 1))
    >>> top.update(np.array([2.0, 3.0]).reshape(2, 1, 1), first_step=2)
    >>> top.result().step.item(), top.result().context.values.ravel().tolist()
    (1, [1.0, -5.0, 2.0])
    """

    count: int = 10
    context: int = 5
    score: Score = "max"

    def __post_init__(self) -> None:
        """Refuse what cannot be kept."""
        if self.count < 1 or self.context < 0:
            raise SelectionError(
                f"count={self.count}, context={self.context}: expected 1 or more, and 0 or more."
            )
        if self.score not in get_args(Score):
            raise SelectionError(f"score={self.score!r}: expected 'max' or 'norm'.")

    def _of(self, block: Values, span: Span) -> State:
        scores = self._scores(block)
        steps, rows = np.nonzero(scores >= self._least(scores))
        found = {"score": scores[steps, rows], "row": rows, "step": span.start + steps * span.every}
        best = self._best(found)
        w = self.context
        around = steps[best, None] + np.arange(-w, w + 1)
        inside = (around >= 0) & (around < len(block))
        context = block[np.clip(around, 0, len(block) - 1), rows[best, None]]
        context[~inside] = np.nan
        return {**{n: a[best] for n, a in found.items()}, "context": context, **ends(block, w)}

    def _scores(self, block: Values) -> Values:
        """Return the score of each step and row, -inf for none."""
        size = np.abs(block)
        scores: Values = size.max(axis=2) if self.score == "max" else np.sqrt((size**2).sum(axis=2))
        return np.where(np.isnan(scores), -np.inf, scores)

    def _least(self, scores: Values) -> float:
        """Return what a score must be at least to be among the best of a block."""
        flat = scores.ravel()
        kth = np.partition(flat, -self.count)[-self.count] if flat.size > self.count else -np.inf
        return max(float(kth), np.finfo(np.float64).min)

    def _best(self, found: Mapping[str, Any]) -> Places:
        order = np.lexsort((found["step"], found["row"], -found["score"]))
        return order[: self.count]

    def _joined(self, a: Part, b: Part, *, seam: bool) -> State:
        first, second = dict(a.state), dict(b.state)
        if seam:
            first["context"] = self._ahead(a, b)
            second["context"] = self._behind(a, b)
        second["row"] = b["row"] + (a.span.rows_before_last if seam else a.span.rows)
        names = ("score", "row", "step", "context")
        found = {name: np.concatenate([first[name], second[name]]) for name in names}
        best = self._best(found)
        kept = {name: values[best] for name, values in found.items()}
        return {**kept, **joined_ends(a, b, seam, self.context)}

    def _ahead(self, a: Part, b: Part) -> Values:
        """Return the contexts in `a`, with the steps behind its end from `b`."""
        row = a["row"].astype(np.int64) - a.span.rows_before_last
        place = (a["step"].astype(np.int64) - b.span.start) // b.span.every
        place = place[:, None] + np.arange(-self.context, self.context + 1)
        return _filled(a["context"], place, row, b["head"])

    def _behind(self, a: Part, b: Part) -> Values:
        """Return the contexts in `b`, with the steps before its begin from `a`."""
        row = b["row"].astype(np.int64)
        row = np.where(row < b.span.first_rows, row, -1)
        place = (b["step"].astype(np.int64) - a.span.stop) // a.span.every + len(a["tail"])
        place = place[:, None] + np.arange(-self.context, self.context + 1)
        return _filled(b["context"], place, row, a["tail"])

    def _labelled(self, seen: Part) -> xr.Dataset:
        rank = ("rank",)
        said = {"max": "largest size of a unit", "norm": "norm over the units"}[self.score]
        w = self.context
        return xr.Dataset(
            {
                "score": variable(seen["score"], rank, said, schema.UNITS),
                "row": variable(seen["row"], rank, "row, in the order seen", schema.UNITS),
                "step": variable(seen["step"], rank, "number of the step", "step"),
                "context": variable(
                    seen["context"],
                    (*rank, "offset", schema.UNIT),
                    "values around the step",
                    schema.UNITS,
                ),
            },
            {
                "offset": variable(
                    np.arange(-w, w + 1), ("offset",), "steps fed before or after it", "step"
                )
            },
        )


def _filled(
    context: Values,
    place: Places,
    row: Places,
    source: Values,
) -> Values:
    """Return contexts with what `source` (time, batch, unit) has of them.

    `place` (hit, offset) are steps of `source`, `row` (hit) its rows; what is outside is left.
    """
    inside = (place >= 0) & (place < len(source)) & (row >= 0)[:, None]
    hit, offset = np.nonzero(inside)
    filled = context.copy()
    filled[hit, offset] = source[place[hit, offset], row[hit]]
    return filled
