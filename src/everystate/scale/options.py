"""`Batching`: how the sequences are given to the model."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypedDict

from everystate.errors import SelectionError
from everystate.scale.result import Progress


class Options(TypedDict, total=False):
    """Further options of `record_many`, where the meaning of each stands."""

    progress: Progress | None
    reduce: Mapping[str, Any] | Iterable[Any] | Callable[[], Any] | None
    full: bool


@dataclass(frozen=True)
class Batching:
    """How many sequences a model reads at once, and how they are laid out for it.

    Parameters
    ----------
    batch : int
        The most sequences that the model is called with at once. Default: 32.
    pad : bool
        Whether sequences of different lengths may share a call, padded at their ends with
        zeros; what is past a sequence's end is not stored. Default: only sequences of the very
        same length share one, which is right for every model. Padding is right where no step
        depends on later ones, nor on other rows: this is tried once, on the shortest sequence,
        and refused if its states differ.
    time_first : bool
        Whether the model takes (time, batch, features). Default: (batch, time, features).
    memory : int or str
        What a worker may hold of a trace at once, such as ``"512MB"``. Fewer sequences share a
        call if it is too little for `batch` of them; a sequence that alone needs more is recorded
        in chunks of time, by way of a trace in the worker's folder for temporary files. Default:
        512 MB.
    rows : int, optional
        Sequences of a shard, which is recorded by one worker and done again if that dies.
        Default: as many as make files of about 8 MiB.

    Raises
    ------
    SelectionError
        If a number is below 1, or `memory` is none.
    """

    batch: int = 32
    pad: bool = False
    time_first: bool = False
    memory: int | str = "512MB"
    rows: int | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot mean anything."""
        for name in ("batch", "rows"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < 1):
                raise SelectionError(f"{name}={value!r}: expected a whole number, 1 or more.")
        if self.bytes < 1:
            raise SelectionError(f"memory={self.memory!r}: expected 1 byte or more.")

    @cached_property
    def bytes(self) -> int:
        """`memory` in bytes."""
        from dask.utils import parse_bytes

        try:
            return int(parse_bytes(self.memory))
        except (ValueError, TypeError, AttributeError):
            raise SelectionError(
                f"memory={self.memory!r}: expected a number of bytes, such as '512MB'."
            ) from None
