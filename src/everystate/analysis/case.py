"""`Case`: one layer to be judged, and what was measured of it and of its baseline."""

from dataclasses import dataclass, fields
from functools import cached_property
from typing import Final

import numpy as np
import xarray as xr

from everystate import schema
from everystate.analysis.drift import drift
from everystate.analysis.finding import Label
from everystate.analysis.flatness import flatness
from everystate.analysis.growth import growth
from everystate.analysis.layer import memory_state, not_finite, recorded, steps, visible_state
from everystate.analysis.limits import Thresholds
from everystate.analysis.memory import half_life
from everystate.analysis.movement import movement
from everystate.analysis.onset import since
from everystate.analysis.openness import openness
from everystate.analysis.saturation import saturation
from everystate.analysis.stuck import stuck
from everystate.analysis.wording import named

LARGE: Final = 1 << 28
"""Bytes from which a layer is read in chunks, where Dask is installed."""
CHUNK: Final = 1 << 22
"""Bytes of a chunk of one variable."""
TAIL: Final = 10
"""A late onset counts if at least this part of the recording follows it."""


@dataclass(frozen=True)
class Measures:
    """The figures of a layer that most checks share; each as its analysis returns it, in memory."""

    saturation: xr.Dataset
    openness: xr.Dataset
    stuck: xr.Dataset
    movement: xr.Dataset
    half_life: xr.Dataset
    drift: xr.Dataset
    growth: xr.Dataset
    flatness: xr.Dataset
    not_finite: xr.Dataset


def measure(layer: xr.Dataset, t: Thresholds, trained_on: int | None) -> Measures:
    """Return the figures of a layer; of a chunked one, in one passage over each variable."""
    found: dict[str, list[xr.Dataset]] = {f.name: [] for f in fields(Measures)}
    for name in recorded(layer):
        # All of one variable together, and no two variables: Dask would hold chunks of the one
        # while it reads the other.
        for measure, figures in _loaded(_figures(layer, name, t, trained_on)).items():
            found[measure] += [figures] if figures else []
    return Measures(**{measure: _joined(parts) for measure, parts in found.items()})


def _figures(
    layer: xr.Dataset, name: str, t: Thresholds, trained_on: int | None
) -> dict[str, xr.Dataset]:
    """Return the figures of a variable."""
    one, memory = layer[[name]], name == memory_state(layer)
    return {
        "saturation": saturation(one, t.edge),
        "openness": openness(one, t.edge),
        "stuck": stuck(one, t.stuck, t.edge, t.still),
        "movement": movement(one, t.still) if name == visible_state(layer) else xr.Dataset(),
        "half_life": half_life(one),
        "drift": drift(one) if memory else xr.Dataset(),
        "growth": growth(one, trained_on) if memory else xr.Dataset(),
        "flatness": flatness(one),
        "not_finite": not_finite(one),
    }


def _loaded(figures: dict[str, xr.Dataset]) -> dict[str, xr.Dataset]:
    if not any(one.chunks for one in figures.values()):
        return figures
    from dask.base import compute

    (found,) = compute(figures)  # type: ignore[no-untyped-call]
    return dict(found)


def _joined(parts: list[xr.Dataset]) -> xr.Dataset:
    """Return the figures of several variables as one dataset."""
    if len(parts) < 2:
        return parts[0] if parts else xr.Dataset()
    return xr.concat(parts, dim="variable", join="outer", data_vars="all")


