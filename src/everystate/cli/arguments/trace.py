"""TRACE: the folder of a trace on disk."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from everystate.errors import IncompleteTraceError, TraceFormatError

if TYPE_CHECKING:
    import xarray as xr

TracePath = Annotated[Path, typer.Argument(metavar="TRACE", help="Folder of a trace (*.zarr).")]
Trim = Annotated[
    bool,
    typer.Option("--trim", help="Open what is complete of a trace whose writer was stopped."),
]


def open_for_reading(path: Path, trim: bool) -> "xr.DataTree":
    """Open a trace; with `trim`, an incomplete one too (see `everystate.open_trace`).

    Raises
    ------
    TraceFormatError
        If it is a model, which is to be recorded first.
    """
    import everystate as es

    if path.suffix in (".safetensors", ".py"):
        model = path if path.suffix == ".safetensors" else f"{path.stem}:model"
        raise TraceFormatError(
            f"{path} is a model or its code, expected the folder of a trace. Record it first: "
            f"everystate record {model} DATA -o run.zarr"
        )
    try:
        return es.open_trace(path, incomplete="trim" if trim else "error")
    except IncompleteTraceError as error:
        way_out = " On the command line: --trim." if "incomplete='trim'" in str(error) else ""
        raise IncompleteTraceError(f"{error}{way_out}") from error
