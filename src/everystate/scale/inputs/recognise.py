"""Which kind of source the inputs are."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import numpy as np

from everystate.errors import InputError, InputTypeError
from everystate.scale.inputs.arrays import Arrays
from everystate.scale.inputs.files import ENDINGS, Files
from everystate.scale.inputs.parquet import Parquet
from everystate.scale.inputs.source import Source

EXPECTED = (
    "a Zarr array or group, a Parquet data set, a list of files or of arrays, or an array "
    "(sequence, step, feature)"
)


def source_of(inputs: Any) -> Source:
    """Return the source that inputs stand for.

    Parameters
    ----------
    inputs : str, path-like, array, or iterable of them, or Source
        A path or URL that ends in ``.parquet``, or a folder with such files, is Parquet; one that
        ends in ``.npy`` is an array of all sequences; another folder with ``.npy`` or ``.npz``
        files is a list of these; everything else is opened as Zarr.

    Raises
    ------
    InputError
        If there is nothing, or nothing of these kinds.
    InputTypeError
        If it is of another type.
    """
    if hasattr(inputs, "part") and hasattr(inputs, "sizes"):
        return cast(Source, inputs)
    if isinstance(inputs, str | os.PathLike):
        return _at(os.fspath(inputs))
    if hasattr(inputs, "shape") and hasattr(inputs, "dtype"):
        return Arrays(inputs)
    if not isinstance(inputs, Iterable):
        raise InputTypeError(f"got inputs of type {type(inputs).__name__}, expected {EXPECTED}.")
    several = list(inputs)
    if not several:
        raise InputError(f"got no inputs; expected {EXPECTED}.")
    if all(isinstance(each, str | os.PathLike) for each in several):
        return Files(several)
    if any(isinstance(each, str | os.PathLike) for each in several):
        raise InputTypeError(f"got a list of paths and other things, expected {EXPECTED}.")
    return Arrays(several)


def _at(place: str) -> Source:
    if place.endswith(".parquet"):
        return Parquet(place)
    if "://" in place:
        return Arrays(place)
    path = Path(place)
    if not path.exists():
        raise InputError(f"{place}: there is nothing at this path. Expected {EXPECTED}.")
    if path.suffix == ".npy":
        return Arrays(np.load(path, mmap_mode="r", allow_pickle=False))
    if path.is_file():
        raise InputError(f"{place}: one file. Expected {EXPECTED}; a list of one is [{place!r}].")
    if any(path.rglob("*.parquet")):
        return Parquet(place)
    files = sorted(file for file in path.iterdir() if file.suffix in ENDINGS)
    return Files(files) if files else Arrays(place)
