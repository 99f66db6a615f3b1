"""What the demo prints: verdicts, two tables, what is seen in them, and what they do not show."""

from rich.console import Console
from rich.table import Table

import everystate as es
from everystate.demo.findings import Findings


def tell(console: Console, found: Findings) -> None:
    """Print everything about the findings."""
    introduce(console, found)
    print_diagnosis(console, found)
    print_summary(console, found)
    console.print(stretches(found), "", scores(found), "")
    conclude(console, found)


def introduce(console: "Console", found: "Findings") -> None:
    """Say what ran on what."""
    console.print(
        f"An LSTM autoencoder reads {found.series.values.size:,} steps of arterial blood pressure "
        f"(UCR Anomaly Archive, series 135). It was trained on windows of {found.window} steps, "
        "about one heartbeat, of the first 800 steps; the next 400 set every threshold; no label "
        "was used. It runs on NumPy: no deep-learning framework is loaded.\n"
    )


def print_diagnosis(console: "Console", found: "Findings") -> None:
    """Print the verdicts on the trace, the worst first."""
    console.print(
        f"[bold]Verdicts on one pass, told that it was trained on {found.window} steps[/]"
    )
    for finding in found.diagnosis:
        console.print(f"- {finding}", markup=False)
    for said in found.diagnosis.left_out:
        console.print(f"- left out: {said}", markup=False)
    console.print()


def print_summary(console: "Console", found: "Findings") -> None:
    """Print the summary of the trace."""
    console.print("[bold]The encoder in one pass, its state never reset[/]")
    console.print(str(es.summary(found.trace)), "")


def stretches(found: "Findings") -> "Table":
    """Return the table of what happens to the memory along the pass."""
    from rich.table import Table

    table = Table(
        title=f"Beyond the {found.window} steps it was trained on",
        caption="Range: of c in windows of the normal part. Error: mean square of a window written "
        "down again from the state; the mean of the series would have 1.",
        title_justify="left",
        caption_justify="left",
    )
    table.add_column("steps", no_wrap=True)
    for name in (
        "largest |c|",
        "units out of\ntheir range",
        "error, state\ncarried on",
        "error,\nrestarted",
    ):
        table.add_column(name, justify="right")
    for s in found.stretches:
        table.add_row(
            span(s.steps),
            f"{s.largest_c:,.0f}",
            str(s.units_outside),
            f"{s.carried_error:.3f}",
            f"{s.restarted_error:.3f}",
        )
    return table


def scores(found: "Findings") -> "Table":
    """Return the table of the alarms of each score."""
    from rich.table import Table

    assert found.series.labelled is not None
    table = Table(
        title=f"Out of the normal range?  Labelled anomaly: steps {span(found.series.labelled)}",
        caption="Threshold: the largest value on steps 800 to 1,199. Counted from step 1,200 on; "
        f"the label counts with the window after it (steps {span(found.event)}).",
        title_justify="left",
        caption_justify="left",
    )
    table.add_column("score")
    table.add_column("alarm at\nthe label")
    table.add_column("alarm\nelsewhere", justify="right")
    table.add_column("highest\nat step", justify="right")
    table.add_column("steps in alarm", no_wrap=True)
    for name, alarms in found.methods.items():
        ranges = [span(place) for place in alarms.ranges(found.window)]
        more = [f"and {len(ranges) - 1} more"] if len(ranges) > 2 else ranges[1:]
        table.add_row(
            name,
            "yes" if alarms.within(found.event) else "no",
            f"{alarms.share(outside=found.event):.1%}",
            f"{alarms.peak:,}",
            "\n".join([*ranges[:1], *more]) or "none",
        )
    return table


def conclude(console: "Console", found: "Findings") -> None:
    """Say what was seen, and what that does not show; ``tests/demo`` holds every sentence."""
    first, _, rest = found.stretches
    of = found.methods
    c, error = (
        of[name].ranges(found.window) for name in ("c of the one pass", "reconstruction error")
    )
    raw = of["raw windows, no network"]
    counter = found.counter
    seen = (
        f"Trained on {found.window} steps, the encoder keeps counting: |c| is at most "
        f"{first.largest_c:.0f} in the first window and {rest.largest_c:,.0f} by the end, and the "
        "decoder can no longer read it. Restarted for each window, the same weights work.",
        f"The gates say why: the forget gate of unit {counter.unit} is below 0.9 for the last time "
        f"at step {counter.last_forgot}; from step 1,200 on it is at least "
        f"{counter.least_forget:.4f}, and c gains {counter.growth:.2f} a step.",
        f"So c is out of its normal range from step {c[0][0]:,} to the end. That alarm is about "
        "the length, and hides the anomaly. h, which tanh holds within 1, stays in its range and "
        "does not show the anomaly; nor do h and c after each window.",
        f"The reconstruction error is in alarm at steps {span(error[0])} only, at the label.",
    )
    unseen = (
        "How well any of this detects anomalies: it is one series, one labelled event, one trained "
        "network, and the thresholds rest on about two heartbeats.",
        "That a network is needed: raw windows compared with normal ones are most unusual at step "
        f"{raw.peak:,}, at the label too, if just below their threshold.",
        "An alarm in time: the reconstruction error of a step needs the windows up to "
        f"{found.window - 1} steps after it. The other scores look back only.",
    )
    for title, sentences in (("What is seen", seen), ("What this does not show", unseen)):
        console.print(f"[bold]{title}[/]")
        for sentence in sentences:
            console.print(f"- {sentence}")
        console.print()


def span(place: tuple[int, int]) -> str:
    """Return a half-open range of steps as people write it, both ends included."""
    return f"{place[0]:,} to {place[1] - 1:,}"
