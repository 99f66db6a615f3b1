"""What is at a path: a trace that this version can read, or an error that says what else."""

import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from everystate import schema
from everystate.errors import CorruptTraceError, TraceFormatError, TraceNotFoundError
from everystate.storage.place import REPLACED, WRITING

Incomplete = Literal["error", "trim"]
"""What to do with a store whose writer was stopped: raise, or open what is complete."""

ROOT_FILES = ("zarr.json", ".zattrs", ".zgroup")
"""Where the root's attributes are: Zarr format 3, 2, and 2 without any."""

SIGNATURES = {
    b"\x89HDF": "an HDF5 or netCDF file; xarray.open_datatree(path) opens it, if it is a trace",
    b"CDF": "a netCDF file; xarray.open_datatree(path) opens it, if it is a trace",
    b"PK\x03\x04": "a zip file; unpack it and open the folder",
}


def root_attrs(folder: Path) -> Mapping[str, Any]:
    """Return the attributes of the root group of the trace in a folder.

    They are read by hand: a newer trace, or a damaged one, might be beyond what Zarr reads here.

    Raises
    ------
    TraceNotFoundError
        If there is nothing.
    TraceFormatError
        If there is something else, or a trace of a newer schema.
    CorruptTraceError
        If the metadata cannot be read.
    """
    if not folder.exists():
        raise TraceNotFoundError(_not_found(folder))
    if not folder.is_dir():
        raise TraceFormatError(f"{folder}: expected the folder of a trace, got {_kind(folder)}.")
    name = next((name for name in ROOT_FILES if (folder / name).is_file()), None)
    if name is None:
        raise TraceFormatError(_no_store(folder))
    attrs = _attributes(folder / name)
    _check_schema(folder, attrs)
    return attrs


def _attributes(file: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(file.read_bytes())
        attrs = content if file.name != "zarr.json" else content.get("attributes", {})
        return dict(attrs)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise CorruptTraceError(
            f"{file.parent}: the metadata in {file.name} are damaged ({error}). Restore that file "
            "from a copy; without it nothing tells what the data are."
        ) from error


def _check_schema(folder: Path, attrs: Mapping[str, Any]) -> None:
    if schema.SCHEMA_ATTR not in attrs:
        raise TraceFormatError(
            f"{folder}: a Zarr store, but not a trace of everystate: its root has no attribute "
            f"{schema.SCHEMA_ATTR!r}. xarray.open_datatree(path, engine='zarr') opens any store."
        )
    number = attrs[schema.SCHEMA_ATTR]
    if not isinstance(number, int) or number < 1:
        raise TraceFormatError(
            f"{folder}: the attribute {schema.SCHEMA_ATTR!r} is {number!r}; expected 1."
        )
    if number > schema.SCHEMA_VERSION:
        writer = attrs.get("everystate_version", "of a later version")
        raise TraceFormatError(
            f"{folder}: a trace of schema {number}, written by everystate {writer}. This is "
            f"everystate {version('everystate')}, which reads schema {schema.SCHEMA_VERSION}. "
            "Upgrade it: pip install --upgrade everystate"
        )


def _not_found(folder: Path) -> str:
    message = f"{folder}: there is nothing at this path."
    left = [folder.with_name(folder.name + end) for end in (WRITING, REPLACED)]
    left = [path for path in left if path.is_dir()]
    if left:
        return (
            f"{message} But a save that was stopped, or is under way, left "
            f"{' and '.join(map(str, left))}: open, or rename, the one that you want."
        )
    near = sorted(path.name for path in folder.parent.glob("*.zarr"))[:5]
    return f"{message} In {folder.parent} there is: {', '.join(near)}." if near else message


def _no_store(folder: Path) -> str:
    message = f"{folder}: a folder, but not a Zarr store: it has neither zarr.json nor .zgroup."
    inner = sorted(path.name for path in folder.glob("*.zarr"))[:5]
    return f"{message} In it there is: {', '.join(inner)}." if inner else message


def _kind(file: Path) -> str:
    with file.open("rb") as stream:
        start = stream.read(8)
    known = (text for magic, text in SIGNATURES.items() if start.startswith(magic))
    return next(known, "a file")
