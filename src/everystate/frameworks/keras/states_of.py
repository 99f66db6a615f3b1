"""`StatesOf`: a layer that gives the outputs of another, and all its states."""

from typing import Any, Self

import keras

from everystate.errors import UnsupportedModelError
from everystate.frameworks.keras.backend import Tensor
from everystate.frameworks.keras.finding import is_one_layer
from everystate.frameworks.keras.showing import showing


@keras.saving.register_keras_serializable(package="everystate")
class StatesOf(keras.Layer):  # type: ignore[misc]
    """Call a recurrent layer; return what it returns, and every state and gate at every step.

    It is a part of the model like any other: compiled with it, trained with it, saved with it.
    Load such a model after ``import everystate.frameworks.keras``.

    Parameters
    ----------
    layer : keras.layers.RNN or Bidirectional
        LSTM, GRU, SimpleRNN, ConvLSTM, or RNN with any cell. Shared, not copied.
    **options
        As every Keras layer has them (``name``, ``dtype``).

    Raises
    ------
    UnsupportedModelError
        If `layer` is no recurrent layer.

    Examples
    --------
    >>> import keras
    >>> x = keras.Input((None, 3))
    >>> outputs, states = StatesOf(keras.layers.LSTM(4))(x)
    >>> list(states), states["c"].shape
    (['h', 'c', 'i', 'f', 'g', 'o', 'initial_h', 'initial_c'], (None, None, 4))
    >>> model = keras.Model(x, states["c"])
    """

    def __init__(self, layer: keras.Layer, **options: Any) -> None:
        super().__init__(**options)
        if not is_one_layer(layer):
            raise UnsupportedModelError(
                f"StatesOf takes one recurrent layer, got {type(layer).__name__}. Try "
                "StatesOf(keras.layers.LSTM(8)), or RNN(cell) for a cell of your own."
            )
        self.layer = layer
        self.supports_masking = True

    def build(self, inputs_shape: Any, initial_state_shape: Any = None) -> None:
        """Build the layer."""
        if not self.layer.built:
            self.layer.build(inputs_shape)
        self.built = True

    def call(
        self,
        inputs: Tensor,
        initial_state: Any = None,
        mask: Any = None,
        training: bool = False,
    ) -> tuple[Any, dict[str, Any]]:
        """Return the layer's own result, and its states by name.

        Of a layer with several leaves (both directions, stacked cells) the states are a dict of
        dicts, ``states["forward"]["c"]``. Each is (batch, time, units), in the order of input;
        at masked steps states are carried over, and gates are zero.
        """
        with showing(self.layer) as shown:
            result = self.layer(inputs, initial_state=initial_state, mask=mask, training=training)
        leaves: list[dict[str, Any]] = [dict(leaf) for leaf in shown.leaves.values()]
        if len(leaves) == 1:
            return result, leaves[0]
        return result, dict(zip(shown.leaves, leaves, strict=True))

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> None:
        """Return None: states at masked steps are shown as they are."""

    def get_config(self) -> dict[str, Any]:
        """Return what the layer is made from again."""
        inner = keras.saving.serialize_keras_object(self.layer)
        return {**super().get_config(), "layer": inner}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Make the layer from its configuration."""
        inner = keras.saving.deserialize_keras_object(config.pop("layer"))
        return cls(inner, **config)
