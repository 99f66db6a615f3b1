"""Objects that are watched while a function is traced: for that time they are of another class.

A class made for one object's place in the model calls its base class and tags what goes in and
out. The mark survives whatever JAX's libraries do to a model on the way into a transformed
function, which take it apart and build it anew from its class and its arrays.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

Watch = Callable[..., Any]
"""Called with the path, the base class's ``__call__`` bound to the object, the object, and what
the object was called with."""


@cache
def watched_class(base: type, path: str, watch: Watch) -> type:
    """Return a subclass of `base` whose calls go through `watch`; the same for the same place."""

    def __call__(self: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N807
        return watch(path, base.__call__.__get__(self), self, *args, **kwargs)

    names = {"__call__": __call__, "__module__": base.__module__, "__doc__": base.__doc__}
    return type(base)(base.__name__, (base,), names)


@contextmanager
def watched(places: Sequence[tuple[str, Any]], watch: Watch) -> Iterator[None]:
    """Watch objects within the block.

    Parameters
    ----------
    places : sequence of (str, object)
        The path of each in the model.
    watch : callable
        What their calls go through.
    """
    before = [(one, type(one)) for _, one in places]
    try:
        for path, one in places:
            cls: Any = type(one)
            object.__setattr__(one, "__class__", watched_class(cls, path, watch))
        yield
    finally:
        for one, cls in before:
            object.__setattr__(one, "__class__", cls)


@contextmanager
def as_it_was(one: Any) -> Iterator[None]:
    """Give a watched object its own class within the block."""
    cls = type(one)
    object.__setattr__(one, "__class__", cls.__mro__[1])
    try:
        yield
    finally:
        object.__setattr__(one, "__class__", cls)
