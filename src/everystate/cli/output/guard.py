"""Exit codes, and errors as messages: no traceback unless it is asked for."""

import functools
import warnings
from collections.abc import Callable
from contextvars import ContextVar
from enum import IntEnum
from typing import Any, Final

import typer

from everystate.errors import EverystateError, EverystateWarning

debugging: ContextVar[bool] = ContextVar("debugging", default=False)
"""Whether errors are shown with their traceback (``everystate --debug COMMAND ...``)."""


OPTIONS: Final = {
    "overwrite=True": "--overwrite",
    "resume=True": "--resume",
    "x[:, None] or x[None]": "--time-first or --batch-first",
    "Batching(time_first=True)": "--time-first",
    "Give {name: array}, or arrays in this order": "Give an .npz file with an array for each",
    "time_axis=0 or time_axis=1": "--time-first or --batch-first",
}
"""What messages say to users of Python, and what is the same here."""


class ExitCode(IntEnum):
    """What the program tells a script. Wrong usage is 2, as typer has it."""

    ERROR = 1
    DIFFER = 3
    FOUND = 4
    INTERRUPTED = 130


def say(message: str) -> None:
    """Tell the user something, on stderr: stdout is for results."""
    typer.echo(message, err=True)


def guarded(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command that turns exceptions into messages and exit codes."""

    @functools.wraps(command)
    def guarded_command(*args: Any, **options: Any) -> None:
        with warnings.catch_warnings():
            warnings.showwarning = _show(warnings.showwarning)
            try:
                command(*args, **options)
            except (typer.Exit, typer.Abort, typer.BadParameter):
                raise
            except KeyboardInterrupt:
                say("everystate: interrupted.")
                raise typer.Exit(ExitCode.INTERRUPTED) from None
            except Exception as error:
                if debugging.get():
                    raise
                say(f"everystate: error: {_message(error)}")
                raise typer.Exit(ExitCode.ERROR) from None

    return guarded_command


def _message(error: Exception) -> str:
    if isinstance(error, EverystateError):
        return _in_options(str(error))
    name = type(error).__name__
    said = str(error).rstrip(".")
    return f"{name}: {said}. (everystate --debug COMMAND ... shows where it comes from.)"


def _in_options(message: str) -> str:
    """Return a message with the options of the command line for those of Python."""
    for ours, theirs in OPTIONS.items():
        message = message.replace(ours, theirs)
    return message


def _show(others: Callable[..., None]) -> Callable[..., None]:
    """Show our own warnings as messages, all others as ever."""

    def show(message: Warning | str, category: type[Warning], *args: Any, **rest: Any) -> None:
        if issubclass(category, EverystateWarning):
            say(f"everystate: warning: {message}")
        else:
            others(message, category, *args, **rest)

    return show
