"""Reading a model: a file, or a `ModelProto`; weights kept beside the file are read when needed.

Nothing of a file is executed here: it is parsed as protocol buffers, and external data are
looked for only inside the model's own folder (``onnx.external_data_helper`` refuses others).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path
from typing import Any, Final

import numpy.typing as npt
import onnx
from onnx import inliner, numpy_helper
from onnx.external_data_helper import load_external_data_for_tensor, uses_external_data

from everystate.errors import InputError, UnsupportedModelError, WeightsError

Tensor = npt.NDArray[Any]
SUFFIX: Final = ".onnx"


@dataclass(frozen=True, eq=False)
class Source:
    """A model as it was read.

    Parameters
    ----------
    name : str
        What it is called in messages.
    proto : onnx.ModelProto
        A copy of its own, with local functions inlined; external data are not loaded.
    folder : Path, optional
        Where its external data lie. None: a model in memory, whose tensors are all inside.
    """

    name: str
    proto: onnx.ModelProto
    folder: Path | None

    def array(self, tensor: onnx.TensorProto) -> Tensor:
        """Return a stored tensor as an array.

        Raises
        ------
        WeightsError
            If its data are missing or damaged.
        """
        try:
            if uses_external_data(tensor):
                copy = onnx.TensorProto()
                copy.CopyFrom(tensor)
                load_external_data_for_tensor(copy, str(self.folder or "."))
                tensor = copy
            array: Tensor = numpy_helper.to_array(tensor)
        except Exception as error:  # the reader lets through whatever goes wrong below it
            raise WeightsError(
                f"{self.name}: the tensor {tensor.name!r} cannot be read ({error}). Keep the files "
                "of a model together, as they were saved."
            ) from error
        return array


def is_model_file(model: object) -> bool:
    """Whether this is a path whose name ends in ``.onnx``."""
    return isinstance(model, str | PathLike) and str(fspath(model)).lower().endswith(SUFFIX)


def read_model(model: Any) -> Source:
    """Read a model.

    Parameters
    ----------
    model : path or onnx.ModelProto
        What to read; a `ModelProto` is copied, not changed.

    Raises
    ------
    InputError
        If there is no such file.
    WeightsError
        If it is no ONNX model, or is cut off.
    """
    proto = onnx.ModelProto()
    if isinstance(model, onnx.ModelProto):
        proto.CopyFrom(model)
        name = f"ModelProto {model.graph.name or '(without a name)'}"
        return Source(name, _inlined(name, _checked(name, proto)), None)
    path = Path(fspath(model))
    if not path.is_file():
        what = "a folder, expected a file" if path.is_dir() else "there is no such file"
        raise InputError(f"{path}: {what}.")
    try:
        proto = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf's errors share no class, and differ by version
        raise WeightsError(
            f"{path} cannot be read as an ONNX model ({type(error).__name__}: {error}). It is of "
            "another format, or its end is missing: copy or export it again."
        ) from error
    return Source(str(path), _inlined(str(path), _checked(str(path), proto)), path.parent)


def _checked(name: str, proto: onnx.ModelProto) -> onnx.ModelProto:
    """Refuse what could be parsed, as almost anything short can, but is no model."""
    if not proto.ir_version or not proto.graph.node or not proto.opset_import:
        raise WeightsError(
            f"{name} is no ONNX model: it has {len(proto.graph.node)} nodes and "
            f"{len(proto.opset_import)} operator sets. Export the model again."
        )
    return proto


def _inlined(name: str, proto: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with the functions that it defines itself put where they are called."""
    if not proto.functions:
        return proto
    try:
        return inliner.inline_local_functions(proto)
    except Exception as error:
        raise UnsupportedModelError(
            f"{name}: its local functions cannot be inlined ({error}). Inline them with "
            "onnx.inliner before recording."
        ) from error


def subgraphs(node: onnx.NodeProto) -> Iterator[tuple[str, onnx.GraphProto]]:
    """Yield the name and graph of each body that a node has."""
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.name, attribute.g


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """Return a node's attributes by name, texts as `str`."""
    found = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    return {name: _text(value) for name, value in found.items()}


def _text(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, list):
        return [_text(part) for part in value]
    return value
