"""Warnings that point at the user's own line of code."""

import sys
import warnings
from collections.abc import Iterable

from everystate.errors import EverystateWarning


def warn(message: str) -> None:
    """Warn the user's own line of code, not ours."""
    between = (__package__.partition(".")[0], "contextlib")
    level, frame = 1, sys._getframe(0)
    while frame.f_back and str(frame.f_globals.get("__name__")).partition(".")[0] in between:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, EverystateWarning, stacklevel=level)


def warn_never_called(paths: Iterable[str]) -> None:
    """Warn that selected layers were not called while the model ran."""
    names = ", ".join(paths)
    if names:
        warn(
            f"these layers were never called while recording, so the trace lacks them: {names}. "
            "They are unused, or their forward method is called directly."
        )
