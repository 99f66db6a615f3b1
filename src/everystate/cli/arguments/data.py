"""DATA: which file holds the series, and which options say what of it (see `series`)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

HELP = "The series: .npy, .npz, .zarr, .csv or .parquet; (time, features), or with a batch."
DataPath = Annotated[Path, typer.Argument(metavar="DATA", help=HELP)]


@dataclass
class Reading:
    """The options that say what of a file is the series."""

    columns: Annotated[
        str | None,
        typer.Option(help="Features, by name or number from 0: open,close or 1,3. Default: all."),
    ] = None
    time: Annotated[
        str | None,
        typer.Option(
            help="Column that labels the steps, by name or number, or none. Default: one called "
            "time, timestamp, datetime or date, or a first one without a name or of dates."
        ),
    ] = None
    array: Annotated[
        str | None, typer.Option(help="Array of an .npz file. Default: the only one.")
    ] = None
