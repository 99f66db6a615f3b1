"""Smaller numbers on disk: float16, bfloat16, or whole numbers of 8 bits with a scale.

What rounding costs is measured on every block, and stated in the trace:

- ``float16``: 11 bits of precision, up to 65,504.
- ``bfloat16``: 8 bits of precision and the range of float32. Zarr has no such type, so they are
  kept as float32 whose lower two bytes are zero, which compression takes away: whoever reads
  float32 reads them.
- ``int8``: each step of each row is divided by a scale of its own, a 127th of its largest
  absolute value, kept beside it as ``<name>_scale``. The error is at most half of that. -128
  stands for NaN and infinity. `everystate.open_trace` multiplies them back when they are read.
"""

from collections.abc import Hashable
from typing import Any, Final, Literal, get_args

import numpy as np
import numpy.typing as npt
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing

from everystate import schema
from everystate.errors import SelectionError

Stored = Literal["float16", "bfloat16", "int8"]
STORED_AS: Final = "stored_as"
"""Attribute of a leaf: how its numbers are kept."""
ERROR: Final = "storage_error_"
"""Attributes of a leaf: the largest absolute error that this costs, by variable."""
SCALE: Final = "scale_variable"
"""Attribute of a variable: the name of the one to multiply it with."""
NO_NUMBER: Final = -128


def check_stored(kind: object) -> None:
    """Raise `SelectionError` for a way of storing that there is not."""
    if kind is not None and kind not in get_args(Stored):
        raise SelectionError(
            f"stored_as={kind!r}: expected one of {', '.join(get_args(Stored))}, or None for "
            "numbers as they are."
        )


def encoded(steps: xr.Dataset, kind: Stored) -> xr.Dataset:
    """Return some steps of a layer with smaller numbers, and attributes that tell the error.

    Parameters
    ----------
    steps : xarray.Dataset
        What has a time axis and floating numbers is changed.
    kind : {"float16", "bfloat16", "int8"}
        How they are kept.
    """
    result, attrs = steps.copy(), {**steps.attrs, STORED_AS: kind}
    for name, variable in steps.data_vars.items():
        if schema.TIME not in variable.dims or variable.dtype.kind != "f":
            continue
        values = variable.values
        if kind == "int8":
            kept, scale = _whole(values)
            scaled = f"{name}_scale"
            result[scaled] = (variable.dims[:-1], scale, {"long_name": f"scale of {name}"})
            result[name] = (variable.dims, kept, {**variable.attrs, SCALE: scaled})
            back = _back(kept, scale)
        else:
            with np.errstate(over="ignore"):  # infinity then, and so is the error
                back = values.astype(np.float16) if kind == "float16" else _shortened(values)
            result[name] = (variable.dims, back, variable.attrs)
        attrs[f"{ERROR}{name}"] = _worst(values, back)
    return result.assign_attrs(attrs)


def decoded(dataset: xr.Dataset) -> xr.Dataset:
    """Return a layer read from disk with scales multiplied back, lazily."""
    scaled: dict[Hashable, str] = {
        name: v.attrs[SCALE] for name, v in dataset.data_vars.items() if SCALE in v.attrs
    }
    for name, scale in scaled.items():
        variable = dataset[name].variable
        attrs = {key: value for key, value in variable.attrs.items() if key != SCALE}
        lazy = indexing.LazilyIndexedArray(_Scaled(variable, dataset[scale].variable))
        dataset[name] = xr.Variable(variable.dims, lazy, attrs)
    return dataset.drop_vars(list(scaled.values()))


def _whole(values: npt.NDArray[Any]) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Return numbers of 8 bits, and the scale of each vector of units."""
    finite = np.where(np.isfinite(values), values, 0)
    scale = (np.abs(finite).max(axis=-1, initial=0) / 127).astype(np.float32)
    divisor = np.where(scale > 0, scale, 1)[..., None]
    kept = np.clip(np.rint(finite / divisor), -127, 127).astype(np.int8)
    kept[~np.isfinite(values)] = NO_NUMBER
    return kept, scale


def _back(kept: npt.NDArray[np.int8], scale: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    back = kept * scale[..., None]
    back[kept == NO_NUMBER] = np.nan
    return back


def _shortened(values: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Round to the nearest bfloat16, ties to even, in the bits of float32."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    rounded = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    short = np.where(np.isnan(values), bits, rounded) & np.uint32(0xFFFF0000)
    return short.view(np.float32)


def _worst(values: npt.NDArray[Any], back: npt.NDArray[Any]) -> float:
    with np.errstate(invalid="ignore"):
        error = np.abs(values - back.astype(values.dtype))
    error[~np.isfinite(values)] = 0  # no number before, none after
    return float(error.max(initial=0))


class _Scaled(BackendArray):
    """An array on disk that is multiplied with another, of one dimension less, when read."""

    def __init__(self, kept: xr.Variable, scale: xr.Variable) -> None:
        self._kept, self._scale = kept, scale
        self.shape, self.dtype = kept.shape, np.dtype(np.float32)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.BASIC, self._read
        )

    def _read(self, key: tuple[Any, ...]) -> npt.NDArray[np.float32]:
        units = slice(None) if isinstance(key[-1], slice) else 0
        whole = (*key[:-1], key[-1] if isinstance(key[-1], slice) else slice(key[-1], key[-1] + 1))
        return _back(self._kept[whole].values, self._scale[key[:-1]].values)[..., units]
