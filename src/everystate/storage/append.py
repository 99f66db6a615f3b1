"""`TraceAppender`: a trace whose steps come one after the other, written as they come.

The order of writes is what makes a stopped writer harmless, as in `writer`:

1. `TraceAppender.append` holds a layer's steps until they make a block, and writes full blocks.
   A layer's arrays are made with its first steps; where nobody knows how many there will be,
   they are made too long, and longer when that is not enough.
2. `TraceAppender.commit` writes the blocks that have only begun, then what the recording needs
   to go on, then the mark. Only now do these steps count: after a kill they are the beginning
   of the trace, and a block is written again from the same numbers.
3. `TraceAppender.finish` cuts the arrays to their length and sets ``complete`` to 1.
"""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import xarray as xr
import zarr

from everystate import schema
from everystate.storage.carried import Carried
from everystate.storage.layout import block_steps, power_of_two
from everystate.storage.mark import Mark
from everystate.storage.place import Place
from everystate.storage.writer import (
    NUMERIC,
    consolidate,
    create_arrays,
    open_layer,
    say_complete,
    set_attributes,
    write_rest,
    write_shards,
)

BEGIN: Final = 1 << 12
"""Steps that a layer's arrays have room for at first, where nobody knows how many will come."""
AT_ONCE: Final = 2
"""Variables whose blocks are written at once: one is compressed while another goes to the disk."""

Steps = Mapping[str, xr.Variable]


@dataclass(eq=False)
class _Layer:
    """One layer's arrays, and its steps that do not make a block yet, time first."""

    arrays: dict[str, zarr.Array[Any]]
    dims: dict[str, tuple[str, ...]]
    block: int
    rows: int = 0
    written: int = 0
    held: dict[str, npt.NDArray[Any]] = field(default_factory=dict)

    def append(self, steps: Steps) -> None:
        """Take some steps; write the blocks that they complete."""
        parts = {name: _time_first(steps[name]) for name in self.arrays}
        count, start = len(next(iter(parts.values()))), 0
        while start < count:
            begun = self.rows % self.block
            taken = min(self.block - begun, count - start)
            for name, a in parts.items():
                if name not in self.held:
                    self.held[name] = np.empty((self.block, *a.shape[1:]), a.dtype)
                self.held[name][begun : begun + taken] = a[start : start + taken]
            start, self.rows = start + taken, self.rows + taken
            if self.rows % self.block == 0:
                self._write(self.rows - self.block)

    def flush(self) -> None:
        """Write the block that has begun, as far as it has come."""
        if self.rows > self.written:
            self._write(self.rows - self.rows % self.block)

    def go_on(self, rows: int) -> None:
        """Hold again the begun block of a layer whose writer was stopped after `rows` steps."""
        self.rows, self.written, begun = rows, rows, rows % self.block
        for name, array in self.arrays.items() if begun else ():
            there = tuple(
                slice(rows - begun, rows) if dim == schema.TIME else slice(None)
                for dim in self.dims[name]
            )
            a = _time_first(xr.Variable(self.dims[name], np.asarray(array[there])))
            self.held[name] = np.empty((self.block, *a.shape[1:]), a.dtype)
            self.held[name][:begun] = a

    def _write(self, start: int) -> None:
        if start + self.block > self.capacity and self.rows > self.capacity:
            self.resize(2 * max(self.capacity, self.rows))

        def write(name: str) -> None:
            a, dims = self.held[name][: self.rows - start], self.dims[name]
            variable = xr.Variable((schema.TIME, *(d for d in dims if d != schema.TIME)), a)
            write_shards(self.arrays[name], variable.transpose(*dims), start)

        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(write, self.arrays))
        self.written = self.rows

    @property
    def capacity(self) -> int:
        """Steps that the arrays have room for."""
        name = next(iter(self.arrays))
        return int(self.arrays[name].shape[self.dims[name].index(schema.TIME)])

    def resize(self, steps: int) -> None:
        """Give all arrays room for other than so many steps."""
        for name, array in self.arrays.items():
            sizes = zip(self.dims[name], array.shape, strict=True)
            array.resize(tuple(steps if dim == schema.TIME else size for dim, size in sizes))


