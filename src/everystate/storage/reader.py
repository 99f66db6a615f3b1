"""`open_trace`: a trace from disk, lazily, or an error that says what is wrong with it."""

import json
import os
from collections.abc import Callable, Hashable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
import xarray as xr
from xarray.coders import CFDatetimeCoder

from everystate import schema
from everystate.errors import (
    CorruptTraceError,
    IncompleteTraceError,
    SelectionError,
    TraceFormatError,
)
from everystate.storage.checked import CheckedStore, damage_told, missing_files, where
from everystate.storage.identify import Incomplete, root_attrs
from everystate.storage.lock import is_being_written
from everystate.storage.lossy import decoded
from everystate.storage.mark import Mark
from everystate.storage.reductions import REDUCTIONS
from everystate.storage.shared.opening import is_shared, open_shared


def open_trace(path: str | os.PathLike[str], *, incomplete: Incomplete = "error") -> xr.DataTree:
    """Open a trace that was saved by `save_trace`, or by ``trace.to_zarr(path)``.

    Values are read when they are used. Whatever is read is checked against its checksum, so
    ``open_trace(path).load()`` checks everything. (Stores written by plain ``to_zarr`` have no
    checksums; damage to them shows only where it cannot be decompressed.)

    Parameters
    ----------
    path : str or path-like
        The trace's folder, or a URL that fsspec knows (``s3://...``, ``memory://...``).
    incomplete : {"error", "trim"}, default "error"
        What to do with a trace whose writer was stopped, or is still writing: raise, or open
        what is complete, each layer up to its last complete block. Layers of which no block is
        complete are left out. The attribute ``complete`` of a trimmed trace is 0.

    Returns
    -------
    xarray.DataTree
        The trace, as `everystate.record` returned it.

    Raises
    ------
    TraceNotFoundError
        If there is nothing at `path`.
    TraceFormatError
        If what is there is not a trace, or one of a newer schema; when values are read, also if
        the trace was overwritten since it was opened.
    IncompleteTraceError
        If the trace is incomplete; with ``incomplete="trim"``, if nothing of it is complete.
    CorruptTraceError
        If a file is missing or damaged; when values are read, if they are damaged. The message
        names the variable.

    Examples
    --------
    >>> import tempfile, numpy as np, xarray as xr, everystate as es
    >>> h = xr.Dataset({"h": (("batch", "time", "unit"), np.ones((2, 7, 3), np.float32))})
    >>> root = xr.Dataset(attrs={"everystate_schema": 1, "complete": 1})
    >>> trace = xr.DataTree.from_dict({"/": root, "/lstm": h})
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = es.save_trace(trace, f"{folder.name}/run.zarr")
    >>> float(es.open_trace(path)["lstm"].h.sel(batch=1, time=6, unit=2))
    1.0
    >>> folder.cleanup()
    """
    if incomplete not in get_args(Incomplete):
        raise SelectionError(f"incomplete={incomplete!r}: expected 'error' or 'trim'.")
    if is_shared(path):
        return open_shared(path, trim=incomplete == "trim")
    folder = Path(path)
    attrs = root_attrs(folder)
    mark = Mark.load(folder)
    if mark is None:
        _check_plain(folder, attrs, incomplete)
    elif not attrs.get(schema.COMPLETE_ATTR):
        _check_progress(folder, mark, incomplete)
    with damage_told(folder):
        datasets = _datasets(folder, mark)
        _check_steps(folder, datasets)
        return xr.DataTree.from_dict(datasets)


def _check_plain(folder: Path, attrs: Mapping[str, Any], incomplete: Incomplete) -> None:
    """Check a store of plain ``to_zarr``: consolidated metadata are the last that it writes."""
    if not _is_consolidated(folder):
        raise IncompleteTraceError(
            f"{folder}: this trace was written by to_zarr, and it has no consolidated metadata, "
            "which to_zarr writes last: either it was stopped, and values are missing, or it was "
            "called with consolidated=False. If you know that all is there, type "
            f"zarr.consolidate_metadata({str(folder)!r}) and open it again."
        )
    if not attrs.get(schema.COMPLETE_ATTR, 1) and incomplete == "error":
        raise IncompleteTraceError(
            f"{folder}: this is a copy, by to_zarr, of an incomplete trace. Open it with "
            f"{_how(folder)}; saved by save_trace, it becomes a trace of its own."
        )


