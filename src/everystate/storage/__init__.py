"""Storage of traces as Zarr: written in blocks of time, opened lazily."""

from everystate.storage.epochs import save_epoch
from everystate.storage.reader import open_trace
from everystate.storage.reductions import open_reductions
from everystate.storage.save import save_trace

__all__ = ["open_reductions", "open_trace", "save_epoch", "save_trace"]
