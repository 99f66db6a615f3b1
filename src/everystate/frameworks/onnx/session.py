"""Running a model in onnxruntime: inputs checked, outputs by name."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from typing import Any, Final

import numpy as np
import onnxruntime

from everystate.errors import InputError, InputTypeError, UnsupportedModelError
from everystate.frameworks.onnx.files import Source, Tensor
from everystate.recording.observation import as_numpy

PROVIDERS: Final = ["CPUExecutionProvider"]
"""A kernel elsewhere may round inputs to fewer bits than a replay can follow."""
_QUIET: Final = 4
_SPINNING: Final = "session.force_spinning_stop"
_MISPLACED: Final = ["QDQPropagationTransformer"]
"""Moves the rounding of a value to where it is made: what is shown there would be rounded too."""
_FOLDER: Final = "session.model_external_initializers_file_folder_path"
_DTYPES: Final[Mapping[str, str]] = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(bool)": "bool",
    **{f"tensor({n})": n for n in ("float16", "int8", "int16", "int32", "int64")},
    **{f"tensor(u{n})": f"u{n}" for n in ("int8", "int16", "int32", "int64")},
}


@dataclass(eq=False)
class Session:
    """A model that is ready to run.

    Parameters
    ----------
    source : Source
        The model.

    Raises
    ------
    UnsupportedModelError
        If onnxruntime does not take the model.
    """

    source: Source

    def __post_init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = _QUIET  # what it would print, it also raises
        options.enable_cpu_mem_arena = False  # a value kept would keep the memory of all others
        options.add_session_config_entry(_SPINNING, "1")  # after a run: the replay comes next
        if self.source.folder is not None:
            options.add_session_config_entry(_FOLDER, str(self.source.folder.absolute()))
        try:
            serialized = self.source.proto.SerializeToString()
            self.own = onnxruntime.InferenceSession(
                serialized, options, providers=PROVIDERS, disabled_optimizers=_MISPLACED
            )
        except Exception as error:  # its classes of errors share no base but Exception
            raise UnsupportedModelError(
                f"{self.source.name}: onnxruntime {onnxruntime.__version__} does not take this "
                f"model: {error}"
            ) from error

    def run(self, outputs: Sequence[str], feeds: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return outputs by name.

        Raises
        ------
        InputError
            If the model fails on these inputs.
        """
        try:
            values = self.own.run(list(outputs), dict(feeds))
        except Exception as error:
            raise InputError(
                f"{self.source.name}: onnxruntime failed: {str(error).strip()}"
            ) from error
        return dict(zip(outputs, values, strict=True))

    def feeds(self, inputs: Sequence[Any]) -> dict[str, Tensor]:
        """Return arrays by the names of the model's inputs, checked and cast.

        Parameters
        ----------
        inputs : sequence
            One mapping by name, or arrays in the order of the model's inputs.

        Raises
        ------
        InputError
            If one is missing, unknown, or of another shape.
        InputTypeError
            If one holds another kind of numbers.
        """
        needed = {i.name: i for i in self.own.get_inputs()}
        known = needed | {i.name: i for i in self.own.get_overridable_initializers()}
        there = ", ".join(f"{i.name} {_shape(i)}" for i in needed.values())
        name = self.source.name
        if len(inputs) == 1 and isinstance(inputs[0], Mapping):
            given = {str(key): value for key, value in inputs[0].items()}
        elif len(inputs) > len(needed):
            raise InputError(f"{name}: got {len(inputs)} inputs, the model takes: {there}.")
        else:
            given = dict(zip(needed, inputs, strict=False))
        if unknown := [key for key in given if key not in known]:
            raise InputError(f"{name}: has no input {', '.join(unknown)}; it takes: {there}.")
        if missing := [key for key in needed if key not in given]:
            absent = f"input {missing[0]} is" if len(missing) == 1 else ""
            absent = absent or f"inputs {', '.join(missing)} are"
            raise InputError(
                f"{name}: the {absent} missing; it takes: {there}. Give "
                "{name: array}, or arrays in this order."
            )
        return {key: self._checked(known[key], value) for key, value in given.items()}

    @cached_property
    def _unranked(self) -> set[str]:
        """The inputs whose shape the model leaves open; onnxruntime shows them as scalars."""
        kinds = {v.name: v.type for v in self.source.proto.graph.input}
        return {n for n, kind in kinds.items() if not kind.tensor_type.HasField("shape")}

    def _checked(self, wanted: Any, value: Any) -> Tensor:
        where = f"{self.source.name}: the input {wanted.name}"
        if isinstance(value, str | PathLike):
            raise InputTypeError(
                f"{where} is {value!r}, expected an array. Files are read with store=, or by "
                "numpy.load."
            )
        if value is None:
            raise InputTypeError(f"{where} is None, expected an array.")
        try:
            array = as_numpy(value)
        except (TypeError, ValueError, RuntimeError) as error:
            raise InputTypeError(f"{where} is no array ({error}).") from error
        _check_shape(where, wanted, array, ranked=wanted.name not in self._unranked)
        dtype = _DTYPES.get(wanted.type)
        if dtype is None:
            return array
        if not _fits(array.dtype, np.dtype(dtype)):
            raise InputTypeError(f"{where} has dtype {array.dtype}, expected {dtype}.")
        return np.ascontiguousarray(array, dtype)


def _fits(given: "np.dtype[Any]", wanted: "np.dtype[Any]") -> bool:
    """Whether numbers can be cast without changing their kind: no floats into whole numbers."""
    kinds = {"f": "fiub", "i": "iub", "u": "iub", "b": "b"}
    return given.kind in kinds.get(wanted.kind, given.kind)


def _check_shape(where: str, wanted: Any, array: Tensor, *, ranked: bool) -> None:
    sizes = wanted.shape
    fits = len(sizes) == array.ndim and all(
        not isinstance(size, int) or size == got
        for size, got in zip(sizes, array.shape, strict=True)
    )
    if ranked and wanted.type.startswith("tensor") and not fits:
        hint = ""
        if array.ndim == len(sizes) - 1:
            hint = " Add the missing axis, x[:, None] or x[None]."
        raise InputError(f"{where} has shape {array.shape}, expected {_shape(wanted)}.{hint}")
    if 0 in array.shape:
        raise InputError(f"{where} has shape {array.shape}: it is empty.")


def _shape(wanted: Any) -> str:
    return f"({', '.join('?' if size is None else str(size) for size in wanted.shape)})"
