"""MODEL: a model's file, or ``package.module:attribute`` in code of the user's own."""

import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from inspect import isfunction
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import typer

from everystate.errors import EverystateError, UnsupportedModelError

HELP = "a model's file, or package.module:attribute (a model, or what returns one)"
ModelName = Annotated[str, typer.Argument(metavar="MODEL", help=HELP)]


@dataclass
class Running:
    """The options that say how a model is run."""

    time_first: Annotated[
        bool | None,
        typer.Option(
            "--time-first/--batch-first",
            show_default=False,
            help="The model's layout. Weights read (batch, time, features) by default. A model "
            "from Python gets the data as they are, unless one of these adds a batch of one to a "
            "single sequence.",
        ),
    ] = None
    nonlinearity: Annotated[
        str | None,
        typer.Option(help="Of simple RNNs in a weights file: tanh (default) or relu."),
    ] = None


def open_model(name: str, running: Running) -> Any:
    """Return the model that MODEL names.

    Parameters
    ----------
    name : str
        Path of a ``.safetensors`` file or of another that a framework module reads, or
        ``package.module:attribute``. The module is imported, from the current folder too; what
        it prints goes to stderr.
    running : Running
        How it is to be run.

    Raises
    ------
    WeightsError
        If the file does not hold recurrent layers that can be run.
    UnsupportedModelError
        If there is no such attribute, or what it gives is no model that everystate knows.
    """
    from everystate.recording.discovery import framework_of_file

    if name.endswith(".safetensors"):
        from everystate.frameworks.numpy import load

        return load(name, batch_first=not running.time_first, nonlinearity=running.nonlinearity)
    if running.nonlinearity is not None:
        raise typer.BadParameter("is for weights files only.", param_hint="--nonlinearity")
    if framework_of_file(name) is not None:
        return name
    place, _, attribute = name.partition(":")
    if not place or not attribute:
        raise UnsupportedModelError(f"{name}: expected {HELP}.{_hint(name)}")
    with redirect_stdout(sys.stderr):
        return _as_model(name, _attribute(_import(place), attribute))


def from_weights(model: object) -> bool:
    """Whether a model is what a ``.safetensors`` file holds: stacks by name."""
    return isinstance(model, Mapping)


def other_tensors(model: Any) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a weights file's tensors that belong to no recurrent layer."""
    return dict(model.others) if from_weights(model) else {}


def layers_of(model: Any) -> Sequence[str]:
    """Return the leaf path of each recurrent layer and direction of a model."""
    from everystate.recording.discovery import framework_of

    return framework_of(model)[1].layers(model) or ()


def _hint(name: str) -> str:
    from everystate.recording.discovery import framework_of_file

    if Path(name).suffix in (".pt", ".pth", ".bin", ".ckpt"):
        return (
            " A checkpoint of PyTorch may run any code when it is opened. Convert it where it "
            "comes from: safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')."
        )
    path = Path(name)
    files = [p.name for p in path.parent.glob("*") if framework_of_file(p)] if name else []
    if close := get_close_matches(path.name, files, n=3, cutoff=0.8):
        return f" There is no file {name}. Beside it there is {', '.join(close)}."
    return f" Which attribute of it? Try {name.removesuffix('.py')}:model." if name else ""


def _import(name: str) -> ModuleType:
    if "" not in sys.path:
        sys.path.insert(0, "")  # the current folder, as `python -m` has it
    try:
        return import_module(name)
    except Exception as error:
        hint = " Say module:attribute, without .py." if name.endswith(".py") else ""
        raise UnsupportedModelError(
            f"importing {name} from {Path.cwd()} failed: {type(error).__name__}: {error}.{hint}"
        ) from error


def _attribute(module: ModuleType, path: str) -> Any:
    found: Any = module
    for name in path.split("."):
        try:
            found = getattr(found, name)
        except AttributeError:
            there = [n for n in dir(found) if not n.startswith("_")]
            close = get_close_matches(name, there, n=1)
            hint = f"Did you mean {close[0]}?" if close else f"It has {', '.join(there[:12])}."
            raise UnsupportedModelError(
                f"{getattr(found, '__name__', found)} has no attribute {name!r}. {hint}"
            ) from None
    return found


def _as_model(name: str, found: Any) -> Any:
    """Return a model as it is, and what a callable returns in its place."""
    from everystate.recording.discovery import framework_of

    # A plain function is a model of JAX too; here it is what returns one.
    if not isfunction(found):
        try:
            framework_of(found)
        except UnsupportedModelError as error:
            if not callable(found):
                raise UnsupportedModelError(
                    f"{name} is of type {type(found).__name__}: {error}"
                ) from None
        else:
            return found
    try:
        made = found()
    except EverystateError:
        raise
    except Exception as error:
        raise UnsupportedModelError(
            f"{name} is no model but callable, and calling it without arguments failed: "
            f"{type(error).__name__}: {error}. Give a model, or a function that returns one."
        ) from error
    try:
        framework_of(made)
    except UnsupportedModelError as error:
        raise UnsupportedModelError(f"{name}() is of type {type(made).__name__}: {error}") from None
    return made
