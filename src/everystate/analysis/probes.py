"""Probes: whether a linear map reads a label from the states, on steps it was not fitted on."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import xarray as xr

from everystate.analysis.extra import extra
from everystate.analysis.features import Floats
from everystate.analysis.labels import labelled_states, p_value, shifts_of
from everystate.analysis.layer import Layer
from everystate.errors import AnalysisError, SelectionError

NEEDED_BY: Final = "a probe"


@dataclass(frozen=True)
class Split:
    """How a probe's steps are parted into those it is fitted on and those it is tested on.

    Parameters
    ----------
    folds : int
        Contiguous stretches, each of which is tested once, by a probe fitted on the others.
    gap : int
        Steps left out on each side of the stretch tested: at least as many as the layer remembers,
        or what is tested is next to what was fitted, and nearly the same.
    samples : int
        Most steps to use; of more, every second, third, ... is taken.
    shifts : int
        How many times to fit again with shifted labels.
    seed : int
        Which shifts.
    """

    folds: int = 5
    gap: int = 50
    samples: int = 10_000
    shifts: int = 19
    seed: int = 0


def probe(
    layer: Layer,
    labels: Any,
    variables: str | Sequence[str] = "states",
    *,
    split: Split | None = None,
) -> xr.Dataset:
    r"""Fit a linear map from states to labels, and test it on other stretches of time.

    Labels that are whole numbers, truth values or strings are classes: logistic regression, scored
    by balanced accuracy, the mean over the classes of the share of their steps that are recognised.
    Labels that are floats are quantities: ridge regression, scored by
    :math:`R^2 = 1 - \sum (y - \hat y)^2 / \sum (y - \bar y)^2`. Both on standardised states.

    Parameters
    ----------
    layer : xarray.DataTree or xarray.Dataset
        One layer of a trace.
    labels : array-like
        One label for each row and step, or for each step alone. NaN: the step does not count.
    variables : str or sequence of str
        What to read from: ``"states"``, ``"gates"``, or names such as ``("h", "c")``.
    split : Split, optional
        Stretches, gap and controls. None: 5 stretches, 50 steps apart, of at most 10,000 steps.

    Returns
    -------
    xarray.Dataset
        ``score``, of all tested steps together; ``fold_score`` (fold); ``chance``, what a constant
        prediction scores: 1 over the number of classes, or 0; ``control`` (shift), scores with
        labels shifted in time; ``p_value``, the share of them, counting this one, that are no
        lower; ``weight`` (column) or (class, column), of the probe fitted on all steps, per
        standard deviation of a state. The attribute ``kind`` is ``"classes"`` or ``"quantity"``.

    Raises
    ------
    AnalysisError
        If the labels do not fit, are all the same, or steps are too few for the split.
    MissingDependencyError
        If scikit-learn is not installed.

    Notes
    -----
    *Why stretches and a gap.* States of neighbouring steps are nearly the same. Split at random, a
    probe finds each tested step's neighbours among those it was fitted on, and looks good whatever
    the labels are.

    *Why shifted labels.* A probe with hundreds of columns can find something in any smooth labels.
    Shifted labels are as smooth and as frequent, and lose only that they belong to these steps.
    What the score is above them is what the states tell.

    *What it does not say.* That the network uses what can be read from it.

    References
    ----------
    Alain and Bengio 2016, Understanding intermediate layers using linear classifier probes
    (arXiv:1610.01644). Hewitt and Liang 2019, Designing and interpreting probes with control tasks
    (arXiv:1909.03368).

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> speech = rng.random(60).repeat(20) < 0.5
    >>> h = rng.normal(size=(1, 1200, 4))
    >>> h[0, :, 2] += 3 * speech
    >>> layer = xr.Dataset({"h": (("batch", "time", "unit"), h)})
    >>> found = probe(layer, speech)
    >>> bool(found.score > 0.9), bool(found.control.max() < 0.7)
    (True, True)
    >>> abs(found.weight).argmax("column").item()
    2
    """
    split = Split() if split is None else split
    _check(split)
    states, y = labelled_states(layer, labels, variables)
    thin = -(-y.size // split.samples)
    x, y = states.values[::thin], y[::thin]
    if (y == y[0]).all():
        raise AnalysisError(f"all of the {y.size} steps used have the same label: use more samples")
    classes = not np.issubdtype(y.dtype, np.floating)
    gap = -(-split.gap // thin)
    folds = _folds(y.size, split.folds, gap)
    predicted = _predict(x, y, folds, classes)
    score = _score(y, predicted, classes)
    by = shifts_of(y.size, split.shifts, max(gap, 1), split.seed)
    controls = [_control(x, np.roll(y, k), folds, classes) for k in by]
    weight = _model(classes).fit(x, y)[-1].coef_
    names = {name: states[name] for name in states.coords}
    found = {
        "score": score,
        "fold_score": ("fold", [_score(y[test], predicted[test], classes) for _, test in folds]),
        "chance": 1 / len(np.unique(y)) if classes else 0.0,
        "control": ("shift", controls),
        "p_value": float(p_value(score, np.array(controls))),
        "weight": _labelled(np.asarray(weight), y, classes),
    }
    return xr.Dataset(
        found, {"shift": by * thin, **names}, {"kind": "classes" if classes else "quantity"}
    )


Fold = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]
"""Places of the steps to fit on and of those to test on."""


def _check(split: Split) -> None:
    if split.folds < 2 or split.gap < 0 or split.shifts < 1 or split.samples < split.folds:
        raise SelectionError(
            f"got {split}, expected at least 2 folds, 1 shift, a gap from 0 on and some samples"
        )


def _folds(size: int, count: int, gap: int) -> list[Fold]:
    at = np.arange(size)
    edges = np.linspace(0, size, count + 1).astype(np.int64)
    found = []
    for start, stop in pairwise(edges):
        fit = at[(at < start - gap) | (at >= stop + gap)]
        if fit.size < 2 or stop == start:
            raise AnalysisError(
                f"{size} steps cannot be parted into {count} stretches with {gap} left out on each "
                f"side. Label more steps, or ask for less: split=Split(folds=..., gap=...)."
            )
        found.append((fit, at[start:stop]))
    return found


def _model(classes: bool) -> Any:
    linear = extra("sklearn.linear_model", NEEDED_BY)
    last = linear.LogisticRegression(class_weight="balanced", max_iter=500)
    scaler = extra("sklearn.preprocessing", NEEDED_BY).StandardScaler()
    return extra("sklearn.pipeline", NEEDED_BY).make_pipeline(
        scaler, last if classes else linear.Ridge()
    )


def _predict(x: Floats, y: npt.NDArray[Any], folds: list[Fold], classes: bool) -> npt.NDArray[Any]:
    """Return what probes say of each step, none of them fitted near it."""
    predicted = np.empty_like(y)
    for fit, test in folds:
        if (y[fit] == y[fit[0]]).all():  # nothing to tell apart
            predicted[test] = y[fit[0]]
        else:
            predicted[test] = _model(classes).fit(x[fit], y[fit]).predict(x[test])
    return predicted


def _control(x: Floats, y: npt.NDArray[Any], folds: list[Fold], classes: bool) -> float:
    return _score(y, _predict(x, y, folds, classes), classes)


def _score(y: npt.NDArray[Any], predicted: npt.NDArray[Any], classes: bool) -> float:
    if classes:
        return float(np.mean([(predicted[y == k] == k).mean() for k in np.unique(y)]))
    off = ((y - y.mean()) ** 2).sum()
    return float(1 - ((y - predicted) ** 2).sum() / off) if off > 0 else float("nan")


def _labelled(weight: Floats, y: npt.NDArray[Any], classes: bool) -> xr.DataArray:
    weight = np.atleast_2d(weight)
    if len(weight) == 1:
        return xr.DataArray(weight[0], dims="column")
    assert classes
    return xr.DataArray(weight, {"class": np.unique(y)}, dims=("class", "column"))
