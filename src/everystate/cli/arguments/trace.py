"""TRACE: the folder of a trace on disk."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from everystate.errors import IncompleteTraceError

if TYPE_CHECKING:
    import xarray as xr

TracePath = Annotated[Path, typer.Argument(metavar="TRACE", help="Folder of a trace (*.zarr).")]
Trim = Annotated[
    bool,
    typer.Option("--trim", help="Open what is complete of a trace whose writer was stopped."),
]


def open_for_reading(path: Path, trim: bool) -> "xr.DataTree":
    """Open a trace; with `trim`, an incomplete one too (see `everystate.open_trace`)."""
    import everystate as es

    try:
        return es.open_trace(path, incomplete="trim" if trim else "error")
    except IncompleteTraceError as error:
        way_out = " On the command line: --trim." if "incomplete='trim'" in str(error) else ""
        raise IncompleteTraceError(f"{error}{way_out}") from error
