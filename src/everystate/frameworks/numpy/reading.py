"""A ``.safetensors`` file: names and shapes at once, tensors as NumPy arrays when asked for.

The format holds a JSON header and raw numbers. Nothing in it is executed or unpickled:
https://github.com/huggingface/safetensors#format
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike, fspath
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from everystate.errors import WeightsError
from everystate.recording.discovery import not_found

SUFFIX: Final = ".safetensors"
FLOATS: Final = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
"""The format's floating dtypes that weights may have, by their code in the file."""

Tensor = npt.NDArray[Any]


class WeightsFile:
    """The tensors of one file.

    Parameters
    ----------
    path : str or path
        The file.

    Attributes
    ----------
    shapes : dict
        Shape of each tensor, by name.
    dtypes : dict
        The format's code of each tensor's dtype (``F32``), by name.
    metadata : dict of str to str
        What the writer of the file had to say.

    Raises
    ------
    WeightsError
        If the file cannot be read as safetensors.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self.path = Path(fspath(path))
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.dtypes: dict[str, str] = {}
        with self._open() as file:
            self.metadata: dict[str, str] = file.metadata() or {}
            for name in file.keys():  # noqa: SIM118 (it is not a mapping)
                part = file.get_slice(name)
                self.shapes[name] = tuple(part.get_shape())
                self.dtypes[name] = part.get_dtype()

    def read(self, name: str) -> Tensor:
        """Return one tensor; half precision as float32, which is exact.

        Raises
        ------
        WeightsError
            If there is no tensor of that name, or NumPy has nothing like its dtype.
        """
        if name not in self.shapes:
            raise WeightsError(f"{self.path} has no tensor {name!r}; it has {listed(self.shapes)}.")
        dtype = self.dtypes[name]
        if dtype == "BF16":  # NumPy has no such dtype
            return self._bfloat16(name)
        with self._open() as file:
            try:
                tensor: Tensor = file.get_tensor(name)
            except (SafetensorError, TypeError, AttributeError) as error:
                raise WeightsError(
                    f"{self.path}: {name} has dtype {dtype}, which NumPy cannot read. "
                    f"Convert it to one of {', '.join(FLOATS.values())}."
                ) from error
        return tensor.astype(np.float32) if dtype == "F16" else tensor

    def _bfloat16(self, name: str) -> Tensor:
        """Read the upper halves of float32 numbers."""
        with self.path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            begin, end = json.loads(file.read(size))[name]["data_offsets"]
            file.seek(8 + size + begin)
            upper = np.frombuffer(file.read(end - begin), "<u2")
        return (upper.astype(np.uint32) << 16).view(np.float32).reshape(self.shapes[name])

    @contextmanager
    def _open(self) -> Iterator[Any]:
        try:
            opened = safe_open(self.path, framework="np")
        except FileNotFoundError as error:
            raise not_found(self.path) from error
        except OSError as error:
            raise WeightsError(
                f"{self.path} cannot be read: {error}. Expected a {SUFFIX} file."
            ) from error
        except SafetensorError as error:
            raise WeightsError(
                f"{self.path} is no complete safetensors file ({error}). If PyTorch wrote it "
                "(.pt, .pth), convert it where PyTorch is: safetensors.torch.save_file("
                f"torch.load(old, weights_only=True), 'weights{SUFFIX}')."
            ) from error
        with opened as file:
            yield file


def listed(names: Any, most: int = 8) -> str:
    """Return names for a message, not more than it can bear."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return (", ".join(map(str, names[:most])) or "none") + more
