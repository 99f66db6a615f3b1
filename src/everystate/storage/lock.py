"""A lock on the folder of a trace being written. The system drops it when the writer dies."""

import os
import sys
from pathlib import Path

if sys.platform != "win32":
    import fcntl


class FolderLock:
    """An advisory lock on a folder, held until `release`; it follows the folder when renamed.

    Where the system cannot lock folders (Windows, some network file systems) nobody is kept out.

    Raises
    ------
    BlockingIOError
        If another process holds it.
    """

    def __init__(self, folder: Path) -> None:
        self._file: int | None = None
        if sys.platform == "win32":
            return
        self._file = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.release()
            raise
        except OSError:
            self.release()

    def release(self) -> None:
        """Let others write."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


def is_being_written(folder: Path) -> bool:
    """Whether a living process is writing the trace in this folder, as far as can be known."""
    try:
        FolderLock(folder).release()
    except BlockingIOError:
        return True
    return False
