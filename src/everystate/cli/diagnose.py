"""``everystate diagnose``: what is wrong with a recording, where, and how one knows."""

from pathlib import Path
from typing import Annotated, Any

import typer

from everystate.analysis.finding import Severity
from everystate.cli.arguments.trace import TracePath, Trim, open_for_reading
from everystate.cli.output.document import AsJson, print_json
from everystate.cli.output.guard import ExitCode
from everystate.cli.output.progress import progress


def diagnose(
    trace: TracePath,
    baseline: Annotated[
        Path | None, typer.Option(metavar="TRACE", help="A trace of normal operation.")
    ] = None,
    trained_on: Annotated[
        int | None, typer.Option(min=1, help="Steps of the sequences it was trained on.")
    ] = None,
    threshold: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Change a threshold; may be repeated."),
    ] = None,
    fail_on: Annotated[
        Severity | None, typer.Option(help="Exit with 4 on a finding as bad as this, or worse.")
    ] = None,
    trim: Trim = False,
    as_json: AsJson = False,
) -> None:
    """Say what is wrong with a recording, where, how one knows, and when not to believe it.

    With --fail-on it exits with 4 if something of that severity is found, for use in scripts.
    """
    import everystate as es
    from everystate.analysis.limits import Thresholds

    thresholds = Thresholds(**_thresholds(threshold or ()))
    ours = open_for_reading(trace, trim)
    normal = None if baseline is None else open_for_reading(baseline, trim)
    with progress("diagnosing") as tick:
        found = es.diagnose(
            ours, normal, trained_on=trained_on, thresholds=thresholds, progress=tick
        )
    if as_json:
        print_json(found.to_dict())
    else:
        typer.echo(repr(found))
    if fail_on is not None and found.at_least(fail_on):
        raise typer.Exit(ExitCode.FOUND)


def _thresholds(given: Any) -> dict[str, float]:
    """Return thresholds by their names."""
    from dataclasses import fields

    from everystate.analysis.limits import Thresholds

    names = [f.name for f in fields(Thresholds)]
    found = {}
    for text in given:
        name, _, value = text.partition("=")
        name = name.strip().replace("-", "_")
        try:
            found[name] = float(value)
        except ValueError:
            name = ""
        if name not in names:
            raise typer.BadParameter(
                f"{text!r}: expected NAME=VALUE with a number and one of {', '.join(names)}.",
                param_hint="--threshold",
            )
    return found
