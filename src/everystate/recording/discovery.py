"""Which framework module knows a model. The file name is the registration.

``frameworks/torch.py`` (or the folder ``frameworks/torch/``) is imported only if ``torch``
is in `sys.modules`: whoever holds one of its models has imported it already. Packages from
outside register by the entry-point group ``everystate.frameworks``, under the name of the
module that must be loaded for theirs to be asked. A model's file is known by its name's end,
and its framework is imported for it.
"""

import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cache, partial
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from pkgutil import iter_modules
from types import FunctionType
from typing import Any, Final, Protocol, cast

from everystate.errors import MissingDependencyError, ModelNotFoundError, UnsupportedModelError
from everystate.recording.recorder import Recorder

GROUP: Final = "everystate.frameworks"

FILES: Final[Mapping[str, str]] = {
    ".safetensors": "numpy",
    ".pb": "tensorflow",
    ".meta": "tensorflow",
    ".keras": "keras",
    ".h5": "keras",
    ".hdf5": "keras",
    ".onnx": "onnx",
}
"""Which framework module reads a model's file, by how its name ends."""


class Framework(Protocol):
    """What a framework module offers: these functions, and nothing else.

    ``everystate.testing.FrameworkContract`` holds the contract as tests. A module may also offer
    ``stream(model)``, which returns a `everystate.recording.stream.Stream` and lets long
    sequences be cut.
    """

    def matches(self, model: object) -> bool:
        """Whether this framework knows `model`; asked first, must be cheap and never raise."""

    def layers(self, model: Any) -> Sequence[str] | None:
        """Return the leaf path of each recurrent layer and direction of `model`.

        None where they are known only once it is called; `observe` then checks the selection.
        """

    def observe(self, model: Any, recorder: Recorder) -> AbstractContextManager[object]:
        """Return a context in which every call of a recurrent layer reaches ``recorder.observe``.

        The model and its results must be the same inside and outside of it, and after it,
        also when the block ends by an exception.
        """

    def call(self, model: Any, inputs: Sequence[Any]) -> object:
        """Call the model once, without gradients, on arrays of NumPy or its own kind."""

    def unroll(self, layer: Any, *inputs: Any, **options: Any) -> object:
        """Return outputs, final state and every state of a layer or cell, differentiable."""


def framework_of(model: object) -> tuple[str, Framework]:
    """Return the name and module of the framework that knows `model`.

    Raises
    ------
    ModelNotFoundError
        If it is a path at which there is nothing. No framework is loaded to find that out.
    UnsupportedModelError
        If none does; the message lists those that were asked.
    """
    asked = []
    if (named := framework_of_file(model)) is not None:
        path = os.fspath(cast(str, model))
        if not any(map(os.path.exists, (path, f"{path}.meta"))):
            raise not_found(Path(path))
        return named, _load(named)
    for name, module in _candidates(model):
        asked.append(name)
        if module.matches(model):
            return name, module
    if isinstance(model, type):
        raise UnsupportedModelError(
            f"got the class {model.__qualname__}, expected a model: {model.__qualname__}(...)."
        )
    raise UnsupportedModelError(
        f"{_unknown(model, asked)}. Give a model with recurrent layers, or the path of a file that "
        f"ends in one of {', '.join(FILES)}, or of a SavedModel's folder."
    )


def _unknown(model: object, asked: Sequence[str]) -> str:
    """Say what it is that no framework knows."""
    if isinstance(model, str | os.PathLike):
        return f"{model!r} names no file or folder that holds a model"
    kind = type(model)
    own = f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")
    if hasattr(model, "dtype") and hasattr(model, "shape"):
        return f"got an array, {own}, in the place of the model, which comes first"
    told = f"no loaded framework knows an object of type {own}; asked: {', '.join(asked)}"
    if isinstance(model, FunctionType):
        told += (
            ". Nobody can see into a plain function, but for JAX's: record the model that it "
            "calls, `with es.recording(model) as rec:` around the call"
        )
    return told


def not_found(path: Path) -> ModelNotFoundError:
    """Return the error for a model's file that is not there; it names those beside it."""
    beside = sorted(other.name for other in path.parent.glob(f"*{path.suffix}"))[:8]
    hint = f"Beside it there is {', '.join(beside)}." if beside else "Give the path of the model."
    return ModelNotFoundError(f"{path}: there is no such file or folder. {hint}")


def framework_of_file(model: object) -> str | None:
    """Return the name of the framework module that reads a model's file or folder, if any does.

    Parameters
    ----------
    model : object
        Whatever stands for a model; only a path is looked at, by its name.
    """
    if not isinstance(model, str | os.PathLike) or isinstance(fspath := os.fspath(model), bytes):
        return None
    path = Path(fspath)
    if (path / "saved_model.pb").is_file() or Path(f"{path}.meta").is_file():
        return "tensorflow"  # a SavedModel, or a checkpoint by the name that its Saver was given
    known = FILES.get(path.suffix.lower())
    return known if known in _own_modules() else None


def model_name(model: object) -> str:
    """Return what a model is called in messages and in the trace's attributes."""
    named = isinstance(model, str) or hasattr(model, "__fspath__")
    if named:
        return str(model)
    while isinstance(model, partial):
        model = model.func
    made_in_a_function = type(model).__qualname__.rpartition("<locals>.")[2]
    return str(getattr(model, "__name__", made_in_a_function))  # functions have a name


def no_layer(model: str, kinds: Iterable[str], known: str) -> UnsupportedModelError:
    """Return the error for a model in which there is nothing to record.

    Parameters
    ----------
    model : str
        What it is called.
    kinds : iterable of str
        What it is made of.
    known : str
        A sentence that says what would be recorded.
    """
    made_of = ", ".join(sorted(set(kinds))[:12])
    return UnsupportedModelError(
        f"{model} has no recurrent layer that everystate knows; it is made of {made_of}. {known}"
    )


def _load(name: str) -> Framework:
    """Return a framework module, whose library this imports.

    Raises
    ------
    MissingDependencyError
        If the library is not installed.
    """
    try:
        return cast(Framework, import_module(f"everystate.frameworks.{name}"))
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("everystate"):
            raise
        raise MissingDependencyError(
            f"this file is read with {error.name}, which is not installed. Try pip install "
            f"'everystate[{name}]'."
        ) from error


def _candidates(model: object) -> Iterator[tuple[str, Framework]]:
    makers = {cls.__module__.partition(".")[0] for cls in type(model).__mro__}
    # Its maker's module comes first.
    for name in sorted(_own_modules(), key=lambda name: name not in makers):
        if name in sys.modules:
            yield name, _load(name)
    for entry in entry_points(group=GROUP):
        if entry.name in sys.modules:
            yield entry.name, cast(Framework, entry.load())


@cache
def _own_modules() -> list[str]:
    package = import_module("everystate.frameworks")
    return sorted(found.name for found in iter_modules(package.__path__))
