"""The hard sigmoid of Keras 1 and 2, which Keras 3 calls by the same name and computes otherwise."""

import keras


@keras.saving.register_keras_serializable(package="everystate")
def hard_sigmoid_keras2(x: object) -> object:
    """Return ``clip(0.2 x + 0.5, 0, 1)`` of a tensor of Keras' back end."""
    return keras.ops.clip(0.2 * x + 0.5, 0.0, 1.0)
