"""Graphs that live in this process: of a session, of a concrete function, of a Keras 2 model."""

from typing import Any, Final

import tensorflow as tf
from tensorflow.core.framework import graph_pb2
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from everystate.errors import InputError, UnsupportedModelError
from everystate.frameworks.tensorflow.files import with_values

SESSIONS: Final = (tf.compat.v1.Session, tf.compat.v1.InteractiveSession)
FUNCTIONS: Final = (tf.types.experimental.ConcreteFunction, tf.types.experimental.GenericFunction)
KERAS_2: Final = ("tf_keras", "tensorflow.python.keras")


def is_live(model: object) -> bool:
    """Whether this runs a graph, is run by one, or is a layer of Keras 2, which is traced."""
    kinds = (*SESSIONS, *FUNCTIONS, tf.Graph)
    return isinstance(model, kinds) or tf.is_symbolic_tensor(model) or _is_keras_2(model)


def frozen(model: Any) -> graph_pb2.GraphDef:
    """Return a model's graph with the weights that it has now, as constants.

    Parameters
    ----------
    model : Session, ConcreteFunction, or Keras 2 model
        It is left as it is.

    Raises
    ------
    InputError
        If a variable of the session has no value yet, or a model was never called.
    UnsupportedModelError
        If it is a graph without its session, or a function that was not traced.
    """
    if isinstance(model, SESSIONS):
        return _frozen_session(model)
    if isinstance(model, tf.types.experimental.ConcreteFunction):
        return _frozen_function(model)
    if _is_keras_2(model):
        return _frozen_function(_traced(model))
    if isinstance(model, tf.types.experimental.GenericFunction):
        raise UnsupportedModelError(
            "a tf.function is one graph for each kind of input. Choose one: "
            "es.record(function.get_concrete_function(x), x)."
        )
    raise UnsupportedModelError(
        f"a {type(model).__name__} has no weights: they are in the session. Give that, "
        "es.record(session, {placeholder: array}), or build the graph with dynamic_rnn of "
        "everystate.frameworks.tensorflow, which also returns the states as tensors."
    )


def _frozen_session(session: Any) -> graph_pb2.GraphDef:
    try:
        return with_values(session)
    except tf.errors.FailedPreconditionError as error:
        raise InputError(
            "the session has variables without values. Run tf.compat.v1."
            "global_variables_initializer(), or restore a checkpoint, first."
        ) from error


def _frozen_function(function: Any) -> graph_pb2.GraphDef:
    constants = convert_variables_to_constants_v2(function, lower_control_flow=False)
    return constants.graph.as_graph_def()


def _is_keras_2(model: object) -> bool:
    return isinstance(model, tf.Module) and any(
        base.__name__ == "Layer" and base.__module__.startswith(KERAS_2)
        for base in type(model).__mro__
    )


def _traced(model: Any) -> Any:
    """Return a Keras 2 model as a concrete function of what it was built for."""
    found = model.save_spec() if hasattr(model, "save_spec") else None
    if found is None:
        raise InputError(
            f"{type(model).__name__} was never called, or is no model: what it reads is not "
            "known. Call it once, model(x), or trace it: es.record(tf.function(model)."
            "get_concrete_function(tf.TensorSpec([None, None, features])), x)."
        )
    args, kwargs = found
    return tf.function(model).get_concrete_function(*args, **kwargs)
