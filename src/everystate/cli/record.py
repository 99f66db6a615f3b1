"""``everystate record``: a model, a series, a trace on disk."""

import os
import sys
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from everystate.cli.arguments.data import DataPath, Reading
from everystate.cli.arguments.model import (
    ModelName,
    Running,
    from_weights,
    open_model,
    other_tensors,
)
from everystate.cli.arguments.reducing import Keeping
from everystate.cli.output.contents import (
    layers_of,
    print_contents,
    reductions_of,
)
from everystate.cli.output.document import AsJson, print_json
from everystate.cli.output.guard import say
from everystate.cli.output.progress import progress
from everystate.errors import EverystateError, TraceWriteError, UnsupportedModelError

if TYPE_CHECKING:
    import numpy.typing as npt
    import xarray as xr

    from everystate.cli.arguments.series import Series


@dataclass
class Writing:
    """The options that say what is written, and where."""

    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an older trace.")] = False
    report: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a report (HTML) too.")
    ] = None
    memory: Annotated[
        str | None,
        typer.Option(
            help="For long series: record in chunks of time that take about so much, as 512MB, and "
            "write them as they come. DATA in .npy or .zarr is then never read as a whole."
        ),
    ] = None
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Go on with a recording in chunks that was stopped, if there is one."
        ),
    ] = False
    stored_as: Annotated[
        str | None,
        typer.Option(
            help="Keep smaller numbers, float16, bfloat16 or int8; the trace states the error that "
            "this costs. It records in chunks."
        ),
    ] = None
    as_json: AsJson = False

    @property
    def in_chunks(self) -> bool:
        """Whether the series is recorded in chunks of time, written as they come."""
        return self.resume or self.memory is not None or self.stored_as is not None


def record(
    model: ModelName,
    data: DataPath,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder of the trace, by custom *.zarr.")
    ],
    reading: Reading,
    running: Running,
    selecting: Keeping,
    writing: Writing,
) -> None:
    """Record every state of a model's recurrent layers while it reads a series.

    A weights file runs on NumPy, no framework is needed. A model from Python runs on its own
    framework, in the mode it is in: let your function call .eval() if it should.
    """
    from everystate.cli.arguments.series import read_series
    from everystate.storage.writer import set_attributes

    if not writing.resume:
        _check_free(output, writing.overwrite)
    select, reducing = selecting.select(), selecting.reducing()
    in_chunks = writing.in_chunks or bool(reducing)
    if writing.report is not None and not selecting.full:
        said = "shows steps, which --no-full does not keep."
        raise typer.BadParameter(said, param_hint="--report")
    opened = open_model(model, running)
    series = read_series(data, reading, named=isinstance(opened, str), lazy=in_chunks)
    begin = perf_counter()
    options = {"select": select, **reducing, **(_chunks(output, writing) if in_chunks else {})}
    try:
        trace = _recorded(opened, series, running, options)
    except KeyboardInterrupt:
        nothing = f"interrupted while recording: nothing was written to {output}."
        say(_left_behind(output, "recording") if in_chunks else nothing)
        raise
    made = trace if reducing else None
    trace = _steps(output, trace, selecting)
    trace.attrs["model"] = model
    seconds = perf_counter() - begin
    if in_chunks:
        set_attributes(output, "/", {"model": model})  # the rest is written already
    else:
        _save(trace, output, writing.overwrite)
    if writing.report is not None:
        _report(trace, series, writing.report)
    if writing.as_json:
        document = _document(trace, series, output, writing.report, seconds)
        print_json(document | reductions_of(made))
        return
    say(f"read {data}: {series.describe()}")
    if others := other_tensors(opened):
        say(f"not recurrent, not run: {', '.join(others)}")
    print_contents(trace, made)
    typer.echo(f"wrote {output}" + (f" and {writing.report}" if writing.report else ""))


