"""Which framework module knows a model. The file name is the registration.

``frameworks/torch.py`` (or the folder ``frameworks/torch/``) is imported only if ``torch``
is in `sys.modules`: whoever holds one of its models has imported it already. Packages from
outside register by the entry-point group ``everystate.frameworks``, under the name of the
module that must be loaded for theirs to be asked.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from pkgutil import iter_modules
from typing import Any, Final, Protocol, cast

from everystate.errors import UnsupportedModelError
from everystate.recording.recorder import Recorder

GROUP: Final = "everystate.frameworks"


class Framework(Protocol):
    """What a framework module offers: these functions, and nothing else.

    ``everystate.testing.FrameworkContract`` holds the contract as tests.
    """

    def matches(self, model: object) -> bool:
        """Whether this framework knows `model`; asked first, must be cheap and never raise."""

    def layers(self, model: Any) -> Sequence[str]:
        """Return the leaf path of each recurrent layer and direction of `model`."""

    def observe(self, model: Any, recorder: Recorder) -> AbstractContextManager[object]:
        """Return a context in which every call of a recurrent layer reaches ``recorder.observe``.

        The model and its results must be the same inside and outside of it, and after it,
        also when the block ends by an exception.
        """

    def call(self, model: Any, inputs: Sequence[Any]) -> object:
        """Call the model once, without gradients, on arrays of NumPy or its own kind."""

    def unroll(self, layer: Any, *inputs: Any) -> object:
        """Return outputs, final state and every state of a layer or cell, differentiable."""


def framework_of(model: object) -> tuple[str, Framework]:
    """Return the name and module of the framework that knows `model`.

    Raises
    ------
    UnsupportedModelError
        If none does; the message lists those that were asked.
    """
    asked = []
    for name, module in _candidates(model):
        asked.append(name)
        if module.matches(model):
            return name, module
    if isinstance(model, type):
        raise UnsupportedModelError(
            f"got the class {model.__qualname__}, expected a model: {model.__qualname__}(...)."
        )
    raise UnsupportedModelError(
        f"no loaded framework knows a {type(model).__module__}.{type(model).__qualname__}; asked: "
        f"{', '.join(asked)}. Give a PyTorch module with recurrent layers, or the path of a "
        ".safetensors file with PyTorch's names."
    )


def _candidates(model: object) -> Iterator[tuple[str, Framework]]:
    makers = {cls.__module__.partition(".")[0] for cls in type(model).__mro__}
    # Its maker's module comes first.
    for name in sorted(_own_modules(), key=lambda name: name not in makers):
        if name in sys.modules:
            yield name, cast(Framework, import_module(f"everystate.frameworks.{name}"))
    for entry in entry_points(group=GROUP):
        if entry.name in sys.modules:
            yield entry.name, cast(Framework, entry.load())


@cache
def _own_modules() -> list[str]:
    package = import_module("everystate.frameworks")
    return sorted(found.name for found in iter_modules(package.__path__))
