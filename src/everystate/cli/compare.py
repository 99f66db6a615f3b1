"""``everystate compare``: where two traces part."""

from dataclasses import asdict
from typing import Annotated

import typer

from everystate.cli.arguments.trace import TracePath, Trim, open_for_reading
from everystate.cli.output.document import AsJson, print_json
from everystate.cli.output.guard import ExitCode
from everystate.cli.output.progress import progress


def compare(
    a: TracePath,
    b: TracePath,
    tolerance: Annotated[
        float, typer.Option(help="Largest difference that counts as none: |a-b| / (1+|b|).")
    ] = 1e-4,
    layer: Annotated[
        list[str] | None,
        typer.Option(metavar="A=B", help="A layer's path in both traces; may be repeated."),
    ] = None,
    trim: Trim = False,
    as_json: AsJson = False,
) -> None:
    """Find the first step, layer, variable and unit where two traces part.

    Exits with 0 if they are the same within the tolerance, with 3 if they differ.
    """
    from everystate.analysis.compare import compare as compare_traces

    if not tolerance >= 0:
        raise typer.BadParameter("expected 0 or more.", param_hint="--tolerance")
    pairs = dict(_pair(text) for text in layer or ())
    traces = [open_for_reading(path, trim) for path in (a, b)]
    with progress("comparing") as tick:
        found = compare_traces(*traces, tolerance=tolerance, layers=pairs, progress=tick)
    if as_json:
        first = None if found.first is None else asdict(found.first)
        print_json({"same": found.same, "first": first, **asdict(found)})
    else:
        typer.echo(repr(found))
    if not found.same:
        raise typer.Exit(ExitCode.DIFFER)


def _pair(text: str) -> tuple[str, str]:
    a, equals, b = text.partition("=")
    if not (a and equals and b):
        raise typer.BadParameter(f"{text!r}, expected A=B.", param_hint="--layer")
    return a, b
