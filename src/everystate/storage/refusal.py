"""Why the disk refused, in words, and what to do."""

import errno
import shutil
from pathlib import Path

from everystate.errors import EverystateError

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def refusal(error: BaseException, folder: Path) -> str | None:
    """Say why the disk refused to take a trace; None if it was not the disk.

    Parameters
    ----------
    error : BaseException
        What was raised while the trace was written.
    folder : Path
        Where it was written.
    """
    # A damaged source, read while it is saved, is an OSError too, but has said so itself.
    if not isinstance(error, OSError) or isinstance(error, EverystateError):
        return None
    if error.errno not in NO_ROOM:
        return f"the trace could not be written: {error}."
    free = shutil.disk_usage(folder.parent).free
    return (
        f"there is no room left for the trace ({error.strerror}; {free / 1e6:,.1f} MB free). Free "
        "some, choose another disk, or record less: variables=, units=, every= or dtype= of Select."
    )
