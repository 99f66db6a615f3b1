"""``everystate diagnose``: what is wrong with a recording, where, and how one knows."""

from typing import Annotated

import typer

from everystate.analysis.finding import Severity
from everystate.cli.arguments.diagnosis import Judged
from everystate.cli.arguments.trace import TracePath, Trim, open_for_reading
from everystate.cli.output.document import AsJson, print_json
from everystate.cli.output.guard import ExitCode


def diagnose(
    trace: TracePath,
    judged: Judged,
    fail_on: Annotated[
        Severity | None, typer.Option(help="Exit with 4 on a finding as bad as this, or worse.")
    ] = None,
    trim: Trim = False,
    as_json: AsJson = False,
) -> None:
    """Say what is wrong with a recording, where, how one knows, and when not to believe it.

    With --fail-on it exits with 4 if something of that severity is found, for use in scripts.
    """
    found = judged.diagnose(open_for_reading(trace, trim), trim)
    if as_json:
        print_json(found.to_dict())
    else:
        typer.echo(repr(found))
    if fail_on is not None and found.at_least(fail_on):
        raise typer.Exit(ExitCode.FOUND)
