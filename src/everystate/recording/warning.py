"""Warnings that point at the user's own line of code."""

import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

from everystate.errors import EverystateWarning

_QUIET: Final = ContextVar("quiet", default=False)


@contextmanager
def quietly() -> Iterator[None]:
    """Have `warn` say nothing in this block: the recording that follows will.

    Of this thread alone, which `warnings.catch_warnings` is not.
    """
    token = _QUIET.set(True)
    try:
        yield
    finally:
        _QUIET.reset(token)


def warn(message: str) -> None:
    """Warn the user's own line of code, not ours."""
    if _QUIET.get():
        return
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
