"""A selection as a file: Zarr (zipped), NetCDF, or CSV."""

import io
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
import xarray as xr

from everystate import schema


def to_csv(selected: xr.Dataset) -> bytes:
    """Return a line for each step, a column for each variable and unit (``h[17]``)."""
    columns = {}
    for name, values in selected.data_vars.items():
        if schema.TIME not in values.dims:
            continue
        values = values.transpose(schema.TIME, ...)
        others = [dim for dim in values.dims if dim != schema.TIME]
        if not others:
            columns[str(name)] = values.values
            continue
        for k, label in enumerate(values[others[0]].values):
            columns[f"{name}[{label}]"] = values.values[:, k]
    frame = xr.Dataset(
        {key: (schema.TIME, column) for key, column in columns.items()},
        {schema.TIME: selected[schema.TIME]},
    ).to_dataframe()
    text: str = frame[list(columns)].to_csv()
    return text.encode()


def to_netcdf(selected: xr.Dataset) -> bytes:
    """Return a NetCDF file (format 3), which every reader of NetCDF reads."""
    plain = selected.copy()
    plain.attrs = {k: v for k, v in plain.attrs.items() if isinstance(v, str | int | float)}
    for name in plain.variables:
        kept = plain[name].attrs.items()
        plain[name].attrs = {k: v for k, v in kept if isinstance(v, str | int | float)}
        if plain[name].dtype == np.float16:
            plain[name] = plain[name].astype(np.float32)
    return bytes(plain.to_netcdf(engine="scipy"))


def to_zarr(selected: xr.Dataset) -> bytes:
    """Return a zipped Zarr store, which ``xarray.open_zarr`` opens as it is."""
    file = io.BytesIO()
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(file, "w") as archive:
        selected.drop_encoding().to_zarr(folder, mode="w", consolidated=False)
        for path in sorted(Path(folder).rglob("*")):
            if path.is_file():
                archive.write(path, path.relative_to(folder).as_posix())
    return file.getvalue()


FORMATS: Final[dict[str, tuple[Callable[[xr.Dataset], bytes], str]]] = {
    "CSV": (to_csv, "csv"),
    "NetCDF": (to_netcdf, "nc"),
    "Zarr": (to_zarr, "zarr.zip"),
}
"""What writes each format, and the end of the file's name."""


def file_of(selected: xr.Dataset, kind: str) -> io.BytesIO:
    """Return a selection as a file of one of `FORMATS`."""
    return io.BytesIO(FORMATS[kind][0](selected))