def _is_consolidated(folder: Path) -> bool:
    if (folder / ".zmetadata").is_file():
        return True
    root = folder / "zarr.json"
    return root.is_file() and bool(json.loads(root.read_bytes()).get("consolidated_metadata"))


def _check_progress(folder: Path, mark: Mark, incomplete: Incomplete) -> None:
    if not mark.steps_done:
        again = "Save it again, with overwrite=True."
        raise IncompleteTraceError(
            f"{folder}: the trace is incomplete, {_reason(folder)}: not one block of it was "
            f"completed ({mark.describe() or 'no layer yet'}). "
            f"{'Go on with it: resume=True.' if 'step' in mark.carried else again}"
        )
    if incomplete == "error":
        raise IncompleteTraceError(
            f"{folder}: the trace is incomplete, {_reason(folder)}. Completely written: "
            f"{mark.describe()}. Open that with {_how(folder)}."
        )


def _reason(folder: Path) -> str:
    return "still being written" if is_being_written(folder) else "its writer was stopped"


def _how(folder: Path) -> str:
    return f"es.open_trace({str(folder)!r}, incomplete='trim')"


def _datasets(folder: Path, mark: Mark | None) -> dict[str, xr.Dataset]:
    """Return every node's dataset, of the steps that are complete."""
    stores = CheckedStore.open_store(str(folder), mode="r", group="/", consolidated=True)
    if mark is None:
        return {path: xr.open_dataset(store) for path, store in stores.items()}
    datasets = {}
    for path in sorted(stores, key=_order(mark.variables)):
        if mark.lacks(path):
            continue
        store, known = stores[path], mark.variables.get(path, {})
        steps = mark.common_steps(path)
        _check_files(folder, store, known, steps)
        opened = _open_exactly(store, known) if store.array_keys() else _without_arrays(store)
        dataset = decoded(opened).assign_attrs(mark.attrs.get(path, {}))
        datasets[path] = dataset.isel({schema.TIME: slice(0, steps)}, missing_dims="ignore")
    return datasets


def _check_steps(folder: Path, datasets: Mapping[str, xr.Dataset]) -> None:
    """Refuse a store of reductions alone."""
    if (folder / REDUCTIONS).exists() and not any(each.data_vars for each in datasets.values()):
        raise TraceFormatError(
            f"{folder}: holds reductions alone, no steps. Read them with "
            f"es.open_reductions({str(folder)!r})."
        )


def _order(known: Iterable[str]) -> Callable[[Hashable], int]:
    """Return a key that sorts as `known`, with what was added later at the end."""
    places: dict[Hashable, int] = {name: k for k, name in enumerate(known)}
    return lambda name: places.get(name, len(places))


def _check_files(
    folder: Path, store: CheckedStore, known: Iterable[str], steps: int | None
) -> None:
    for name in known:
        array = store.array(name)
        missing = list(missing_files(array, steps))
        if missing:
            raise CorruptTraceError(
                f"{folder}: the variable {where(array)} lacks {len(missing)} of its files, "
                f"{missing[0].relative_to(folder)} for one (gone, or empty). Restore the folder "
                "from a copy, or record again."
            )


def _open_exactly(store: CheckedStore, known: Mapping[str, str]) -> xr.Dataset:
    """Open a group with the dtypes and the order that its variables had."""
    coders = {name: _coder(dtype) for name, dtype in known.items() if dtype.startswith("datetime")}
    dataset = xr.open_dataset(store, decode_times=coders)
    texts = {name: dtype for name, dtype in known.items() if dtype.startswith(("<U", "object"))}
    dataset = dataset.assign({name: dataset[name].astype(texts[name]) for name in texts})
    order = _order(known)
    return xr.Dataset(
        {name: dataset[name] for name in sorted(dataset.data_vars, key=order)},
        dataset.coords,
        dataset.attrs,
    )


def _without_arrays(store: CheckedStore) -> xr.Dataset:
    """Open a group with nothing but attributes, which xarray does at the cost of a layer."""
    return xr.Dataset(attrs=store.get_attrs())  # type: ignore[no-untyped-call]


def _coder(dtype: str) -> CFDatetimeCoder:
    unit = cast(Literal["s", "ms", "us", "ns"], np.datetime_data(dtype)[0])
    return CFDatetimeCoder(time_unit=unit)
