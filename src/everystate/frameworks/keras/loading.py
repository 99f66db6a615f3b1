"""Models from files: ``.keras``, and ``.h5`` of Keras 2 and 3. No code that is in them runs.

What changed between Keras 2 and 3 is put right (see `keras2`).
"""

import os
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final
from zipfile import is_zipfile

import keras

from everystate.errors import UnsupportedModelError
from everystate.frameworks.keras.finding import recurrent_layers
from everystate.frameworks.keras.keras2 import as_in_keras_2, is_of_keras_2, rewrite

SUFFIXES: Final = (".keras", ".h5", ".hdf5")
WAYS_OUT: Final = {
    "Lambda": "It holds a Lambda, which is code, and code from a file is not run. Build the model "
    "in Python, model.load_weights(file), and record the model.",
    "file signature": "It is none, or damaged.",
    "No model config": "It holds weights alone. Build the model in Python, "
    "model.load_weights(file), and record the model.",
}
"""What to do, by what the error says."""
CUSTOM: Final = (
    "Classes of your own must be known before: decorate them with "
    "keras.saving.register_keras_serializable(), import them, and record "
    "keras.saving.load_model(file)."
)


def opened(model: Any) -> Any:
    """Return the model that a path names; a model is returned as it is.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    UnsupportedModelError
        If it cannot be read without running code from it, or not at all.
    """
    if isinstance(model, keras.Layer):
        return model
    path = Path(os.fspath(model))
    found = path.stat()
    return _loaded(path, found.st_mtime_ns, found.st_size)


def reset(model: Any) -> None:
    """Have stateful layers start from zeros."""
    for _, layer in recurrent_layers(model):
        if layer.stateful and layer.built:
            layer.reset_state()


@lru_cache(maxsize=1)
def _loaded(path: Path, _changed: int, _size: int) -> Any:
    old = is_of_keras_2(path)
    with TemporaryDirectory() as folder:
        readable = path
        if old:
            readable = Path(folder) / f"model{path.suffix.lower()}"
            rewrite(path, readable)
        try:
            model = keras.saving.load_model(readable, compile=False, safe_mode=True)
        except (ValueError, TypeError, OSError, KeyError) as error:
            raise UnsupportedModelError(
                _why(path, str(error).replace(str(readable), path.name))
            ) from error
    if old:
        as_in_keras_2(model)
    return model


def _why(path: Path, text: str) -> str:
    if path.suffix == ".keras" and not is_zipfile(path):
        return f"{path}: this is no model of Keras, or it is damaged: a .keras file is a ZIP."
    ways = [way for sign, way in WAYS_OUT.items() if sign in text]
    first = text.strip().split("\n")[0]
    return f"{path}: Keras {keras.__version__} cannot load it: {first} {(ways or [CUSTOM])[0]}"
