"""Files, each a sequence."""

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from everystate.errors import InputError
from everystate.scale.inputs.source import Sizes, Values, as_sequence, sizes_of

ENDINGS = (".npy", ".npz")
"""Kinds of file that `read_array` reads."""


class Files:
    """Files, each a sequence of (steps, features), or of (steps,) for one feature.

    Parameters
    ----------
    paths : sequence of str or path-like
        Paths, or URLs that fsspec knows. They must be reachable from every worker.
    read : callable, optional
        Takes a path, returns an array. Default: ``.npy``, and ``.npz`` with one array.

    Raises
    ------
    InputError
        If there are none.

    Examples
    --------
    >>> import numpy as np
    >>> np.save("a.npy", np.zeros((7, 2)))
    >>> Files(["a.npy"]).sizes().steps.tolist()
    [7]
    """

    def __init__(
        self, paths: Sequence[str | os.PathLike[str]], read: Callable[[str], Any] | None = None
    ) -> None:
        self._paths = [os.fspath(path) for path in paths]
        self._read = read
        if not self._paths:
            raise InputError("got no files; expected one or more, each a sequence.")

    @property
    def count(self) -> int:
        """Number of files."""
        return len(self._paths)

    @property
    def cheap(self) -> bool:
        """Files are opened by the workers."""
        return False

    def names(self) -> list[str]:
        """Return the paths."""
        return list(self._paths)

    def part(self, start: int, stop: int) -> "Files":
        """Return some of the files."""
        return Files(self._paths[start:stop], self._read)

    def sizes(self) -> Sizes:
        """Return the size of each; of an ``.npy`` file only the head is read."""
        return sizes_of(self._one(path, head=True) for path in self._paths)

    def read(self) -> list[Values | str]:
        """Return what is in each."""
        return [self._one(path) for path in self.names()]

    def _one(self, path: str, *, head: bool = False) -> Values | str:
        try:
            if self._read is not None:
                return as_sequence(path, self._read(path))
            return as_sequence(path, read_array(path, mapped=head))
        except Exception as error:  # a reader of the user's may raise anything; the file is named
            said = str(error) or type(error).__name__
            return said if path in said else f"{path}: {said}"


def read_array(path: str, *, mapped: bool = False) -> Any:
    """Read an array that NumPy wrote, from a path or URL; never Python objects.

    With `mapped`, the values of a local ``.npy`` file are left on the disk.
    """
    if not path.endswith(ENDINGS):
        raise InputError(
            f"{path}: expected {' or '.join(ENDINGS)}. For other files give a function that reads "
            "one: es.scale.Files(paths, read=lambda path: pandas.read_csv(path).to_numpy())"
        )
    if "://" not in path:
        mode: Any = "r" if mapped else None
        return _only(path, np.load(path, mmap_mode=mode, allow_pickle=False))
    import fsspec

    with fsspec.open(path, "rb") as file:
        return _only(path, np.load(file, allow_pickle=False))


def _only(path: str, loaded: Any) -> Any:
    if isinstance(loaded, np.ndarray):
        return loaded
    with loaded:
        if len(loaded.files) != 1:
            raise InputError(f"{path}: holds {', '.join(loaded.files)}; expected one array.")
        return loaded[loaded.files[0]]