def in_chunks(layer: xr.Dataset) -> xr.Dataset:
    """Return a large layer in chunks of time, if Dask is installed and it has none yet."""
    if layer.nbytes < LARGE or layer.chunks:
        return layer
    try:
        import dask.array  # noqa: F401
    except ImportError:
        return layer
    widest = max(layer[name].nbytes for name in layer.data_vars)
    steps = layer.sizes[schema.TIME] * CHUNK // widest
    stored = max(
        layer[name].encoding.get("preferred_chunks", {}).get(schema.TIME, 1)
        for name in layer.data_vars
    )
    return layer.chunk({schema.TIME: max(1, steps // stored) * stored})


@dataclass(frozen=True, eq=False)
class Case:
    """One layer to be judged.

    Parameters
    ----------
    layer : str
        Its path.
    data : xarray.Dataset
        Its recording.
    baseline : xarray.Dataset, optional
        The same layer's in the baseline.
    trained_on : int, optional
        Steps of the sequences that the network was trained on.
    thresholds : Thresholds
        From where on to speak.
    """

    layer: str
    data: xr.Dataset
    baseline: xr.Dataset | None
    trained_on: int | None
    thresholds: Thresholds

    @cached_property
    def measures(self) -> Measures:
        """What was measured of the layer."""
        return measure(self.data, self.thresholds, self.trained_on)

    @cached_property
    def normal(self) -> Measures | None:
        """What was measured of the baseline."""
        if self.baseline is None:
            return None
        return measure(self.baseline, self.thresholds, self.trained_on)

    @cached_property
    def backward(self) -> bool:
        """Whether the layer reads its input from the end."""
        return bool(self.data.attrs.get("direction") == "backward")

    @property
    def size(self) -> int:
        """The number of recorded steps."""
        return self.data.sizes[schema.TIME]

    @cached_property
    def width(self) -> int:
        """Steps over which curves are averaged before their onset is looked for: a twentieth."""
        return max(1, self.size // 20)

    def limit(self, fixed: float, normal: float | None) -> float:
        """Return from where on a share is too large, in the light of the baseline's."""
        if normal is None or np.isnan(normal):
            return fixed
        return normal + self.thresholds.above_baseline

    def above(
        self, curve: xr.DataArray, overall: float, limit: float
    ) -> tuple[int | None, float] | None:
        """Return since when a share stays above a limit, and how large it is from there on.

        Parameters
        ----------
        curve : xarray.DataArray
            The share over time.
        overall : float
            The share of all steps.
        limit : float
            What to stay above.

        Returns
        -------
        tuple or None
            A position in reading order, with at least a tenth of the recording from it on, and
            the mean share there; or None and `overall`, which alone is above the limit. None if
            neither is.
        """
        over_time = self.read(curve)
        start = since(over_time, limit, self.width)
        if start is not None and start <= self.size - max(1, self.size // TAIL):
            return start, float(np.nanmean(over_time[start:]))
        return (None, overall) if overall >= limit else None

    def read(self, curve: xr.DataArray) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
        """Return a curve over time in the order in which the layer reads."""
        values = np.asarray(curve.values, np.float64)
        return values[::-1] if self.backward else values

    def place(self, position: int) -> int:
        """Return the place in the recording of a position in reading order."""
        return self.size - 1 - position if self.backward else position

    def step(self, place: int) -> str:
        """Return ``step 512``, and its label in brackets if it has another, of a place."""
        number, label = self.number(place), self.label(place)
        return f"step {number:,}" + ("" if str(label) == str(number) else f" ({label})")

    def number(self, place: int) -> int:
        """Return the number of the step at a place: another one where not every step is kept."""
        return int(steps(self.data).values[place])

    def from_step(self, position: int) -> str:
        """Return ``from step 512 on``, of a position in reading order."""
        back = " backwards, as it reads" if self.backward else ""
        return f"from {self.step(self.place(position))} on{back}"

    def label(self, place: int, dim: str = schema.TIME) -> Label:
        """Return the label of a step, row or unit, by its place."""
        return label_of(self.data, dim, place)

    def window(self, start: int, stop: int | None = None) -> tuple[Label, Label]:
        """Return the labels of the first and last step between two positions in reading order."""
        last = (self.size if stop is None else stop) - 1
        ends = sorted((self.place(start), self.place(last)))
        return self.label(ends[0]), self.label(ends[1])


def label_of(data: xr.Dataset | xr.DataArray, dim: str, place: int) -> Label:
    """Return a label as a plain number or text; the place itself where there are none."""
    if dim not in data.coords:
        return int(place)
    value = data[dim].values[place]
    return value.item() if isinstance(value, np.number | np.str_) else value


def units_where(flags: xr.DataArray, order: xr.DataArray | None = None) -> tuple[Label, ...]:
    """Return the labels of the units for which something holds, the largest of `order` first."""
    places = np.flatnonzero(flags.values)
    if order is not None:
        key = np.nan_to_num(order.values.ravel().astype(np.float64)[places], nan=-np.inf)
        places = places[np.argsort(-key, kind="stable")]
    if flags.ndim != 1:  # a state with channels and pixels: its units are counted
        return tuple(places.tolist())
    return tuple(label_of(flags, str(flags.dims[0]), int(place)) for place in places)


def not_so_before(flags: xr.DataArray, new: xr.DataArray) -> str:
    """Return a sentence that names the units that are new beside a baseline, if not all are."""
    if not new.any() or bool((flags == new).all()):
        return ""
    return f" Not so in the baseline: {named(units_where(new))}."