class TraceAppender:
    """Writes a trace step after step, in bounded memory.

    Parameters
    ----------
    place : Place
        Where. If it is a recording that goes on, so does this.
    root : mapping
        Attributes of the root group.
    """

    def __init__(self, place: Place, root: Mapping[str, Any]) -> None:
        self.place = place
        self.mark = place.resumed or Mark()
        self._layers: dict[str, _Layer] = {}
        self._metadata: list[int] | None = []
        """Steps that there is room for, as the gathered metadata say. None: they say otherwise."""
        if place.resumed is None:
            self.mark.save(place.folder)  # the first file of all: it tells whose folder this is
            set_attributes(place.folder, "/", {**root, schema.COMPLETE_ATTR: 0})
            self.mark.variables["/"] = {}
            return
        for path, rows in self.mark.carried["rows"].items():
            self._layers[path] = _reopened(place.folder, path, self.mark, rows)
            self.mark.done[path] = min(rows, self.mark.done[path])
        self.mark.save(place.folder)
        self._metadata = self._shapes()

    @property
    def folder(self) -> Path:
        """Where the trace is now; it moves when it first can be opened."""
        return self.place.folder

    def append(
        self, path: str, steps: xr.Dataset, total: int | None = None, block: int | None = None
    ) -> bool:
        """Take further steps of one layer.

        Parameters
        ----------
        path : str
            The layer's group.
        steps : xarray.Dataset
            As in the trace, of these steps; of the first ones also what has no time axis is used.
        total : int, optional
            Steps of the layer that will be recorded in all. None: nobody knows.
        block : int, optional
            Steps of a block at most.

        Returns
        -------
        bool
            Whether a block was completed.
        """
        encoded = _encoded(steps)
        if path not in self._layers:
            self._layers[path] = self._begin(path, encoded, total, block)
            self.mark.variables[path] = {str(n): str(v.dtype) for n, v in steps.variables.items()}
        layer = self._layers[path]
        before = layer.rows
        layer.append({name: encoded.variables[name] for name in layer.arrays})
        self.mark.attrs[path] = dict(steps.attrs)
        return layer.rows // layer.block > before // layer.block

    def rows(self) -> dict[str, int]:
        """Return how many steps of each layer were taken."""
        return {path: layer.rows for path, layer in self._layers.items()}

    def commit(self, carried: Carried | None = None, *, begun: bool = True) -> None:
        """Make what was taken count.

        Parameters
        ----------
        carried : Carried, optional
            What the recording needs to go on from here. None: it cannot.
        begun : bool
            Whether blocks that have only begun are written too, as far as they have come.
        """
        if not self._layers and carried is None:
            return
        for path, layer in self._layers.items():
            if begun:
                layer.flush()
            whole = layer.rows if begun else layer.rows - layer.rows % layer.block
            self.mark.done[path] = max(whole, self.mark.done[path])
            self.mark.total[path] = max(self.mark.total[path], self.mark.done[path])
        before = self.folder
        self._save(carried)
        if self.folder != before:
            for path, layer in self._layers.items():
                there = open_layer(self.folder, path)
                layer.arrays = {name: there[name] for name in layer.arrays}

    def finish(self, carried: Carried | None = None) -> None:
        """Say that the trace is complete, and let it take the place of an older one.

        Parameters
        ----------
        carried : Carried, optional
            What the recording needs to go on from here, should it be stopped yet.
        """
        for path, layer in self._layers.items():
            layer.flush()
            if layer.capacity != layer.rows:
                layer.resize(layer.rows)
            set_attributes(self.folder, path, self.mark.attrs[path])
            self.mark.done[path] = self.mark.total[path] = layer.rows
        self.mark.endless, self._metadata = [], None
        self._save(carried)
        say_complete(self.folder)
        self.place.replace()
        if self.mark.carried:
            self.mark.carried = {"facts": self.mark.carried["facts"]}
        self.mark.save(self.folder)
        Carried.forget(self.folder)

    def _save(self, carried: Carried | None) -> None:
        """Gather the metadata if they have changed, write the mark, and let the trace appear."""
        if self._metadata != self._shapes():
            consolidate(self.folder)
            self._metadata = self._shapes()
        if carried is not None:
            self.mark.carried = carried.save(self.folder)
        self.mark.save(self.folder)
        if carried is not None:
            carried.tidy(self.folder)
        self.place.publish()

    def _shapes(self) -> list[int]:
        return [layer.capacity for layer in self._layers.values()]

    def _begin(
        self, path: str, encoded: xr.Dataset, total: int | None, limit: int | None
    ) -> _Layer:
        """Make a layer's arrays, and write what has no time axis."""
        variables = {n: v for n, v in encoded.variables.items() if schema.TIME in v.dims}
        measured = {str(n): v for n, v in variables.items() if n not in encoded.coords}
        block = min(block_steps(measured), power_of_two(limit or 1 << 62))
        full = {str(n): _full(v, total or max(block, BEGIN)) for n, v in variables.items()}
        rest = encoded.drop_vars(list(variables))
        numbers = {str(n): v for n, v in rest.variables.items() if v.dtype.kind in NUMERIC}
        arrays = create_arrays(self.folder, path, encoded, {**full, **numbers}, block)
        for name, variable in numbers.items():
            arrays.pop(name)[...] = variable.values
        write_rest(self.folder, path, rest.drop_vars(list(numbers)))
        self.mark.done[path], self.mark.total[path] = 0, total or 1
        if total is None:
            self.mark.endless.append(path)
        dims = {name: tuple(map(str, v.dims)) for name, v in full.items()}
        return _Layer(arrays, dims, block)


