"""``everystate compare``: where two traces part."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from everystate.cli.arguments.trace import TracePath, Trim, open_for_reading
from everystate.cli.output.document import AsJson, print_json, print_table
from everystate.cli.output.guard import ExitCode
from everystate.cli.output.progress import progress

if TYPE_CHECKING:
    from everystate.analysis.compare import Comparison, Parting


def compare(
    a: TracePath,
    b: TracePath,
    tolerance: Annotated[
        float, typer.Option(help="Largest difference that counts as none: |a-b| / (1+|b|).")
    ] = 1e-4,
    trim: Trim = False,
    as_json: AsJson = False,
) -> None:
    """Find the first step, layer, variable and unit where two traces part.

    Exits with 0 if they are the same within the tolerance, with 3 if they differ.
    """
    from everystate.analysis.compare import compare as compare_traces

    if not tolerance >= 0:
        raise typer.BadParameter("expected 0 or more.", param_hint="--tolerance")
    traces = [open_for_reading(path, trim) for path in (a, b)]
    with progress("comparing") as tick:
        found = compare_traces(*traces, tolerance=tolerance, progress=tick)
    if as_json:
        first = None if found.first is None else asdict(found.first)
        print_json({"same": found.same, "first": first, **asdict(found)})
    else:
        _print(found)
    if not found.same:
        raise typer.Exit(ExitCode.DIFFER)


def _print(found: "Comparison") -> None:
    for difference in found.structure:
        typer.echo(difference)
    if found.layers:
        rows = [
            [layer, f"{max(errors.values()):.3g}", _where(found.first_in.get(layer))]
            for layer, errors in found.layers.items()
        ]
        print_table(("layer", "largest difference", "first beyond the tolerance"), rows)
    if found.first is not None:
        p = found.first
        typer.echo(f"They part in {p.layer}, {_where(p)}: {p.a:.9g} in A, {p.b:.9g} in B.")
    elif found.layers:
        but = "" if found.same else ", but the traces differ in what is said above"
        typer.echo(f"All values compared are the same within {found.tolerance:g}{but}.")


def _where(place: "Parting | None") -> str:
    if place is None:
        return "nowhere"
    labelled = "" if place.time is None or place.time == str(place.step) else f" ({place.time})"
    when = "before step 0" if place.step is None else f"step {place.step}{labelled}"
    row = "" if place.row is None else f", row {place.row}"
    return f"{when}: {place.variable}{row}, unit {place.unit}"
