"""Units, shares and sizes as people write them."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from everystate.analysis.finding import Label

NAMED: Final = 4
"""Units that a sentence names; the evidence has them all."""


def named(units: Sequence[Label]) -> str:
    """Return units as people list them.

    Examples
    --------
    >>> named([3]), named([3, 17]), named(range(6))
    ('unit 3', 'units 3 and 17', 'units 0, 1, 2, 3 and 2 more')
    """
    if len(units) == 1:
        return f"unit {units[0]}"
    shown = [str(unit) for unit in units[:NAMED]]
    if len(units) > NAMED:
        return f"units {', '.join(shown)} and {len(units) - NAMED:,} more"
    return f"units {', '.join(shown[:-1])} and {shown[-1]}"


def share(value: float) -> str:
    """Return a share as people write it.

    Examples
    --------
    >>> share(0.384), share(0.0012), share(1.0)
    ('38 %', '0.12 %', '100 %')
    """
    percent = 100 * value
    return f"{percent:.0f} %" if percent >= 10 or percent == 0 else f"{percent:.2g} %"


def number(value: Any) -> str:
    """Return a count of steps or a size as people write it.

    Examples
    --------
    >>> number(4300.4), number(0.01234), number(8.52), number(float("inf"))
    ('4,300', '0.012', '8.5', 'endless')
    """
    if np.isinf(value):
        return "endless"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2g}"
