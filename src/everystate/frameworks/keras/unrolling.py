"""`unroll`: a recurrent layer's results and all its states, attached to the graph."""

from typing import Any

import keras
from keras import layers

from everystate.errors import InputError, UnsupportedModelError
from everystate.frameworks.keras.backend import Tensor
from everystate.frameworks.keras.finding import is_one_layer
from everystate.frameworks.keras.showing import showing
from everystate.recording.unrolled import LayerStates, States, Unrolled


def unroll(
    layer: Any, x: Tensor, initial_state: Any = None, mask: Any = None, training: bool = False
) -> Unrolled:
    """Run a Keras layer or cell and return all its states, differentiable.

    Parameters
    ----------
    layer : keras.layers.RNN, Bidirectional, or a cell
        LSTM, GRU, SimpleRNN, ConvLSTM, RNN with any cell; a cell is looped as ``RNN(cell)``.
    x : tensor, shape (batch, time, features)
        The input.
    initial_state : tensor or list of tensor, optional
        As the layer takes it. None: zeros.
    mask : tensor of bool, shape (batch, time), optional
        Which steps count. None: all.
    training : bool
        Whether dropout is active.

    Returns
    -------
    Unrolled
        ``outputs`` as the layer returns them, ``final_state`` as with ``return_state=True``.
        States are (batch, time, units) in the order of input; at masked steps they are carried
        over, and gates are zero.

    Raises
    ------
    UnsupportedModelError
        If `layer` is a whole model, not one recurrent layer.
    InputError
        If the input does not fit the layer.
    """
    if not is_one_layer(layer):
        if not (hasattr(layer, "state_size") and callable(layer)):
            raise UnsupportedModelError(
                f"unroll takes one recurrent layer or cell, got {type(layer).__name__}. Try "
                "es.unroll(model.get_layer('lstm'), x), or es.record(model, x) for a whole model."
            )
        layer = layers.RNN(layer, return_sequences=True)
    x = keras.ops.convert_to_tensor(x)
    options = {"mask": mask, "training": training}
    if initial_state is not None:
        options["initial_state"] = initial_state
    with showing(layer) as shown:
        try:
            result = layer(x, **options)
        except ValueError as error:
            raise InputError(f"{type(layer).__name__}: {error}") from error
    if layer.return_state:
        result = result[: len(result) - len(shown.final)]
        result = result[0] if len(result) == 1 else result
    final = shown.final[0] if len(shown.final) == 1 else tuple(shown.final)
    states = {path: LayerStates(leaf) for path, leaf in shown.leaves.items()}
    return Unrolled(result, final, States(states))
