"""``everystate info``: versions, the layers of a model, the contents of a trace."""

import platform
import re
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from everystate.cli.arguments.model import (
    Running,
    from_weights,
    layers_of,
    open_model,
    other_tensors,
)
from everystate.cli.arguments.trace import open_for_reading
from everystate.cli.output import contents
from everystate.cli.output.document import AsJson, print_json, print_table
from everystate.errors import EverystateError, TraceFormatError

if TYPE_CHECKING:
    import xarray as xr

REQUIREMENT: Final = re.compile(r"(?P<name>[\w.-]+)(?:.*extra == ['\"](?P<extra>[\w-]+)['\"])?")
"""A package that everystate needs, and the extra that it is needed for."""


def info(
    subject: Annotated[
        str | None,
        typer.Argument(
            metavar="[MODEL|TRACE]",
            help="a model's file or package.module:attribute; or the folder of a trace.",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say what is installed; or which layers a model has; or what a trace holds."""
    from everystate.recording.discovery import framework_of_file

    if subject is None:
        _show_versions(as_json)
    elif framework_of_file(subject) or (":" in subject and not Path(subject).exists()):
        _show_model(subject, as_json)
    else:
        _show_trace(Path(subject), as_json)


def _show_versions(as_json: bool) -> None:
    extras = {"python": "", "everystate": "", **_requirements()}
    versions = {name: _version(name) for name in extras}
    if as_json:
        print_json({"versions": versions, "extras": extras, "platform": platform.platform()})
        return
    rows = [[name, versions[name] or "not installed", extra] for name, extra in extras.items()]
    print_table(("package", "version", "extra"), rows)


def _requirements() -> dict[str, str]:
    """Return the packages that everystate can use, and the extra that brings each."""
    matches = (REQUIREMENT.match(line) for line in requires("everystate") or ())
    found = [(m["name"], m["extra"] or "") for m in matches if m]
    return {name: extra for name, extra in found if extra != "dev"}


def _version(name: str) -> str | None:
    if name == "python":
        return platform.python_version()
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _show_model(name: str, as_json: bool) -> None:
    model = open_model(name, Running())
    stacks = {n: stack.describe() for n, stack in model.items()} if from_weights(model) else {}
    others = other_tensors(model)
    layers = list(layers_of(model))
    if as_json:
        print_json({"model": name, "layers": layers, "stacks": stacks, "other_tensors": others})
        return
    if stacks:
        print_table(("stack", "what it is"), list(stacks.items()))
    print_table(("layer",), [[layer] for layer in layers])
    if others:
        typer.echo(f"not recurrent: {', '.join(others)}")


def _show_trace(path: Path, as_json: bool) -> None:
    made = _figures(path)
    try:
        trace = open_for_reading(path, trim=True)
    except TraceFormatError:
        if made is None:
            raise
        trace = None  # figures alone, no steps
    attributes = {} if trace is None else trace.attrs
    if as_json:
        layers = {} if trace is None else contents.layers_of(trace)
        said = {"attributes": attributes, "layers": layers}
        print_json(said | contents.reductions_of(made))
        return
    for name, value in attributes.items():
        typer.echo(f"{name}: {value}")
    if trace is not None and not attributes.get("complete"):
        typer.echo("Its writer was stopped: what follows is what is complete.")
    contents.print_contents(trace, made)


def _figures(path: Path) -> "xr.DataTree | None":
    """Return what was made of the steps, if anything was."""
    import everystate as es

    try:
        return es.open_reductions(path)
    except EverystateError:
        return None
