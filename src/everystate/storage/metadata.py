"""Zarr's metadata as files: each group and each array is a folder with a ``zarr.json``.

Zarr makes them one by one, at some milliseconds each, and gathers them by reading them all again,
which a short recording would spend half of its time with. What they say is laid down in the
specification (Zarr core, version 3: zarr-specs.readthedocs.io, chapters "Metadata" and "Codecs");
the data in the arrays are read and written by Zarr itself.

Each file is written beside and renamed, so that a reader finds the old one or the new one.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import xarray as xr

from everystate.storage.layout import Grid

FILE_NAME: Final = "zarr.json"
Node = dict[str, Any]

_CHECKSUM: Final = {"name": "crc32c"}
_BYTES: Final = {"name": "bytes", "configuration": {"endian": "little"}}
_FILL: Final = {"f": "NaN", "c": [0.0, 0.0], "b": False}
"""What is read where nothing is written yet, by kind of dtype: NaN where there is one, else 0."""


def save(folder: Path, path: str, node: Node) -> None:
    """Write the metadata of a group or an array, and of the groups above it that there are not."""
    place = folder / path.strip("/")
    place.mkdir(parents=True, exist_ok=True)
    for above in place.relative_to(folder).parents:
        if place != folder and not (folder / above / FILE_NAME).exists():
            _write(folder / above, group({}))
    _write(place, node)


def load(folder: Path, path: str) -> Node:
    """Return the metadata of a group or an array."""
    node: Node = json.loads((folder / path.strip("/") / FILE_NAME).read_bytes())
    return node


def update(folder: Path, path: str, attributes: Mapping[str, Any]) -> None:
    """Set some attributes of a group or an array."""
    node = load(folder, path)
    save(folder, path, {**node, "attributes": {**node["attributes"], **attributes}})


def group(attributes: Mapping[str, Any]) -> Node:
    """Return the metadata of a group."""
    return {"attributes": dict(attributes), "zarr_format": 3, "node_type": "group"}


def array(variable: xr.Variable, cut: Grid, compressor: Node) -> Node:
    """Return the metadata of an array.

    Parameters
    ----------
    variable : xarray.Variable
        Its shape, dtype, dimensions and attributes.
    cut : Grid
        Its chunks and shards.
    compressor : dict
        The codec between bytes and checksum, as the specification has it.
    """
    codecs = [_endian(variable.dtype), compressor, _CHECKSUM]
    if cut.shards != cut.chunks:
        inner = {"chunk_shape": list(cut.chunks), "codecs": codecs}
        index = {"index_codecs": [_BYTES, _CHECKSUM], "index_location": "end"}
        codecs = [{"name": "sharding_indexed", "configuration": {**inner, **index}}]
    return {
        "shape": list(variable.shape),
        "data_type": variable.dtype.name,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(cut.shards)}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": _FILL.get(variable.dtype.kind, 0),
        "codecs": codecs,
        "attributes": dict(variable.attrs),
        "dimension_names": [str(dim) for dim in variable.dims],
        "zarr_format": 3,
        "node_type": "array",
        "storage_transformers": [],
    }


def consolidate(folder: Path) -> None:
    """Gather all metadata in the root's file, which is what a reader sees."""
    nodes = {}
    for file in sorted(folder.rglob(FILE_NAME)):
        path = file.parent.relative_to(folder).as_posix()
        nodes[path] = {**load(folder, path), "consolidated_metadata": _gathered({})}
        if nodes[path]["node_type"] == "array":
            del nodes[path]["consolidated_metadata"]
    root = nodes.pop(".")
    _write(folder, {**root, "consolidated_metadata": _gathered(nodes)})


def _gathered(nodes: Mapping[str, Node]) -> Node:
    return {"kind": "inline", "must_understand": False, "metadata": dict(nodes)}


def _endian(dtype: np.dtype[Any]) -> Node:
    """Return the codec from numbers to bytes; those of one byte have no order."""
    return _BYTES if dtype.itemsize > 1 else {"name": "bytes"}


def _write(place: Path, node: Node) -> None:
    fresh = place / f"{FILE_NAME}.partial"
    fresh.write_text(json.dumps(node, default=_plain), encoding="utf-8")
    os.replace(fresh, place / FILE_NAME)


def _plain(value: object) -> object:
    """Return NumPy's numbers and arrays as JSON has them, as xarray does."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"an attribute is a {type(value).__name__}, which JSON does not know")
