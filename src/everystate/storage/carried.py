"""`Carried`: what a recording needs to go on: its model's state, exactly, and how far it has come.

The arrays are a file of their own, ``everystate.state-<step>.npz``, with a name of its own: the
mark, written after it, says which one is valid, so that state and steps always belong together.
"""

import io
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from everystate.errors import CorruptTraceError
from everystate.storage.mark import Mark

PATTERN: Final = "everystate.state-*.npz"


@dataclass(eq=False)
class Carried:
    """Where a recording stands.

    Parameters
    ----------
    step : int
        The next step of the input.
    rows : dict of str to int
        Recorded steps of each layer before it.
    arrays : sequence of ndarray
        The state, and whatever else is carried.
    facts : mapping
        What is told in JSON: how the arrays make a state, and what run this is.
    """

    step: int
    rows: Mapping[str, int]
    arrays: list[npt.NDArray[Any]] = field(default_factory=list)
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def _file(self) -> str:
        return PATTERN.replace("*", str(self.step))

    def save(self, folder: Path) -> dict[str, Any]:
        """Write the arrays, and return what the mark has to say of them."""
        stream = io.BytesIO()
        np.savez(stream, *self.arrays)
        content = stream.getvalue()
        (folder / self._file).write_bytes(content)
        return {
            "step": self.step,
            "rows": dict(self.rows),
            "facts": dict(self.facts),
            "file": self._file,
            "crc32": zlib.crc32(content),
        }

    @classmethod
    def load(cls, folder: Path, mark: Mark) -> Self:
        """Return where the recording in a folder stands.

        Raises
        ------
        CorruptTraceError
            If its state is missing or damaged.
        """
        said = mark.carried
        try:
            content = (folder / said["file"]).read_bytes()
            if zlib.crc32(content) != said["crc32"]:
                raise ValueError("its checksum does not match")
            with np.load(io.BytesIO(content), allow_pickle=False) as file:
                arrays = [file[f"arr_{k}"] for k in range(len(file.files))]
            return cls(said["step"], said["rows"], arrays, said["facts"])
        except (OSError, ValueError, LookupError) as error:
            raise CorruptTraceError(
                f"{folder}: the state to go on from is missing or damaged ({error}). What is "
                "complete can be opened with incomplete='trim'; to have the rest, record anew."
            ) from error

    def tidy(self, folder: Path) -> None:
        """Remove the states before this one."""
        for file in folder.glob(PATTERN):
            if file.name != self._file:
                file.unlink(missing_ok=True)

    @staticmethod
    def forget(folder: Path) -> None:
        """Remove all states: the recording is over."""
        for file in folder.glob(PATTERN):
            file.unlink(missing_ok=True)
