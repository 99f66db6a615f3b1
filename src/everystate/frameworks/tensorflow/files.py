"""Read a graph from a file: frozen, of a MetaGraph with its checkpoint, or of a SavedModel."""

import os
from pathlib import Path
from typing import Any, Final

import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.framework import graph_pb2
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2
from tensorflow.python.framework.convert_to_constants import (
    convert_variables_to_constants_from_session_graph,
    convert_variables_to_constants_v2,
)

from everystate.errors import InputError

LOOPS: Final = ("Exit", "While", "StatelessWhile", "BlockLSTM", "BlockLSTMV2")


def is_graph_file(path: object) -> bool:
    """Whether a path looks like a graph's: ``.pb``, ``.meta``, a checkpoint, a SavedModel."""
    if not isinstance(path, (str, os.PathLike)):
        return False
    path = os.fspath(path)
    if not isinstance(path, str):
        return False
    beside = f"{path}.meta", os.path.join(path, "saved_model.pb")
    return path.endswith((".pb", ".meta")) or any(map(os.path.isfile, beside))


def read_graph(
    path: str | os.PathLike[str], signature: str = "serving_default"
) -> graph_pb2.GraphDef:
    """Read a graph, its weights in it as constants and its functions put inline.

    Parameters
    ----------
    path : path
        Of a frozen graph (``.pb``), of a MetaGraph with its checkpoint beside it
        (``model.ckpt.meta``, or ``model.ckpt`` as a Saver calls it), or of a SavedModel (its
        folder, or its ``saved_model.pb``).
    signature : str
        Which function of a SavedModel.

    Returns
    -------
    GraphDef
        Ready for `tap`, and for ``tf.import_graph_def``.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    InputError
        If it is no graph, its checkpoint is missing, or the SavedModel has no such function.
    """
    path = Path(path)
    if (meta := Path(f"{path}.meta")).is_file():
        path = meta
    if path.name == "saved_model.pb":
        path = path.parent
    if path.is_dir():
        return _of_saved_model(path, signature)
    if path.suffix == ".meta":
        return _of_meta_graph(path)
    return _frozen(path)


def _frozen(path: Path) -> graph_pb2.GraphDef:
    graph, content = graph_pb2.GraphDef(), path.read_bytes()
    try:
        graph.ParseFromString(content)
    except DecodeError:
        graph.Clear()
    if not graph.node or not all(n.op for n in graph.node):
        saved = _parsed(saved_model_pb2.SavedModel(), content)
        what = (
            "it is a SavedModel; give its folder, with the variables in it"
            if saved is not None and saved.meta_graphs
            else "it is none, or damaged. Expected graph.as_graph_def(), serialised"
        )
        raise InputError(f"{path}: cannot be read as a frozen GraphDef: {what}.")
    return graph


def _parsed(message: Any, content: bytes) -> Any:
    try:
        message.ParseFromString(content)
    except DecodeError:
        return None
    return message


def _of_meta_graph(path: Path) -> graph_pb2.GraphDef:
    prefix = str(path.with_suffix(""))
    meta = _parsed(meta_graph_pb2.MetaGraphDef(), path.read_bytes())
    if meta is None or not meta.graph_def.node:
        raise InputError(f"{path}: cannot be read as a MetaGraph: it is none, or damaged.")
    if not tf.train.latest_checkpoint(str(path.parent)) and not tf.io.gfile.glob(f"{prefix}.index"):
        raise InputError(f"{path}: the checkpoint's {Path(prefix).name}.index is not beside it.")
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        saver = tf.compat.v1.train.import_meta_graph(meta, clear_devices=True)
        saver.restore(session, prefix)
        return with_values(session)


def with_values(session: Any) -> graph_pb2.GraphDef:
    """Return what of a session's graph leads to its loops, with its variables as constants."""
    definition = session.graph.as_graph_def()
    kept = [n.name for n in definition.node if n.op in LOOPS]
    return convert_variables_to_constants_from_session_graph(session, definition, kept)


def _of_saved_model(path: Path, signature: str) -> graph_pb2.GraphDef:
    model = tf.saved_model.load(str(path))
    if signature not in model.signatures:
        there = ", ".join(model.signatures) or "none"
        raise InputError(
            f"{path}: the SavedModel has no signature {signature!r}; there are: {there}."
        )
    function = model.signatures[signature]
    return convert_variables_to_constants_v2(
        function, lower_control_flow=False
    ).graph.as_graph_def()
