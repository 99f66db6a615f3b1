"""Files of Keras 2: rewritten so that Keras 3 reads what the file means.

Three things changed without a word, or with one that does not help: recurrent layers lost
``time_major``; ``CuDNNLSTM`` and ``CuDNNGRU`` are gone, whose weights are blocks laid out for the
kernel (``tf_keras/src/saving/legacy/hdf5_format.py``: ``_convert_rnn_weights``); and
``hard_sigmoid`` is another function by the same name.
"""

import json
import shutil
from pathlib import Path
from typing import Any, Final
from zipfile import ZipFile, is_zipfile

import h5py
import keras
import numpy as np
import numpy.typing as npt

from everystate.errors import UnsupportedModelError
from everystate.frameworks.keras.activations import hard_sigmoid_keras2

METADATA: Final = "metadata.json"
CONFIG: Final = "config.json"
GATES: Final = {"CuDNNLSTM": 4, "CuDNNGRU": 3}
NOW: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "CuDNNLSTM": ("LSTM", {"activation": "tanh", "recurrent_activation": "sigmoid"}),
    "CuDNNGRU": ("GRU", {"recurrent_activation": "sigmoid", "reset_after": True}),
}
"""What each layer is called now, and the options that it had by its nature."""


def is_of_keras_2(path: Path) -> bool:
    """Whether a file is one that Keras 1 or 2 wrote: of HDF5, or a ``.keras`` of 2.12 and later."""
    if is_zipfile(path):
        with ZipFile(path) as file:
            if METADATA not in file.namelist():
                return False
            return str(json.loads(file.read(METADATA)).get("keras_version")).startswith("2.")
    if not h5py.is_hdf5(path):
        return False
    with h5py.File(path, "r") as file:
        version = file.attrs.get("keras_version", b"1")
    return not (version if isinstance(version, str) else bytes(version).decode()).startswith("3.")


def rewrite(path: Path, to: Path) -> None:
    """Copy a file of Keras 2 to one that Keras 3 reads.

    Parameters
    ----------
    path, to : path
        Of the file, and of the copy.

    Raises
    ------
    UnsupportedModelError
        If a layer reads time-major, which Keras 3 cannot.
    """
    if is_zipfile(path):
        _rewrite_archive(path, to)
        return
    shutil.copyfile(path, to)
    with h5py.File(to, "r+") as file:
        if "model_config" not in file.attrs:
            return  # weights alone; Keras says so
        config = json.loads(file.attrs["model_config"])
        fused: dict[str, int] = {}
        _renew(config, fused)
        file.attrs["model_config"] = json.dumps(config).encode()
        if fused:
            names: list[str] = []
            file["model_weights"].visit(names.append)
            for name in names:
                _convert(file["model_weights"], name, fused)


def _rewrite_archive(path: Path, to: Path) -> None:
    with ZipFile(path) as old, ZipFile(to, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == CONFIG:
                config = json.loads(content)
                _renew(config, {})  # layers for CuDNN were gone before there were such files
                content = json.dumps(config).encode()
            new.writestr(name, content)


def as_in_keras_2(model: Any) -> None:
    """Give every layer and cell the hard sigmoid of Keras 2 where it has that of Keras 3."""
    for layer in model._flatten_layers():
        for name in ("activation", "recurrent_activation"):
            if vars(layer).get(name) is keras.activations.hard_sigmoid:
                setattr(layer, name, hard_sigmoid_keras2)


def _renew(config: Any, fused: dict[str, int]) -> None:
    """Change a configuration in place; note which layers' weights are laid out for CuDNN."""
    if isinstance(config, list):
        for part in config:
            _renew(part, fused)
    if not isinstance(config, dict):
        return
    own = config.get("config")
    if isinstance(own, dict) and "class_name" in config:
        kind = config["class_name"]
        if own.pop("time_major", False):
            raise UnsupportedModelError(
                f"{own.get('name')}: reads (time, batch, features), time_major=True, which Keras 3 "
                "cannot. Build the model without time_major in Keras 3, give it these weights by "
                "layer.set_weights, and record that."
            )
        if kind == "Sequential":
            _give_input(own)
        if kind in NOW:
            fused[own["name"]] = GATES[kind]
            config["class_name"], options = NOW[kind]
            own |= options
    for part in config.values():
        _renew(part, fused)


def _give_input(own: dict[str, Any]) -> None:
    """Put the input before the first layer of a `Sequential` whose shape that layer tells."""
    first = own["layers"][0] if own.get("layers") else {}
    shape = first.get("config", {}).get("batch_input_shape")
    if shape is None or first.get("class_name") in (
        "InputLayer",
        "Sequential",
        "Functional",
        "Model",
    ):
        return
    del first["config"]["batch_input_shape"]
    given = {"batch_input_shape": shape, "name": f"{first['config']['name']}_input"}
    given["dtype"] = first["config"].get("dtype") or "float32"
    own["layers"].insert(0, {"class_name": "InputLayer", "config": given})


def _convert(group: Any, name: str, fused: dict[str, int]) -> None:
    """Give one weight of a CuDNN layer the layout of the layer that Keras has now."""
    *_, layer, weight = ("", *name.split("/"))[-3:]
    gates = next((n for f, n in fused.items() if layer in (f, f"forward_{f}", f"backward_{f}")), 0)
    if gates and isinstance(group[name], h5py.Dataset):
        a = np.asarray(group[name])
        del group[name]
        group[name] = _in_columns(weight.partition(":")[0], a, gates)


def _in_columns(weight: str, a: npt.NDArray[Any], gates: int) -> npt.NDArray[Any]:
    if weight == "bias":  # one on the input's side and one on the state's
        return a.reshape(2, -1) if gates == GATES["CuDNNGRU"] else a.reshape(2, -1).sum(axis=0)
    blocks = np.hsplit(a, gates)
    if weight == "kernel":
        return np.hstack([block.T.reshape(block.shape, order="F") for block in blocks])
    return np.hstack([block.T for block in blocks])
