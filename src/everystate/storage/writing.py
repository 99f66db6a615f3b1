"""`writing`: a place to write a trace to, let go however the writing ends."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from everystate.errors import TraceWriteError
from everystate.storage.place import Place, taken
from everystate.storage.refusal import refusal


@contextmanager
def writing(
    path: str | os.PathLike[str], *, overwrite: bool = False, resume: bool = False
) -> Iterator[Place]:
    """Take a place for the time of a block.

    If the block raises, what is complete is kept, and what nobody can use is removed.

    Parameters
    ----------
    path : str or path-like
        Where the trace shall be.
    overwrite, resume : bool
        As of `Place`.

    Yields
    ------
    Place

    Raises
    ------
    TraceWriteError
        If the path is taken, the folder cannot be made, or the disk refuses what the block
        writes: then it also says what is complete.
    """
    place = taken(path, overwrite=overwrite, resume=resume)
    try:
        yield place
    except BaseException as error:
        reason = refusal(error, place.folder)
        left = place.tidy()
        if reason is None:
            raise
        raise TraceWriteError(f"{path}: {reason} {left}") from error
    finally:
        place.release()
