"""One thread at a time: what watches layers from outside cannot tell whose calls it sees."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from threading import Lock, get_ident
from typing import Any

from everystate.errors import BusyModelError

_lock = Lock()
_holders: dict[int, int] = {}
"""The thread that watches an object, by the object's id, for as long as it does."""


@contextmanager
def alone(watched: Iterable[tuple[str, Any]]) -> Iterator[None]:
    """Keep layers to this thread within the block.

    Parameters
    ----------
    watched : iterable of (str, object)
        The path of each layer, and the layer.

    Raises
    ------
    BusyModelError
        If another thread watches one of them.
    """
    me, layers = get_ident(), dict(watched)
    with _lock:
        for path, layer in layers.items():
            if _holders.get(id(layer), me) != me:
                raise BusyModelError(
                    f"{path or 'the model'} is being recorded in another thread, and its calls "
                    "here would look the same. Give each thread a model of its own "
                    "(copy.deepcopy), or let them take turns."
                )
        own = {id(layer) for layer in layers.values()} - _holders.keys()
        _holders.update(dict.fromkeys(own, me))
    try:
        yield
    finally:
        with _lock:
            for key in own:
                del _holders[key]
