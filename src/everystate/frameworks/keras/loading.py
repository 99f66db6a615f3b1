"""Models from files: ``.keras``, and ``.h5`` of Keras 2 and 3."""

import os
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import keras

from everystate.errors import UnsupportedModelError
SUFFIXES: Final = (".keras", ".h5", ".hdf5")


def opened(model: Any) -> keras.Layer:
    """Return the model that a path names; a model is returned as it is."""
    if isinstance(model, keras.Layer):
        return model
    path = Path(os.fspath(model))
    found = path.stat()
    return _loaded(path, found.st_mtime_ns, found.st_size)


@lru_cache(maxsize=1)
def _loaded(path: Path, _changed: int, _size: int) -> keras.Layer:
    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:
        raise UnsupportedModelError(f"{path}: {error}") from error
