"""``everystate demo``: a real model on a real series, recorded without a framework."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from everystate.cli.output.document import AsJson, print_json
from everystate.cli.output.progress import progress
from everystate.errors import TraceWriteError

if TYPE_CHECKING:
    from everystate.demo.findings import Findings


def demo(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for the trace and the report.")
    ] = Path("demo_output"),
    as_json: AsJson = False,
) -> None:
    """Record an LSTM autoencoder on a real series, and show what its states do.

    The series is arterial blood pressure with a labelled anomaly. The weights come with the
    package and run on NumPy; no deep-learning framework is needed. An older output is replaced.
    """
    from rich.console import Console

    from everystate.demo.run import run
    from everystate.demo.screen import tell

    _make(output)
    found = run(progress)
    files = _write(found, output)
    if as_json:
        print_json({**found.document(), "files": files})
        return
    tell(Console(highlight=False), found)
    typer.echo("Wrote")
    typer.echo(f"  {files['report']}   open it in a browser; no network is needed")
    typer.echo(f"  {files['trace']}   es.open_trace({str(files['trace'])!r})")


def _make(folder: Path) -> None:
    """Make the folder before any work is done."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TraceWriteError(
            f"cannot make the folder {folder}: {error.strerror}. Choose another: --output FOLDER"
        ) from error


def _write(found: "Findings", folder: Path) -> dict[str, Path]:
    import everystate as es

    with progress("writing") as tick:
        trace = es.save_trace(found.trace, folder / "run.zarr", overwrite=True, progress=tick)
    with progress("drawing"):
        report = es.report(
            found.trace,
            folder / "report.html",
            title="LSTM autoencoder on arterial blood pressure: one pass of 7,501 steps",
            marks=found.marks(),
            findings=found.diagnosis,
        )
    return {"trace": trace, "report": report}
