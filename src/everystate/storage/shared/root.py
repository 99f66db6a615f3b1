"""`Root`: the folder or URL of a trace, and the small files beside its Zarr metadata."""

import os
import shutil
from pathlib import Path, PurePosixPath
from typing import Any, Self
from uuid import uuid4

from everystate.errors import MissingDependencyError, TraceWriteError

LOCAL = "file://"


class Root:
    """A place that holds a trace: a local folder, or any URL that fsspec knows.

    Parameters
    ----------
    place : str or path-like
        A path, or a URL such as ``s3://bucket/run.zarr`` or ``memory://run.zarr``.

    Raises
    ------
    MissingDependencyError
        If it is a URL, and fsspec or the package of its protocol is not installed.
    """

    def __init__(self, place: str | os.PathLike[str]) -> None:
        text = os.fspath(place).removeprefix(LOCAL)
        self.url: str | None = text if "://" in text else None
        self.folder = Path(text) if self.url is None else None
        self._fs: Any = None
        self._path = ""
        if self.url is not None:
            self._fs, self._path = _file_system(self.url)

    def __str__(self) -> str:
        """Return the path or URL."""
        return self.url or str(self.folder)

    def __reduce__(self) -> tuple[type[Self], tuple[str]]:
        """Travel to other processes as the path alone."""
        return type(self), (str(self),)

    def zarr_store(self) -> Any:
        """Return what Zarr and xarray open."""
        if self.folder is not None:
            return str(self.folder)
        from zarr.storage import FsspecStore

        return FsspecStore.from_url(str(self.url), read_only=False)

    def read(self, name: str) -> bytes | None:
        """Return a file's content; None if there is none."""
        try:
            if self.folder is not None:
                return (self.folder / name).read_bytes()
            content: bytes = self._fs.cat_file(self._at(name))
        except (FileNotFoundError, NotADirectoryError):
            return None
        return content

    def write(self, name: str, content: bytes) -> None:
        """Write a file, whole or not at all.

        A local one is written beside its place and renamed. Object stores put whole objects.
        """
        if self.folder is None:
            self._fs.pipe_file(self._at(name), content)
            return
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        fresh = file.with_name(f"{file.name}.{uuid4().hex}.partial")
        fresh.write_bytes(content)
        os.replace(fresh, file)

    def names(self, folder: str) -> list[str]:
        """Return the names of the files in a folder of the root, sorted; none if it is missing."""
        if self.folder is not None:
            there = self.folder / folder
            return sorted(file.name for file in there.iterdir()) if there.is_dir() else []
        try:
            found = self._fs.ls(self._at(folder), detail=False)
        except FileNotFoundError:
            return []
        return sorted(PurePosixPath(path).name for path in found)

    def is_empty(self) -> bool:
        """Whether nothing is there."""
        if self.folder is not None and self.folder.is_file():
            return False
        return not self.names("")

    def make(self) -> None:
        """Make the folder.

        Raises
        ------
        TraceWriteError
            If that cannot be.
        """
        try:
            if self.folder is not None:
                self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TraceWriteError(
                f"{self}: a folder cannot be made here: {error}. Choose a path where you may write."
            ) from error

    def remove(self, name: str) -> None:
        """Remove a file or folder and all that is in it."""
        if self.folder is None:
            self._fs.rm(self._at(name), recursive=True)
            return
        path = self.folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    def _at(self, name: str) -> str:
        return f"{self._path}/{name}".rstrip("/")


def _file_system(url: str) -> tuple[Any, str]:
    try:
        from fsspec.core import url_to_fs

        fs, path = url_to_fs(url)
    except ImportError as error:
        raise MissingDependencyError(
            f"{url}: {error}. URLs need fsspec: pip install 'everystate[scale]', and the "
            "package of their protocol, such as s3fs or gcsfs."
        ) from error
    except ValueError as error:
        raise TraceWriteError(
            f"{url}: {error}. Expected a path or a URL that fsspec knows."
        ) from error
    return fs, path
