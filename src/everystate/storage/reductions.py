"""What reducers made of a recording: one small file in its store, ``everystate.reductions.npz``.

A trace has few large arrays, and reductions many small ones, some hundreds of a few numbers:
as a file each, as Zarr keeps them, they would take longer to write and to open than to make.
"""

import io
import json
import os
import zipfile
import zlib
from pathlib import Path
from typing import Any, Final

import numpy as np
import xarray as xr

from everystate import schema
from everystate.errors import CorruptTraceError, IncompleteTraceError, TraceNotFoundError
from everystate.storage.identify import Incomplete, root_attrs
from everystate.storage.shared.opening import is_shared, open_shared_reductions
from everystate.storage.writer import plain

REDUCTIONS: Final = "everystate.reductions.npz"
INDEX: Final = "arr_0"
"""What tells which array is what, as JSON."""


def save_reductions(results: xr.DataTree, folder: Path) -> None:
    """Write results to a store that is being written, in place of older ones.

    Parameters
    ----------
    results : xarray.DataTree
        One node for each layer, variable and reducer.
    folder : Path
        The store.
    """
    arrays: list[Any] = [None]
    index = {}
    for path, node in results.subtree_with_keys:
        dataset = node.to_dataset(inherit=False)
        said = {
            str(name): _told(v, arrays, name in dataset.coords)
            for name, v in dataset.variables.items()
        }
        index[path] = {"attrs": plain(dataset.attrs), "variables": said}
    content = io.BytesIO()
    arrays[0] = np.array(json.dumps(index))
    np.savez_compressed(content, *arrays)
    fresh = folder / f"{REDUCTIONS}.partial"
    fresh.write_bytes(content.getvalue())
    os.replace(fresh, folder / REDUCTIONS)


def _told(variable: xr.Variable, arrays: list[Any], is_coordinate: bool) -> dict[str, Any]:
    values = variable.values
    arrays.append(values.astype(str) if values.dtype.kind == "O" else values)
    return {
        "array": f"arr_{len(arrays) - 1}",
        "dims": list(variable.dims),
        "attrs": plain(variable.attrs),
        "coordinate": is_coordinate,
    }


def open_reductions(
    path: str | os.PathLike[str], *, incomplete: Incomplete = "error"
) -> xr.DataTree:
    """Open what was made of the steps of a recording by ``reduce=``.

    Parameters
    ----------
    path : str or path-like
        The store that was recorded to, or a URL that fsspec knows.
    incomplete : {"error", "trim"}, default "error"
        What to do with those of many sequences that are not all recorded: raise, or open the rows
        that are. Those of one sequence are there in the end only.

    Returns
    -------
    xarray.DataTree
        The results, at ``layer/variable/name``, as `everystate.record` returned them. Those of
        `everystate.scale.record_many` have a dimension ``batch``, and are read when they are used.

    Raises
    ------
    TraceNotFoundError
        If there is no store, or no reductions are in it.
    TraceFormatError
        If there is something else.
    IncompleteTraceError
        If the recording has not come to its end: then they are written.
    CorruptTraceError
        If they are damaged.

    Examples
    --------
    >>> import tempfile, torch, everystate as es
    >>> from everystate.analysis.reducers import Moments
    >>> folder = tempfile.TemporaryDirectory()
    >>> options = {"store": f"{folder.name}/run.zarr", "reduce": Moments(), "full": False}
    >>> _ = es.record(torch.nn.GRU(3, 4), torch.zeros(1000, 1, 3), **options)
    >>> int(es.open_reductions(f"{folder.name}/run.zarr")["gru/h/moments"]["count"][0])
    1000
    >>> folder.cleanup()
    """
    if is_shared(path):
        return open_shared_reductions(path, trim=incomplete == "trim")
    folder = Path(path)
    if not root_attrs(folder).get(schema.COMPLETE_ATTR):
        raise IncompleteTraceError(
            f"{folder}: the recording has not come to its end, when its reductions are written. Go "
            "on with it: the same call of es.record, with resume=True."
        )
    file = folder / REDUCTIONS
    if not file.exists():
        raise TraceNotFoundError(
            f"{folder}: a trace without reductions. Record with reduce=, or make them of the "
            "trace: everystate.analysis.reducers.reduced(trace['lstm'].h, ...)."
        )
    try:
        with zipfile.ZipFile(file) as archive:  # NumPy does not look at all checksums
            if damaged := archive.testzip():
                raise ValueError(f"the checksum of {damaged} does not match")
        with np.load(file, allow_pickle=False) as arrays:
            index = json.loads(str(arrays[INDEX]))
            return xr.DataTree.from_dict(
                {path: _dataset(said, arrays) for path, said in index.items()}
            )
    except (OSError, ValueError, TypeError, LookupError, zipfile.BadZipFile, zlib.error) as error:
        raise CorruptTraceError(
            f"{file}: the reductions are damaged ({error}). Restore that file from a copy, or "
            "record again."
        ) from error


def _dataset(told: Any, arrays: Any) -> xr.Dataset:
    variables: dict[str, xr.Variable] = {}
    coords: dict[str, xr.Variable] = {}
    for name, each in told["variables"].items():
        variable = xr.Variable(each["dims"], arrays[each["array"]], each["attrs"])
        (coords if each["coordinate"] else variables)[name] = variable
    return xr.Dataset(variables, coords, told["attrs"])
