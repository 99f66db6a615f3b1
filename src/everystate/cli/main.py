"""The program: finds the commands, and what holds for all of them.

Each other module in this folder is a command of the module's name (with a dash for an underscore):
a function called like the module, with typer's annotations. To add a command, add a file. The
modules are imported for ``--help`` already, so what is slow to import belongs inside their
functions.
"""

import sys
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import version
from pkgutil import iter_modules
from typing import Annotated

import typer

import everystate.cli
from everystate.cli.arguments.groups import spread
from everystate.cli.output.guard import debugging, guarded

EPILOG = (
    "Exit codes: 0 done; 1 an error, said on stderr; 2 wrong usage; 3 the compared traces differ; "
    "4 a diagnosis found what --fail-on names; 130 interrupted."
)

app = typer.Typer(
    name="everystate",
    epilog=EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def show_version(wanted: bool) -> None:
    """Print the version and stop, if `wanted`."""
    if wanted:
        typer.echo(f"everystate {version('everystate')}")
        raise typer.Exit


@app.callback()
def everystate_command(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors.")] = False,
    _version: Annotated[
        bool,
        typer.Option("--version", callback=show_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Every state of every recurrent network, at every step, from the model you already have."""
    debugging.set(debug)


def add_commands() -> None:
    """Register every module of this folder but this one."""
    for found in iter_modules(everystate.cli.__path__):
        if not found.ispkg and found.name != "main":
            module = import_module(f"everystate.cli.{found.name}")
            command = getattr(module, found.name)
            app.command(found.name.replace("_", "-"), help=_paragraphs(command))(
                guarded(spread(command))
            )


def _paragraphs(command: Callable[..., None]) -> str:
    """Return a docstring whose lines are not broken, as help texts are wrapped anew."""
    paragraphs = (command.__doc__ or "").split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


add_commands()

if __name__ == "__main__":
    sys.exit(app())