def _steps(output: Path, recorded: "xr.DataTree", selecting: Keeping) -> "xr.DataTree":
    """Return the trace, where what was recorded is what was made of it; nothing if none is kept."""
    import xarray as xr

    import everystate as es

    if selecting.reduce is None:
        return recorded
    return es.open_trace(output) if selecting.full else xr.DataTree()


def _chunks(output: Path, writing: Writing) -> dict[str, Any]:
    """Return the options of `everystate.record` for a series that is recorded in chunks."""
    memory = {} if writing.memory is None else {"memory": writing.memory}
    flags = {"overwrite": writing.overwrite, "resume": writing.resume}
    return {"store": output, "stored_as": writing.stored_as, **flags, **memory}


def _recorded(
    model: Any, series: "Series", running: Running, options: dict[str, Any]
) -> "xr.DataTree":
    import everystate as es

    x = series.feeds or _in_layout(series.values, running, weights=from_weights(model))
    try:
        with progress("recording") as tick, redirect_stdout(sys.stderr):
            trace: xr.DataTree = es.record(model, x, time=series.time, progress=tick, **options)
    except TypeError as error:
        if "missing" not in str(error) or "required" not in str(error):
            raise
        raise UnsupportedModelError(
            f"{error}. The command line calls the model with the series alone. Wrap it in a module "
            "that supplies the rest, or call es.record(model, x, ...) in Python."
        ) from error
    return trace


def _in_layout(x: "npt.NDArray[Any]", running: Running, *, weights: bool) -> "npt.NDArray[Any]":
    """Return the data with a batch of one, if that was asked for; weights need none."""
    if weights or running.time_first is None or x.ndim != 2:
        return x
    return x[:, None] if running.time_first else x[None]


def _check_free(output: Path, overwrite: bool) -> None:
    """Refuse a place that cannot be written before anything is run."""
    from everystate.storage.place import stopped

    if not overwrite and output.exists() and (output.is_file() or any(output.iterdir())):
        go_on = " Go on with what was stopped there: --resume." if stopped(output) else ""
        raise TraceWriteError(f"{output} is taken. Choose another path, or add --overwrite.{go_on}")
    there = next(folder for folder in output.absolute().parents if folder.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise TraceWriteError(f"{output}: {there} cannot be written to. Choose another path.")


def _save(trace: "xr.DataTree", output: Path, overwrite: bool) -> None:
    import everystate as es

    try:
        with progress("writing") as tick:
            es.save_trace(trace, output, overwrite=overwrite, progress=tick)
    except KeyboardInterrupt:
        say(_left_behind(output))
        raise


def _left_behind(output: Path, doing: str = "writing") -> str:
    """Say what an interrupted writer left."""
    import everystate as es

    try:
        left = es.open_trace(output, incomplete="trim")
    except EverystateError:
        return f"interrupted while {doing}: nothing was kept in {output}."
    if left.attrs["complete"]:
        return f"{output} is as it was before."
    kept = ", ".join(f"{leaf.path} {leaf.sizes['time']} steps" for leaf in left.leaves)
    return f"{output} is incomplete: {kept} were saved. Open them with --trim."


def _report(trace: "xr.DataTree", series: "Series", path: Path) -> None:
    import xarray as xr

    import everystate as es

    shown = None
    if series.values.ndim == 2:
        coords = {} if series.time is None else {"time": series.time}
        shown = xr.DataArray(series.values, dims=("time", "feature"), coords=coords)
    with progress("drawing"):
        es.report(trace, path, series=shown)


def _document(
    trace: "xr.DataTree", series: "Series", output: Path, report: Path | None, seconds: float
) -> dict[str, Any]:
    return {
        "trace": str(output),
        "report": None if report is None else str(report),
        "model": trace.attrs["model"],
        "data": {
            "shape": series.values.shape,
            "columns": series.columns,
            "time": series.time_column,
        },
        "seconds": seconds,
        "layers": layers_of(trace),
    }
