"""A shared trace opened as one trace, whole or as far as its shards are done."""

import os
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
import zarr
from zarr.core.metadata import ArrayV3Metadata

from everystate import schema
from everystate.errors import (
    CorruptTraceError,
    IncompleteTraceError,
    TraceFormatError,
    TraceNotFoundError,
)
from everystate.storage.checked import CheckedStore, damage_told, where
from everystate.storage.shared.manifest import MARKS, Plan, ShardMark, load_marks
from everystate.storage.shared.reductions import root_of
from everystate.storage.shared.root import Root


def is_shared(path: str | os.PathLike[str]) -> bool:
    """Whether a path is a URL, or a folder that many have written."""
    root = Root(path)
    return root.folder is None or Plan.load(root) is not None


def open_shared(path: str | os.PathLike[str], *, trim: bool) -> xr.DataTree:
    """Open a shared trace, or any trace at a URL, lazily.

    Parameters
    ----------
    path : str or path-like
        The trace's folder or URL.
    trim : bool
        Whether to open an incomplete one too, without the rows that are not done.

    Raises
    ------
    TraceNotFoundError, TraceFormatError, IncompleteTraceError, CorruptTraceError
        As `open_trace`.
    """
    root = Root(path)
    plan, marks = _progress(root, trim=trim)
    if plan is not None and plan.reductions and not any(plan.variables.values()):
        raise TraceFormatError(
            f"{root}: holds reductions alone, no steps. Read them with "
            f"es.open_reductions({str(root)!r})."
        )
    with damage_told(root):
        datasets = _datasets(root)
        if plan is not None:
            datasets = {path: _in_order(each, path, plan) for path, each in datasets.items()}
        if plan is not None and marks is not None:
            datasets = {path: _done_rows(each, plan, marks) for path, each in datasets.items()}
        if plan is not None and root.folder is not None:
            _check_files(root, plan, datasets)
        return xr.DataTree.from_dict(datasets)


def open_shared_reductions(path: str | os.PathLike[str], *, trim: bool) -> xr.DataTree:
    """Open what was made of each row of a shared trace, lazily; arguments as of `open_shared`."""
    root = Root(path)
    plan, marks = _progress(root, trim=trim)
    if plan is None or not plan.reductions:
        raise TraceNotFoundError(f"{root}: a trace without reductions. Record with reduce=.")
    with damage_told(root, "reductions"):
        found = _datasets(root_of(root))
        order = {"/": found["/"]}
        for layer in plan.variables:
            group = zarr.open_group(root.zarr_store(), path=layer, mode="r")
            attrs = {name: said for name, said in group.attrs.items() if name != "coordinates"}
            order[f"/{layer}"] = xr.Dataset(attrs=attrs)
        order |= {f"/{path}": found[f"/{path}"] for path in plan.reductions}
        if root.folder is not None:
            _check_rows(root_of(root), plan, order, marks)
        if marks is not None:
            rows = done_rows(plan, marks)
            order = {
                path: each.isel({schema.BATCH: rows}, missing_dims="ignore")
                for path, each in order.items()
            }
        return xr.DataTree.from_dict(order)


def _progress(root: Root, *, trim: bool) -> tuple[Plan | None, dict[int, ShardMark] | None]:
    """Return the plan, if many have written, and the marks of what is done, if not all is."""
    attrs = _root_attrs(root)
    plan = Plan.load(root)
    marks = None if plan is None or attrs.get(schema.COMPLETE_ATTR) else load_marks(root)
    if plan is not None and marks is not None:
        _check_progress(root, plan, marks, trim)
    return plan, marks


def _check_rows(
    root: Root, plan: Plan, datasets: dict[str, xr.Dataset], marks: dict[int, ShardMark] | None
) -> None:
    """Raise if a file of rows that are done is gone: Zarr would take it for NaN."""
    lengths = datasets["/"][schema.LENGTH].values
    shards = range(plan.shards) if marks is None else marks
    recorded = [k for k in shards if lengths[list(plan.rows_of(k))].any()]
    for path in plan.reductions:
        for name in datasets[f"/{path}"].data_vars:
            array = zarr.open_array(root.zarr_store(), path=f"{path}/{name}", mode="r")
            for shard in recorded:
                _check_shard(root, array, shard, 1)


