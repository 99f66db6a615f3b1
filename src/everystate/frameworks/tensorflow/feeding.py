"""What is fed to a tapped graph: arrays by tensor name, checked before it runs."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import graph_pb2
from tensorflow.python.framework import dtypes

from everystate.errors import InputError
from everystate.frameworks.tensorflow.tap import TappedLayer

VARIABLES: Final = ("VarHandleOp", "VariableV2", "Variable")
ITERATORS: Final = ("IteratorGetNext", "IteratorGetNextSync")


def feeds_of(
    graph: graph_pb2.GraphDef, inputs: Sequence[Any], layers: Sequence[TappedLayer]
) -> dict[str, Any]:
    """Return arrays by tensor name, checked against what the layers need."""
    nodes = {n.name: n for n in graph.node}
    placeholders = [n for n in graph.node if n.op.startswith("Placeholder")]
    there = ", ".join(f"{n.name} {_shape(n)}" for n in placeholders) or "none"
    if len(inputs) == 1 and isinstance(inputs[0], Mapping):
        given = {_tensor_name(key): value for key, value in inputs[0].items()}
    else:
        needed = [n for n in nodes_behind(graph, layers) if n.op.startswith("Placeholder")]
        if len(inputs) > len(needed):
            raise InputError(f"feeds: got {len(inputs)} arrays for the placeholders: {there}.")
        given = {f"{n.name}:0": value for n, value in zip(needed, inputs, strict=False)}
    for name in given:
        if name.partition(":")[0] not in nodes:
            raise InputError(
                f"feeds: the graph has no placeholder {name.removesuffix(':0')}; there are: "
                f"{there}."
            )
    _check_complete(nodes_behind(graph, layers, given), given, there)
    return {name: _checked(nodes[name.partition(":")[0]], a) for name, a in given.items()}


def _tensor_name(key: Any) -> str:
    """Return the name of a tensor that is given by its name, its op's name, or as it is."""
    name = str(getattr(key, "name", key))
    return name if ":" in name else f"{name}:0"


def _check_complete(needed: Sequence[Any], given: Collection[str], there: str) -> None:
    """Raise `InputError` if a placeholder is not fed, or a variable has no value."""
    missing = [n.name for n in needed if n.op == "Placeholder" and f"{n.name}:0" not in given]
    if missing:
        raise InputError(
            f"feeds: {', '.join(missing)} missing. Give {{name: array}}; there are: {there}."
        )
    variables = [n.name for n in needed if n.op in VARIABLES]
    if variables:
        raise InputError(
            f"the graph has variables without values: {', '.join(variables[:3])}, ... Give the "
            "session that has them, es.record(session, feeds), or freeze the graph "
            "(tf.compat.v1.graph_util.convert_variables_to_constants)."
        )
    waiting = [n.name for n in needed if n.op in ITERATORS]
    if waiting:
        raise InputError(
            f"feeds: {', '.join(waiting)} gives what comes out of a tf.data.Iterator, which runs "
            "in its own session only. Feed it: "
            f"es.record(session, {{'{waiting[0]}:0': array}})."
        )


def nodes_behind(
    graph: graph_pb2.GraphDef, layers: Sequence[TappedLayer], fed: Collection[str] = ()
) -> list[Any]:
    """Return the nodes that layers depend on, in the graph's order, up to tensors that are fed."""
    nodes = {n.name: n for n in graph.node}
    waiting = [t for a in layers for t in (*a.variables.values(), *a.initial.values())]
    waiting += [a.lengths for a in layers if a.lengths]
    seen = set[str]()
    while waiting:
        tensor = waiting.pop().lstrip("^")
        name, _, place = tensor.partition(":")
        if name in seen or f"{name}:{place or 0}" in fed:
            continue
        seen.add(name)
        waiting += nodes[name].input
    return [n for n in graph.node if n.name in seen]


def _checked(placeholder: Any, value: Any) -> Any:
    if not placeholder.op.startswith("Placeholder"):
        return np.asarray(value)  # a tensor on the way, of which the graph says less
    wanted = dtypes.as_dtype(placeholder.attr["dtype"].type)
    array = np.asarray(value)
    shape = placeholder.attr["shape"].shape if "shape" in placeholder.attr else None
    if shape is not None and not tf.TensorShape(shape).is_compatible_with(array.shape):
        raise InputError(
            f"feeds: {placeholder.name} has shape {array.shape}, expected {_shape(placeholder)}."
        )
    if array.dtype.kind not in "biuf" and wanted != dtypes.string:
        raise InputError(f"feeds: {placeholder.name} holds {array.dtype}, expected {wanted.name}.")
    return array if wanted == dtypes.string else array.astype(wanted.as_numpy_dtype)


def _shape(placeholder: Any) -> str:
    shape = tf.TensorShape(placeholder.attr["shape"].shape)
    return "of any shape" if shape.rank is None else str(tuple(shape.as_list()))
