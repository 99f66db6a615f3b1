"""``everystate info``: versions, the layers of a model, the contents of a trace."""

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from everystate.cli.arguments.model import Running, layers_of, open_model
from everystate.cli.arguments.trace import open_for_reading
from everystate.cli.output import contents
from everystate.cli.output.document import AsJson, print_json, print_table

CORE: Final = ("everystate", "numpy", "xarray", "zarr", "safetensors", "typer", "rich")
OPTIONAL: Final = {
    "torch": "models of PyTorch",
    "bokeh": "reports",
    "jinja2": "reports",
    "pyarrow": ".parquet files",
}
"""What works only with further packages."""


def info(
    subject: Annotated[
        str | None,
        typer.Argument(
            metavar="[MODEL|TRACE]",
            help="weights.safetensors or package.module:attribute; or the folder of a trace.",
            show_default=False,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say what is installed; or which layers a model has; or what a trace holds."""
    if subject is None:
        _show_versions(as_json)
    elif subject.endswith(".safetensors") or (":" in subject and not Path(subject).exists()):
        _show_model(subject, as_json)
    else:
        _show_trace(Path(subject), as_json)


def _show_versions(as_json: bool) -> None:
    versions = {name: _version(name) for name in ("python", *CORE, *OPTIONAL)}
    if as_json:
        print_json({"versions": versions, "platform": platform.platform()})
        return
    rows = [
        [name, found or "not installed", OPTIONAL.get(name, "")] for name, found in versions.items()
    ]
    print_table(("package", "version", "for"), rows)


def _version(name: str) -> str | None:
    if name == "python":
        return platform.python_version()
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _show_model(name: str, as_json: bool) -> None:
    model = open_model(name, Running())
    stacks = {key: stack.describe() for key, stack in model.items()} if _loaded(model) else {}
    others = {key: list(shape) for key, shape in model.others.items()} if _loaded(model) else {}
    layers = list(layers_of(model))
    if as_json:
        print_json({"model": name, "layers": layers, "stacks": stacks, "other_tensors": others})
        return
    if stacks:
        print_table(("stack", "what it is"), list(stacks.items()))
    print_table(("layer",), [[layer] for layer in layers])
    if others:
        typer.echo(f"not recurrent: {', '.join(others)}")


def _loaded(model: Any) -> bool:
    """Whether a model is what a weights file holds."""
    return hasattr(model, "others")


def _show_trace(path: Path, as_json: bool) -> None:
    trace = open_for_reading(path, trim=True)
    if as_json:
        print_json({"attributes": trace.attrs, "layers": contents.layers_of(trace)})
        return
    for name, value in trace.attrs.items():
        typer.echo(f"{name}: {value}")
    if not trace.attrs.get("complete"):
        typer.echo("Its writer was stopped: what follows is what is complete.")
    contents.print_layers(trace)
