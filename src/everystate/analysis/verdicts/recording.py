"""What the recording itself says that one should know before reading it."""

from collections.abc import Iterator
from typing import Final

from everystate.analysis.case import Case
from everystate.analysis.finding import Finding, Severity

RANK: Final = 10

SAID: Final[dict[str, tuple[Severity, str]]] = {
    "weights_changed": (
        "warning",
        "the weights changed while it was recorded ({} of the calls ran with others than the "
        "first): its steps are of different networks.",
    ),
    "unverified_values": (
        "warning",
        "{} values could not be verified, as the model's own input was NaN or infinite.",
    ),
    "edited_steps": (
        "info",
        "{} steps did not start from the state before: the state was edited between them.",
    ),
}


def check(case: Case) -> Iterator[Finding]:
    """Yield the reservations that are written in the layer's attributes."""
    for name, (severity, text) in SAID.items():
        count = int(case.data.attrs.get(name, 0))
        if count:
            yield Finding(
                kind="recording",
                severity=severity,
                layer=case.layer,
                message=text.format(f"{count:,}"),
                evidence={name: count},
                formula=f"the attribute `{name}` of the layer",
                caution="If it was meant so, nothing is wrong.",
            )
