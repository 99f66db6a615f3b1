"""--baseline, --trained-on, --threshold: what a recording is judged by."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from everystate.cli.arguments.trace import open_for_reading
from everystate.cli.output.progress import progress

if TYPE_CHECKING:
    import xarray as xr

    from everystate.analysis.finding import Diagnosis


@dataclass(frozen=True)
class Judged:
    """What a recording is judged by; the options of the commands that diagnose."""

    baseline: Annotated[
        Path | None, typer.Option(metavar="TRACE", help="A trace of normal operation.")
    ] = None
    trained_on: Annotated[
        int | None, typer.Option(min=1, help="Steps of the sequences it was trained on.")
    ] = None
    threshold: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Change a threshold; may be repeated."),
    ] = None

    def diagnose(self, trace: "xr.DataTree", trim: bool) -> "Diagnosis":
        """Return the findings on a trace."""
        import everystate as es
        from everystate.analysis.limits import Thresholds

        thresholds = Thresholds(**_thresholds(self.threshold or []))
        normal = None if self.baseline is None else open_for_reading(self.baseline, trim)
        with progress("diagnosing") as tick:
            return es.diagnose(
                trace, normal, trained_on=self.trained_on, thresholds=thresholds, progress=tick
            )


def _thresholds(given: list[str]) -> dict[str, float]:
    """Return thresholds by their names."""
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
