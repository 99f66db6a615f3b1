"""`compare`: where two traces part, and by how much.

Values are compared by their place in the arrays, ``|a - b| / (1 + |b|)``: NaN equals NaN, and
an infinity itself.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import xarray as xr

from everystate import schema
from everystate.analysis.layer import check_tree
from everystate.errors import SelectionError

BLOCK_BYTES: Final = 1 << 23
"""About what is read of each trace at once."""
NUMBERS: Final = "fiub"
"""Kinds of dtype that can be compared."""

Floats = npt.NDArray[np.float64]
Label = int | float | str


@dataclass(frozen=True)
class Parting:
    """The first place of a layer where two traces differ beyond the tolerance.

    Parameters
    ----------
    layer, variable : str
        The layer's path, and the name of the variable.
    step : int, optional
        Which recorded step, from 0. None: an initial state, before the first step.
    time : str, optional
        The label of the step in the first trace.
    row, unit : label, optional
        Row and unit (or feature), by the labels of the first trace. None: it has no such axis.
    a, b : float
        Both values.
    error : float
        ``|a - b| / (1 + |b|)`` there; infinite where one of them is NaN or infinite.
    """

    layer: str
    variable: str
    step: int | None
    time: str | None
    row: Label | None
    unit: Label | None
    a: float
    b: float
    error: float

    def __str__(self) -> str:
        """Say where it is within its layer: step, variable, row and unit."""
        labelled = "" if self.time in (None, str(self.step)) else f" ({self.time})"
        when = "before step 0" if self.step is None else f"step {self.step}{labelled}"
        row = "" if self.row is None else f", row {self.row}"
        return f"{when}: {self.variable}{row}, unit {self.unit}"


@dataclass(frozen=True)
class Comparison:
    """What `compare` found; it prints as a table of the layers and a verdict.

    Parameters
    ----------
    tolerance : float
        Largest scaled difference that counts as none.
    structure : sequence of str
        Differences of layers, variables, sizes and labels, in words.
    layers : mapping
        By layer and variable, the largest scaled difference. A layer of which no variable has
        equal sizes in both traces has none.
    first_in : mapping
        By layer, the first place beyond the tolerance.
    """

    tolerance: float
    structure: Sequence[str]
    layers: Mapping[str, Mapping[str, float]]
    first_in: Mapping[str, Parting]

    @property
    def same(self) -> bool:
        """Whether nothing differs beyond the tolerance, in structure or values."""
        return not self.structure and not self.first_in

    @property
    def first(self) -> Parting | None:
        """The earliest place of all; of several in one step, that of the first layer."""
        return min(self.first_in.values(), key=_step, default=None)

    def __repr__(self) -> str:
        """Return what differs in structure, a line for each layer, and a verdict."""
        head = ("layer", "largest difference", "first beyond the tolerance")
        rows = [head, *(self._row(layer) for layer in self.layers)] if self.layers else []
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
        return "\n".join([*self.structure, *lines, self._verdict()])

    def _row(self, layer: str) -> tuple[str, str, str]:
        errors = self.layers[layer].values()
        if not errors:
            return layer, "not compared", ""
        return layer, f"{max(errors):.3g}", str(self.first_in.get(layer, "nowhere"))

    def _verdict(self) -> str:
        if (p := self.first) is not None:
            return f"They part in {p.layer}, {p}: {p.a:.9g} in A, {p.b:.9g} in B."
        if not any(self.layers.values()):
            return "No values were compared: no variable is in both traces with equal sizes."
        but = "" if self.same else ", but the traces differ in what is said above"
        return f"All values compared are the same within {self.tolerance:g}{but}."


def compare(
    a: xr.DataTree,
    b: xr.DataTree,
    *,
    tolerance: float = 1e-4,
    layers: Mapping[str, str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Comparison:
    """Compare two traces: layers, variables, labels, and every value.

    Parameters
    ----------
    a, b : xarray.DataTree
        The traces, from ``es.record`` or ``es.open_trace``. If they are lazy, they are read
        block by block.
    tolerance : float
        Largest scaled difference ``|a - b| / (1 + |b|)`` that counts as none.
    layers : mapping of str to str, optional
        By a layer's path in `a`, its path in `b`, where two frameworks call it differently.
    progress : callable, optional
        Called with (layers done, layers in all).

    Returns
    -------
    Comparison
        It prints as a table and a verdict. ``same`` says whether the traces agree, ``first`` is
        the first place where they part: None if nowhere, else with ``layer``, ``variable``,
        ``step``, ``row``, ``unit`` and both values.

    Raises
    ------
    TraceFormatError
        If `a` or `b` is no trace, such as a path: open it first.
    SelectionError
        If `tolerance` is negative or NaN, or `layers` names a layer that is not there.

    Notes
    -----
    The update gate of a GRU is compared as the share that is kept, whichever of the two
    conventions a framework has. `everystate.analysis.difference.difference` tells how a
    difference goes on after its first step, and in which units.

    Examples
    --------
    >>> import torch, everystate as es
    >>> lstm, x = torch.nn.LSTM(3, 4, batch_first=True), torch.randn(2, 50, 3)
    >>> other = x.clone()
    >>> other[1, 30] += 1
    >>> found = es.compare(es.record(lstm, x), es.record(lstm, other), tolerance=1e-5)
    >>> found.same, found.first.step, found.first.row
    (False, 30, 1)
    """
    if not tolerance >= 0:
        raise SelectionError(f"tolerance={tolerance!r}, expected 0 or more.")
    ours, theirs = _layers(a), _layers(b)
    if layers is not None:
        theirs = renamed(ours, theirs, layers)
    common = [path for path in ours if path in theirs]
    structure = _only_in("layers", ours, theirs)
    errors: dict[str, dict[str, float]] = {}
    first_in: dict[str, Parting] = {}
    for done, path in enumerate(common, start=1):
        structure += _structure(path, ours[path], theirs[path])
        found = _Layer(path, tolerance)
        for name in ours[path].data_vars:
            if name in theirs[path].data_vars:
                found.compare(*alike(ours[path], theirs[path], str(name)))
        errors[path] = found.errors
        if found.first is not None:
            first_in[path] = found.first
        if progress is not None:
            progress(done, len(common))
    return Comparison(tolerance, structure, errors, first_in)


class _Layer:
    """The differences of one layer, variable by variable."""

    def __init__(self, path: str, tolerance: float) -> None:
        self.path, self.tolerance = path, tolerance
        self.errors: dict[str, float] = {}
        self.first: Parting | None = None

    def compare(self, a: xr.DataArray, b: xr.DataArray) -> None:
        """Compare a variable; sizes may differ in time only, the common steps are compared."""
        name = str(a.name)
        if not _comparable(a, b):
            return  # said where the structure is compared
        worst = 0.0
        for start, x, y in _blocks(a, b):
            error = _scaled(x, y)
            worst = max(worst, float(error.max(initial=0.0)))
            beyond = error > self.tolerance
            place = np.unravel_index(beyond.argmax(), beyond.shape) if beyond.any() else None
            if place is not None and self._earlier(start + int(place[0])):
                self.first = self._parting(a, start, place, (x, y, error))
        self.errors[name] = worst

    def _earlier(self, step: int) -> bool:
        return self.first is None or step < _step(self.first)

    def _parting(
        self, a: xr.DataArray, start: int, place: tuple[np.intp, ...], values: tuple[Floats, ...]
    ) -> Parting:
        x, y, error = (float(v[place]) for v in values)
        step = start + int(place[0]) if schema.TIME in a.dims else None
        others = [str(dim) for dim in a.dims if dim != schema.TIME]
        at = {dim: _label(a, dim, int(k)) for dim, k in zip(others, place[1:], strict=True)}
        row = at.pop(schema.BATCH, None)
        unit = next(iter(at.values()), None)
        time = None if step is None else str(_label(a, schema.TIME, step))
        return Parting(self.path, str(a.name), step, time, row, unit, x, y, error)


def _step(place: Parting) -> int:
    return -1 if place.step is None else place.step


def _label(a: xr.DataArray, dim: str, place: int) -> Label:
    if dim not in a.coords:
        return place
    label = np.asarray(a.coords[dim].values[place])
    return label.item() if label.dtype.kind in "iuf" else str(label)


def _layers(trace: xr.DataTree) -> dict[str, xr.Dataset]:
    check_tree(trace)
    return {
        leaf.path.strip("/"): leaf.to_dataset(inherit=False)
        for leaf in trace.leaves
        if leaf.data_vars
    }


def renamed(
    ours: Mapping[str, xr.Dataset], theirs: Mapping[str, xr.Dataset], names: Mapping[str, str]
) -> dict[str, xr.Dataset]:
    """Return the layers of B by their paths in A.

    Raises
    ------
    SelectionError
        If a trace has no such layer.
    """
    for trace, there, wanted in (("A", ours, names), ("B", theirs, names.values())):
        for path in wanted:
            if path.strip("/") not in there:
                raise SelectionError(f"no layer {path!r} in {trace}, which has {list(there)}.")
    ours_of = {b.strip("/"): a.strip("/") for a, b in names.items()}
    return {ours_of.get(path, path): layer for path, layer in theirs.items()}


def alike(a: xr.Dataset, b: xr.Dataset, name: str) -> tuple[xr.DataArray, xr.DataArray]:
    """Return a variable of two layers, the update gates of GRUs in the convention of the first."""
    x, y = a[name], b[name]
    conventions = a.attrs.get("update"), b.attrs.get("update")
    if name == "z" and None not in conventions and conventions[0] != conventions[1]:
        y = (1 - y).rename(name)
    return x, y


def _only_in(what: str, a: Mapping[Any, object], b: Mapping[Any, object]) -> list[str]:
    found = []
    for name, here, there in (("A", a, b), ("B", b, a)):
        alone = [str(key) for key in here if key not in there]
        if alone:
            found.append(f"{what} in {name} only: {', '.join(alone)}")
    return found


def _structure(path: str, a: xr.Dataset, b: xr.Dataset) -> list[str]:
    """Return what differs in a layer apart from its values."""
    found = _only_in(f"{path}: variables", a.data_vars, b.data_vars)
    for name in a.data_vars:
        kinds = [(v[name].dims, v[name].dtype.kind) for v in (a, b) if name in v.data_vars]
        if len(kinds) == 2 and kinds[0][0] != kinds[1][0]:
            found.append(f"{path}: {name} has dims {kinds[0][0]} in A, {kinds[1][0]} in B")
        if not all(kind in NUMBERS for _, kind in kinds):
            found.append(f"{path}: {name} does not hold numbers, and is not compared")
    for dim in dict.fromkeys((*a.sizes, *b.sizes)):
        sizes = a.sizes.get(dim), b.sizes.get(dim)
        if None not in sizes and sizes[0] != sizes[1]:
            said = f"{path}: {dim} has size {sizes[0]} in A, {sizes[1]} in B"
            both = ", only the steps that both have are compared" if dim == schema.TIME else ""
            found.append(said + both)
    for name in a.coords:
        alike = name in b.coords and a[name].shape == b[name].shape
        if alike and not a[name].variable.equals(b[name].variable):  # type: ignore[no-untyped-call]
            found.append(f"{path}: the labels of {name} differ, values are compared by place")
    return found


def _comparable(a: xr.DataArray, b: xr.DataArray) -> bool:
    return (
        a.dims == b.dims
        and all(a.sizes[dim] == b.sizes[dim] for dim in a.dims if dim != schema.TIME)
        and all(v.dtype.kind in NUMBERS for v in (a, b))
    )


def _blocks(a: xr.DataArray, b: xr.DataArray) -> Iterator[tuple[int, Floats, Floats]]:
    """Yield the first step of each block, and both values: (time, batch, unit)."""
    if schema.TIME not in a.dims:
        x, y = (np.asarray(v.values, np.float64)[None] for v in (a, b))
        yield -1, x, y
        return
    steps = min(a.sizes[schema.TIME], b.sizes[schema.TIME])
    row = max(1, 8 * a.size // max(1, a.sizes[schema.TIME]))
    size = max(1, BLOCK_BYTES // row)
    for start in range(0, steps, size):
        stretch = {schema.TIME: slice(start, min(start + size, steps))}
        p, q = (v.isel(stretch).transpose(schema.TIME, ...) for v in (a, b))
        yield start, np.asarray(p.values, np.float64), np.asarray(q.values, np.float64)


def _scaled(a: Floats, b: Floats) -> Floats:
    with np.errstate(invalid="ignore", over="ignore"):
        error: Floats = np.abs(a - b) / (1.0 + np.abs(b))
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    return np.where(same, 0.0, np.where(np.isnan(error), np.inf, error))