def _root_attrs(root: Root) -> dict[str, Any]:
    try:
        attrs = dict(zarr.open_group(root.zarr_store(), mode="r").attrs)
    except FileNotFoundError as error:
        raise TraceNotFoundError(f"{root}: there is no trace at this place.") from error
    if schema.SCHEMA_ATTR not in attrs:
        raise TraceFormatError(
            f"{root}: a Zarr store, but not a trace of everystate: its root has no attribute "
            f"{schema.SCHEMA_ATTR!r}."
        )
    number = attrs[schema.SCHEMA_ATTR]
    if not isinstance(number, int) or number > schema.SCHEMA_VERSION:
        raise TraceFormatError(
            f"{root}: a trace of schema {number!r}; this everystate reads schema "
            f"{schema.SCHEMA_VERSION}. Upgrade it: pip install --upgrade everystate"
        )
    return attrs


def _check_progress(root: Root, plan: Plan, marks: dict[int, ShardMark], trim: bool) -> None:
    """Raise unless there is something to open, and the caller knows that it is not all."""
    if marks and trim:
        return
    way = f" Open those with es.open_trace({str(root)!r}, incomplete='trim')." if marks else ""
    raise IncompleteTraceError(
        f"{root}: the trace is incomplete: {len(marks)} of {plan.shards} shards are done, of "
        f"{plan.shard_rows} rows each. Call record_many once more, with the same arguments: it "
        f"does what is missing.{way}"
    )


def _done_rows(dataset: xr.Dataset, plan: Plan, marks: dict[int, ShardMark]) -> xr.Dataset:
    """Return the rows of the shards that are done; those that failed have no steps."""
    if schema.BATCH not in dataset.dims:
        return dataset
    length = dataset[schema.LENGTH].values.copy()
    length[[row for mark in marks.values() for row in mark.failed]] = 0
    dataset = dataset.assign_coords({schema.LENGTH: dataset[schema.LENGTH].copy(data=length)})
    return dataset.isel({schema.BATCH: done_rows(plan, marks)})


def done_rows(plan: Plan, marks: dict[int, ShardMark]) -> npt.NDArray[np.int64]:
    """Return the rows of the shards that are done."""
    return np.concatenate([np.asarray(plan.rows_of(shard)) for shard in sorted(marks)])


def _datasets(root: Root) -> dict[str, xr.Dataset]:
    if root.folder is None:
        tree = xr.open_datatree(root.zarr_store(), engine="zarr", consolidated=True)
        return {node.path: node.to_dataset(inherit=False) for node in tree.subtree}
    stores = CheckedStore.open_store(str(root.folder), mode="r", group="/", consolidated=True)
    return {path: xr.open_dataset(store) for path, store in stores.items()}


def _in_order(dataset: xr.Dataset, path: str, plan: Plan) -> xr.Dataset:
    """Return the variables as they were recorded: Zarr sorts them."""
    names = plan.variables.get(path.strip("/"), [])
    return xr.Dataset({name: dataset[name] for name in names}, dataset.coords, dataset.attrs)


def _check_files(root: Root, plan: Plan, datasets: dict[str, xr.Dataset]) -> None:
    """Raise if a file is gone: Zarr would take it for NaN.

    A shard has as many files of a variable as its longest row has steps for.
    """
    for path, dataset in datasets.items():
        if schema.BATCH not in dataset.dims:
            continue
        shards = dataset[schema.BATCH].values // plan.shard_rows
        longest = np.zeros(plan.shards, dtype=np.int64)
        np.maximum.at(longest, shards, dataset[schema.LENGTH].values)
        steps = np.searchsorted(dataset[schema.TIME].values, longest)
        for name in dataset.data_vars:
            array = zarr.open_array(root.zarr_store(), path=f"{path}/{name}".strip("/"), mode="r")
            for shard in np.unique(shards).tolist():
                _check_shard(root, array, shard, int(steps[shard]))


def _check_shard(root: Root, array: zarr.Array[Any], shard: int, steps: int) -> None:
    assert root.folder is not None
    assert isinstance(array.metadata, ArrayV3Metadata)
    cuts = array.shards or array.chunks
    files = -(-steps // cuts[1]) if array.ndim == 3 else int(steps > 0)
    for k in range(files):
        name = array.metadata.encode_chunk_key((shard, k, *[0] * array.ndim)[: array.ndim])
        file = root.folder / array.path / name
        if not file.is_file() or file.stat().st_size == 0:
            raise CorruptTraceError(
                f"{root}: the variable {where(array)} lacks the file {name} (gone, or empty). "
                f"Restore it from a copy; or remove {MARKS}/{shard:08d}.json, and call "
                "record_many once more with the same arguments: it records the shard again."
            )
