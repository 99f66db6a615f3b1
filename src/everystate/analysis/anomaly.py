"""Anomaly over time: how unlike a baseline the states of each step are, and which units say so."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
import xarray as xr

from everystate import schema
from everystate.analysis.distances import Distance, Mahalanobis, Nearest, Residual
from everystate.analysis.features import COLUMN, Floats, features, rows_of, within
from everystate.analysis.layer import Layer, dataset_of
from everystate.errors import AnalysisError, SelectionError

Method = Literal["mahalanobis", "robust", "nearest", "residual"]
METHODS: Final = ("mahalanobis", "robust", "nearest", "residual")

BLOCK: Final = 4096
"""Steps that are scored at a time, so that no distance matrix outgrows the memory."""


@dataclass(frozen=True, eq=False)
class Detector:
    """What a baseline's states are like; made by `fit_detector`.

    Parameters
    ----------
    distance : Distance
        The model of what is normal.
    variables : tuple of str
        Variables it looks at.
    columns : tuple of (str, object)
        Variable and unit of each column.
    method : str
        Name of the model.
    """

    distance: Distance = field(repr=False)
    variables: tuple[str, ...]
    columns: tuple[tuple[str, object], ...] = field(repr=False)
    method: str

    def score(self, layer: Layer, *, window: int = 1, contributions: bool = True) -> xr.Dataset:
        r"""Score every step of a layer.

        .. math:: \text{score}_t = \sqrt{\frac{1}{w J} \sum_{s=t-w+1}^{t} \sum_j p_{s,j}}

        with the parts :math:`p` of the squared distance (`everystate.analysis.distances`) of
        :math:`J` columns, and a window of :math:`w` steps (fewer at the start of a row).

        Parameters
        ----------
        layer : xarray.DataTree or xarray.Dataset
            The same layer as that of the baseline, in another trace or another part of it.
        window : int
            Recorded steps over which squared distances are averaged: a step and those before it.
        contributions : bool
            Whether to keep what each unit adds: as large as the states themselves, in float32.

        Returns
        -------
        xarray.Dataset
            ``score`` (batch, time), dimensionless: about 1 for states like those of the baseline
            where the method is ``"mahalanobis"``; and, if asked for, ``contribution`` (batch, time,
            column), float32, the part of each unit of each variable, whose mean over the columns
            is the squared score. NaN past a row's length. Where a value is not finite though its
            step is within the row, the score is infinite: nothing is less normal. Lazy if the trace
            is. The attribute ``causal`` is 1 if no score depends on a later step, else 0.

        Raises
        ------
        AnalysisError
            If the layer's units are not those of the baseline.
        SelectionError
            If a variable was not recorded, or the window has no step.

        Notes
        -----
        *Causal*: a score at step t is made of states at t and before. That makes it causal if the
        states are, which is so in a layer that reads forward, and not in one that reads backward,
        in the layers above a bidirectional one, or in the decoder of a sequence that was read
        before. The first two are told by ``causal``; the last one cannot be seen in a trace.
        """
        if window < 1:
            raise SelectionError(f"got window={window}, expected a number of steps from 1 on")
        table = features(layer, self.variables)
        self._check(table)
        parts = _squares(table, self.distance, apart=contributions)
        if schema.LENGTH in dataset_of(layer).coords:
            parts = parts.where(within(layer))
        if window > 1:
            parts = _mean_of_past(parts, window, within(layer))
        attrs = {"method": self.method, "window": window, "causal": int(_causal(layer))}
        found = xr.Dataset(attrs=attrs)
        if contributions:
            found["contribution"] = parts.transpose(..., COLUMN)
            found["contribution"].attrs = {"long_name": "part of the squared distance"}
            parts = parts.mean(COLUMN, skipna=False, dtype=np.float64)
        found["score"] = parts.transpose(..., schema.TIME) ** 0.5
        found["score"].attrs = {"long_name": f"{self.method} distance from the baseline"}
        return found

    def _check(self, table: xr.DataArray) -> None:
        got = _labels(table)
        if got != self.columns:
            raise AnalysisError(
                f"the layer has {len(got)} columns, from {got[0]} to {got[-1]}; the baseline has "
                f"{len(self.columns)}, from {self.columns[0]} to {self.columns[-1]}. Score the "
                f"layer that the detector was fitted on, recorded with the same units."
            )


def fit_detector(
    baseline: Layer,
    method: Method = "mahalanobis",
    variables: str | Sequence[str] = "states",
    *,
    neighbours: int = 1,
    explained: float = 0.95,
    seed: int = 0,
) -> Detector:
    """Learn what the states of a layer are like in normal operation.

    Parameters
    ----------
    baseline : xarray.DataTree or xarray.Dataset
        One layer of a trace of normal data. Keep some of it back for the threshold
        (`everystate.analysis.thresholds.threshold`): scores of what was fitted are too low.
    method : {"mahalanobis", "robust", "nearest", "residual"}
        ``"mahalanobis"``: distance from the mean in units of the covariance, estimated with
        shrinkage (Ledoit and Wolf), which needs no more samples than columns. ``"robust"``: the
        same with the minimum covariance determinant, for a baseline that may hold anomalies
        itself; needs several times more samples than columns, and takes long for hundreds of
        them. ``"nearest"``: distance to the nearest states, for a baseline of several regimes.
        ``"residual"``: what the principal components of the baseline leave over.
    variables : str or sequence of str
        What to look at: ``"states"``, ``"gates"``, or names such as ``("h", "f")``.
    neighbours : int
        For ``"nearest"``: over how many the squared distance is averaged.
    explained : float
        For ``"residual"``: share of the variance that the components explain.
    seed : int
        For ``"robust"``: of its random subsets.

    Returns
    -------
    Detector

    Raises
    ------
    SelectionError
        If there is no such method, or a variable was not recorded.
    AnalysisError
        If the baseline has too few steps with finite values.
    MissingDependencyError
        If scikit-learn is not installed (``pip install 'everystate[analysis]'``).

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> h = xr.DataArray(rng.normal(size=(1, 500, 3)), dims=("batch", "time", "unit"))
    >>> detector = fit_detector(xr.Dataset({"h": h[:, :400]}))
    >>> live = h[:, 400:].copy()
    >>> live[0, 70, 1] = 12.0
    >>> found = detector.score(xr.Dataset({"h": live}))
    >>> int(found.score[0].argmax("time")), int(found.contribution[0, 70].argmax("column"))
    (70, 1)
    """
    if method not in METHODS:
        raise SelectionError(f"got method={method!r}, expected one of {', '.join(METHODS)}")
    table = features(baseline, variables)
    x = rows_of(table.where(within(baseline)))
    _enough(x, method, neighbours)
    names = tuple(dict.fromkeys(str(name) for name in table["variable"].values))
    distance: Distance
    if method == "nearest":
        distance = Nearest.fit(x, neighbours=neighbours)
    elif method == "residual":
        distance = Residual.fit(x, explained=explained)
    else:
        distance = Mahalanobis.fit(x, robust=method == "robust", seed=seed)
    return Detector(distance, names, _labels(table), method)


def top_contributors(scored: xr.Dataset, count: int = 5) -> xr.Dataset:
    """Return the units of variables that a score is made of, the largest first.

    Parameters
    ----------
    scored : xarray.Dataset
        From `Detector.score`, or a part of it such as ``scored.sel(time=slice(100, 120))``.
    count : int
        How many to return.

    Returns
    -------
    xarray.Dataset
        ``share`` (rank), of the squared score summed over the steps and rows of `scored`, between
        0 and 1, with coordinates ``variable`` and ``unit``; and ``share_of_variable`` (name), that
        of all units of a variable.

    Raises
    ------
    AnalysisError
        If no step of `scored` has a finite score.

    Examples
    --------
    >>> parts = xr.DataArray([[1.0, 6.0, 1.0]], dims=("time", "column"))
    >>> names = {"variable": ("column", ["h", "h", "f"]), "unit": ("column", [0, 1, 0])}
    >>> parts = parts.assign_coords(names)
    >>> top = top_contributors(xr.Dataset({"contribution": parts}), count=1)
    >>> top["variable"].item(), top["unit"].item(), top.share.item()
    ('h', 1, 0.75)
    >>> top.share_of_variable.sel(name="f").item()
    0.125
    """
    parts = scored["contribution"]
    parts = parts.where(np.isfinite(parts))
    total = parts.sum([dim for dim in parts.dims if dim != COLUMN], dtype=np.float64).compute()
    if not float(total.sum()) > 0:
        raise AnalysisError("no step in this part has a finite score above 0: nothing to attribute")
    share = total / total.sum()
    order = np.argsort(-share.values, kind="stable")[:count]
    ranked = share.isel({COLUMN: order}).rename({COLUMN: "rank"})
    names = dict.fromkeys(str(name) for name in share["variable"].values)
    of_variable = [float(share.where(share["variable"] == name).sum()) for name in names]
    whole = xr.DataArray(of_variable, {"name": list(names)}, dims="name")
    return xr.Dataset({"share": ranked, "share_of_variable": whole})


def _enough(x: Floats, method: str, neighbours: int) -> None:
    least = {"nearest": neighbours, "robust": x.shape[1] + 1}.get(method, 2)
    if len(x) < least:
        raise AnalysisError(
            f"the baseline has {len(x)} steps with finite values, method={method!r} with "
            f"{x.shape[1]} columns needs {least} at least. Record more, or fewer units."
        )


def _labels(table: xr.DataArray) -> tuple[tuple[str, object], ...]:
    names, units = table["variable"].values.tolist(), table[schema.UNIT].values.tolist()
    return tuple(zip(names, units, strict=True))


def _squares(table: xr.DataArray, distance: Distance, *, apart: bool) -> xr.DataArray:
    """Return squared distances, of each column or their mean over the columns."""
    squares: xr.DataArray = xr.apply_ufunc(
        _in_blocks,
        table,
        kwargs={"distance": distance, "apart": apart},
        input_core_dims=[[COLUMN]],
        output_core_dims=[[COLUMN] if apart else []],
        dask="parallelized",
        output_dtypes=[np.float32 if apart else np.float64],
    )
    return squares if apart else squares.drop_vars(["variable", schema.UNIT], errors="ignore")


def _in_blocks(
    values: npt.NDArray[np.floating], distance: Distance, apart: bool
) -> npt.NDArray[np.floating]:
    flat = values.reshape(-1, values.shape[-1])
    shape = flat.shape if apart else flat.shape[:1]
    squares = np.full(shape, np.inf, dtype=np.float32 if apart else np.float64)
    for start in range(0, len(flat), BLOCK):
        here = slice(start, start + BLOCK)
        known = np.isfinite(flat[here]).all(axis=1)
        if known.any():
            parts = distance.parts(flat[here][known].astype(np.float64))
            squares[here][known] = parts if apart else parts.mean(axis=1)
    return squares.reshape(values.shape if apart else values.shape[:-1])


def _mean_of_past(squares: xr.DataArray, window: int, inside: xr.DataArray) -> xr.DataArray:
    """Return means over a step and those before it; running sums would never lose an infinity."""
    past = squares.rolling({schema.TIME: window}).construct("past")
    return past.mean("past", dtype=np.float64).astype(squares.dtype).where(inside)


def _causal(layer: Layer) -> bool:
    """Whether a layer has seen no later step, as far as its place in the trace tells."""
    if dataset_of(layer).attrs.get("direction") == "backward":
        return False
    if not isinstance(layer, xr.DataTree) or layer.parent is None:
        return True
    upper = str(layer.parent.name).startswith("layer_") and layer.parent.name != "layer_0"
    return not (upper and "backward" in layer.parent.children)