def _reopened(folder: Path, path: str, mark: Mark, rows: int) -> _Layer:
    """Return a layer of a trace whose writer was stopped, as it was after `rows` steps."""
    arrays, dims, block, there = {}, {}, 0, open_layer(folder, path)
    for name in mark.variables[path]:
        array = there[name]
        names = tuple(map(str, array.metadata.dimension_names or ()))  # type: ignore[union-attr]
        if schema.TIME in names:
            arrays[name], dims[name] = array, names
            # Where all steps fit into one block, narrow variables may have room for more.
            block = max(block, (array.shards or array.chunks)[names.index(schema.TIME)])
    layer = _Layer(arrays, dims, block)
    layer.go_on(rows)
    return layer


def _encoded(steps: xr.Dataset) -> xr.Dataset:
    """Return a dataset whose datetimes are whole numbers, counted from 1970 whatever comes."""
    coords = {}
    for name, variable in steps.coords.items():
        if variable.dtype.kind == "M" and schema.TIME in variable.dims:
            unit = np.datetime_data(variable.dtype)[0]
            long = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}
            since = {"units": f"{long[unit]} since 1970-01-01", "calendar": "proleptic_gregorian"}
            values = variable.values.astype(np.int64)
            coords[name] = (variable.dims, values, {**variable.attrs, **since})
    return steps.assign_coords(coords) if coords else steps


def _full(variable: xr.Variable, steps: int) -> xr.Variable:
    """Return a variable of so many steps without their memory."""
    shape = [steps if dim == schema.TIME else size for dim, size in variable.sizes.items()]
    nothing = np.broadcast_to(np.zeros((), variable.dtype), shape)
    return xr.Variable(variable.dims, nothing, variable.attrs)


def _time_first(variable: xr.Variable) -> npt.NDArray[Any]:
    return np.moveaxis(np.asarray(variable.values), variable.get_axis_num(schema.TIME), 0)
