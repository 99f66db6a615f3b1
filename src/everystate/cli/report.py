"""``everystate report``: pictures of a trace in one HTML file."""

from pathlib import Path
from typing import Annotated

import typer

from everystate.cli.arguments.diagnosis import Judged
from everystate.cli.arguments.trace import TracePath, Trim, open_for_reading
from everystate.cli.output.document import AsJson, print_json
from everystate.cli.output.progress import progress


def report(
    trace: TracePath,
    judged: Judged,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="The HTML file. Default: the trace's name, in this folder."
        ),
    ] = None,
    title: Annotated[str | None, typer.Option(help="Heading of the page.")] = None,
    trim: Trim = False,
    as_json: AsJson = False,
) -> None:
    """Write a report: one HTML file that needs no network.

    It says first what `everystate diagnose` finds.
    """
    import everystate as es

    opened = open_for_reading(trace, trim)
    path = Path(f"{trace.resolve().stem}.html") if output is None else output
    findings = judged.diagnose(opened, trim)
    with progress("drawing"):
        es.report(opened, path, title=title, findings=findings)
    if as_json:
        print_json({"report": str(path), "bytes": path.stat().st_size})
        return
    typer.echo(f"wrote {path}")
