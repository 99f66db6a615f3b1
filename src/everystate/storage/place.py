"""`Place`: where a trace is written, so that nothing of value is ever half there.

A new trace appears at its path once it is laid out and can be opened, as incomplete. One that
replaces another is written beside it, under ``<name>.writing``, and swapped in at the end.
"""

import os
import shutil
from pathlib import Path

from everystate.errors import EverystateError, TraceWriteError
from everystate.storage.lock import FolderLock, is_being_written
from everystate.storage.mark import FILE_NAME, Mark

WRITING = ".writing"
REPLACED = ".replaced"

ZARR_FILES = (FILE_NAME, "zarr.json", ".zgroup")


class Place:
    """A path taken for writing.

    Parameters
    ----------
    path : str or path-like
        Where the trace shall be.
    overwrite : bool
        Whether to replace the Zarr store that is there.
    resume : bool
        Whether to go on with a recording that was stopped, if there is one.

    Attributes
    ----------
    folder : Path
        Where to write; it changes with `publish` and `replace`.
    replaces : bool
        Whether there is something to replace.
    resumed : Mark or None
        The mark of the recording that goes on, if one does.

    Raises
    ------
    TraceWriteError
        If the path is taken, or somebody else is writing there.
    OSError
        If a folder cannot be made there.
    """

    def __init__(self, path: str | os.PathLike[str], overwrite: bool, resume: bool = False) -> None:
        if "://" in os.fspath(path):
            raise TraceWriteError(
                f"{path}: traces are written to local folders only. Save it to one and copy that "
                "folder, or use trace.to_zarr with a store of zarr."
            )
        # A link is followed: what it points to is replaced, not the link.
        self._target = Path(path).resolve()
        self.folder, self._old = (
            self._target.with_name(self._target.name + end) for end in (WRITING, REPLACED)
        )
        found = stopped(path) if resume else None
        self.resumed = None
        if found is not None:
            self.folder, self.resumed = found
            self.replaces = self.folder != self._target and _is_store(self._target)
        else:
            self.replaces = _must_replace(self._target, overwrite)
            for folder in (self.folder, self._old):
                _check_leftover(folder)
            self.folder.mkdir(parents=True, exist_ok=True)
        try:
            self._lock = FolderLock(self.folder)
        except BlockingIOError as error:
            raise _busy(self._target) from error
        if self.resumed is None:
            for child in self.folder.iterdir():
                shutil.rmtree(child) if child.is_dir() else child.unlink()

    def publish(self) -> None:
        """Let a new trace appear at its path, laid out but incomplete."""
        if self.replaces or self.folder == self._target:
            return
        if self._target.is_dir():
            self._target.rmdir()  # It was empty. Windows would not rename onto it.
        self.folder.rename(self._target)
        self.folder = self._target

    def replace(self) -> None:
        """Let the finished trace take the place of the old one."""
        if not self.replaces:
            return
        if self._old.exists():
            shutil.rmtree(self._old)
        self._target.rename(self._old)
        try:
            self.folder.rename(self._target)
        except BaseException:
            self._old.rename(self._target)
            raise
        self.folder = self._target

    def discard(self) -> None:
        """Remove what was written, and free its room; not what has replaced the old trace."""
        if not self._has_replaced:
            shutil.rmtree(self.folder, ignore_errors=True)

    def tidy(self) -> str:
        """Keep of an interrupted trace only what can be used, and say what that is."""
        mark = Mark.load(self.folder)
        can_go_on = mark is not None and "step" in mark.carried
        if mark is not None and (can_go_on or (mark.steps_done and not self.replaces)):
            go_on = ", or go on with resume=True" if can_go_on else ""
            return (
                f"Completely written: {mark.describe()}. Open that with "
                f"es.open_trace({str(self.folder)!r}, incomplete='trim'){go_on}."
            )
        self.discard()
        return (
            "The trace that was there is untouched." if self.replaces else "Nothing is left of it."
        )

    def release(self) -> None:
        """Let others write here; the replaced trace goes."""
        self._lock.release()
        if self._has_replaced:
            # What cannot be removed now is removed when the trace is next replaced.
            shutil.rmtree(self._old, ignore_errors=True)

    @property
    def _has_replaced(self) -> bool:
        return self.replaces and self.folder == self._target


def stopped(path: str | os.PathLike[str]) -> tuple[Path, Mark] | None:
    """Return folder and mark of a recording that was stopped and can go on; None without one."""
    target = Path(path).resolve()
    for folder in (target.with_name(target.name + WRITING), target):
        mark = Mark.load(folder)
        if mark is not None and "step" in mark.carried:
            return folder, mark
    return None


def taken(path: str | os.PathLike[str], *, overwrite: bool, resume: bool = False) -> Place:
    """Return a `Place`, or raise `TraceWriteError` also where a folder cannot be made."""
    try:
        return Place(path, overwrite, resume)
    except EverystateError:
        raise
    except OSError as error:
        raise TraceWriteError(
            f"{path}: a folder cannot be made here: {error}. Choose a path where you may write."
        ) from error


def _must_replace(target: Path, overwrite: bool) -> bool:
    """Whether there is a store to replace; raise if there is something else."""
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return False
    if not _is_store(target):
        raise TraceWriteError(
            f"{target}: there is something that is not a Zarr store, and it is never overwritten. "
            "Choose another path, or remove it yourself."
        )
    if is_being_written(target):
        raise _busy(target)
    if not overwrite:
        go_on = " Go on with what was stopped there: resume=True." if stopped(target) else ""
        raise TraceWriteError(
            f"{target}: the path is taken. Choose another, or replace what is there: "
            f"overwrite=True.{go_on}"
        )
    return True


def _is_store(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ZARR_FILES)


def _busy(target: Path) -> TraceWriteError:
    return TraceWriteError(
        f"{target}: this trace is being written now, by another process or thread. Wait for it, "
        "or choose another path."
    )


def _check_leftover(folder: Path) -> None:
    """Raise if a name that is needed while writing belongs to something that we did not leave."""
    names = [child.name for child in folder.iterdir()] if folder.exists() else []
    # The mark is the first file of all, under a passing name.
    if names and not any(name.startswith(ZARR_FILES) for name in names):
        raise TraceWriteError(
            f"{folder}: this name is needed while writing, and something that is not a Zarr store "
            "has it. Move it away, or choose another path."
        )
