"""The options of `record` and `recording` for long sequences, and what they may be."""

import os
import re
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from typing import Any, Final, Literal, TypedDict

from everystate.errors import SelectionError
from everystate.recording.stream import Step
from everystate.streaming.around import Around

MEMORY: Final = "512MB"
"""What a streamed recording takes at most, if nothing is said."""

_UNITS: Final = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_AMOUNT: Final = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?\s*", re.IGNORECASE)


class Streaming(TypedDict, total=False):
    """Options for long sequences; the meaning of each stands in `everystate.record`."""

    store: str | os.PathLike[str] | None
    memory: int | str
    overwrite: bool
    resume: bool
    step: Step | None
    time_axis: int | None
    chunk: int | None
    stored_as: Literal["float16", "bfloat16", "int8"] | None
    around: Around | None
    reduce: Mapping[str, Any] | Iterable[Any] | Callable[[], Any] | None
    full: bool


def check_known(given: Mapping[str, Any]) -> None:
    """Raise TypeError for an option that there is not, as Python does."""
    for name in given:
        if name not in Streaming.__annotations__:
            known = ("select", "time", "batch", "progress", *Streaming.__annotations__)
            close = get_close_matches(name, known, n=1)
            hint = f" Did you mean {close[0]}=?" if close else f" There are {', '.join(known)}."
            raise TypeError(
                f"got an unexpected keyword argument {name!r}.{hint} One of the model's own goes "
                f"with it: functools.partial(model, {name}=...)."
            )


def streams(given: Mapping[str, Any]) -> bool:
    """Whether the options ask for a stream; raise if they need one and there is none.

    Raises
    ------
    SelectionError
        If an option has no meaning without ``store=`` or ``reduce=``, or `chunk` is none.
    """
    check_known(given)
    chunk = given.get("chunk")
    if chunk is not None and (type(chunk) is not int or chunk < 1):
        raise SelectionError(f"chunk={chunk!r}: expected an int of steps, 1 or more.")
    if given.get("store") is not None or given.get("reduce") is not None:
        _check_kept(given)
        return True
    for name, value in given.items():
        if value not in (None, False):
            raise SelectionError(
                f"{name}= is for recordings that are written as they come. Say where to, "
                "store='run.zarr', or what to make of them, reduce=."
            )
    return False


def _check_kept(given: Mapping[str, Any]) -> None:
    """Refuse to keep nothing, to keep what is not to be kept, and to keep it nowhere."""
    for name in ("resume", "overwrite", "around", "stored_as"):
        if given.get("store") is None and given.get(name):
            raise SelectionError(f"{name}= is for what is stored: say where, store='run.zarr'.")
    around = given.get("around")
    if around is not None and not isinstance(around, Around):
        raise SelectionError(
            f"around={around!r}: expected an es.Around, such as es.Around(before=100, after=20, "
            "steps=[5000])."
        )
    if given.get("full", True):
        return
    if given.get("reduce") is None:
        raise SelectionError("full=False keeps no steps: say what to make of them, reduce=.")
    if around is not None:
        raise SelectionError("full=False keeps no steps, around= some of them: give one of both.")


def bytes_of(memory: int | str) -> int:
    """Return an amount of memory in bytes.

    Parameters
    ----------
    memory : int or str
        Bytes, or a text such as ``"512MB"``, ``"1.5 GiB"``.

    Raises
    ------
    SelectionError
        If it is neither, or not above 0.

    Examples
    --------
    >>> bytes_of("1.5 GiB")
    1610612736
    """
    found = _AMOUNT.fullmatch(str(memory))
    amount = 0.0
    if found and not isinstance(memory, bool):
        base = 1024 ** " kmgt".index(found[2].lower() or " ") if found[3] else None
        amount = float(found[1]) * (base or _UNITS[found[2].lower()])
    if amount < 1:
        raise SelectionError(
            f"memory={memory!r}: expected an amount such as '512MB' or '2 GiB', or bytes."
        )
    return int(amount)
