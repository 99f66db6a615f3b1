"""``everystate record-many``: a model, many sequences, one trace, on many workers."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from everystate.cli.arguments.data import Reading
from everystate.cli.arguments.model import ModelName, Running, open_model
from everystate.cli.arguments.reducing import Keeping
from everystate.cli.arguments.selection import names
from everystate.cli.output.contents import (
    layers_of,
    print_contents,
    reductions_of,
)
from everystate.cli.output.document import AsJson, print_json
from everystate.cli.output.guard import ExitCode, say
from everystate.cli.output.progress import progress

if TYPE_CHECKING:
    import numpy.typing as npt

    from everystate.scale import Recorded

HELP = (
    "Files, each a sequence (.npy, .npz, .csv, .parquet), or a folder of them; or one data set of "
    "all: a Zarr store, a Parquet data set, or an .npy file (sequence, step, feature)."
)
ENDINGS = (".npy", ".npz", ".csv", ".tsv")
"""Files that a folder is searched for."""


@dataclass
class Sharing:
    """The options that say who does what."""

    workers: Annotated[
        int | None, typer.Option(help="Processes to start here. Default: one for each core.")
    ] = None
    scheduler: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Scheduler of a Dask cluster: tcp://10.0.0.1:8786."),
    ] = None
    batch: Annotated[int, typer.Option(help="Most sequences in a call of the model.")] = 32
    pad: Annotated[
        bool,
        typer.Option(
            "--pad", help="Let sequences of different lengths share a call, padded at their ends."
        ),
    ] = False
    memory: Annotated[
        str, typer.Option(metavar="BYTES", help="What a worker may hold of the trace at once.")
    ] = "512MB"
    sequence: Annotated[
        str | None,
        typer.Option(
            help="Column of a Parquet data set that tells the sequences apart. Default: one "
            "called sequence, sequence_id, series_id or id."
        ),
    ] = None
    as_json: AsJson = False


def record_many(
    model: ModelName,
    data: Annotated[list[str], typer.Argument(metavar="DATA...", help=HELP)],
    output: Annotated[
        str, typer.Option("--output", "-o", help="Folder or URL of the trace, by custom *.zarr.")
    ],
    reading: Reading,
    running: Running,
    selecting: Keeping,
    sharing: Sharing,
) -> None:
    """Record many sequences as one trace, shared out over processes or a Dask cluster.

    Run once more with the same arguments, it does what is missing: after it was stopped, or
    where sequences could not be read. Those are named, and the exit code is 1.
    """
    import everystate as es

    if sharing.workers is not None and sharing.scheduler is not None:
        raise typer.BadParameter("cannot go with --workers.", param_hint="--scheduler")
    batching = es.scale.Batching(
        batch=sharing.batch,
        pad=sharing.pad,
        memory=sharing.memory,
        time_first=bool(running.time_first),
    )
    inputs = _inputs(data, reading, sharing.sequence)
    select, reducing = selecting.select(), selecting.reducing()
    with (
        es.scale.connected(sharing.scheduler or sharing.workers) as client,
        progress("recording") as tick,
    ):
        say(f"dashboard: {client.dashboard_link}")
        done = es.scale.record_many(
            partial(open_model, model, running),
            inputs,
            output,
            client=client,
            select=select,
            batching=batching,
            progress=tick,
            **reducing,
        )
    _tell(done, selecting, sharing.as_json)
    if done.failed:
        raise typer.Exit(ExitCode.ERROR)


def _inputs(data: list[str], reading: Reading, sequence: str | None) -> Any:
    """Return what DATA stand for: one data set of many sequences, or files of one each."""
    from everystate.scale import Files, Parquet

    read = partial(_values, reading)
    if len(data) > 1:
        return Files(data, read)
    place = data[0]
    path = Path(place)
    if path.is_dir() and not any(path.glob("*.parquet")):
        files = sorted(str(file) for file in path.iterdir() if file.suffix in ENDINGS)
        return Files(files, read) if files else place
    if sequence is not None or path.is_dir() or place.endswith(".parquet"):
        return Parquet(place, sequence, names(reading.columns))
    return Files(data, read) if path.suffix in (".npz", ".csv", ".tsv") else place


def _values(reading: Reading, path: str) -> "npt.NDArray[Any]":
    from everystate.cli.arguments.series import read_series

    return read_series(Path(path), reading).values


def _tell(done: "Recorded", selecting: Keeping, as_json: bool) -> None:
    import everystate as es

    trace = es.open_trace(done.store) if selecting.full else None
    made = es.open_reductions(done.store) if selecting.reduce is not None else None
    if as_json:
        said = {"trace": done.store, "sequences": done.sequences, "shards_recorded": done.shards}
        said |= {"failed": done.failed, "layers": {} if trace is None else layers_of(trace)}
        print_json(said | reductions_of(made))
        return
    print_contents(trace, made)
    left = f", {len(done.failed)} could not be recorded" if done.failed else ""
    typer.echo(f"wrote {done.store}: {done.sequences} sequences{left}")
