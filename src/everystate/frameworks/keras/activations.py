"""The hard sigmoid of Keras 1 and 2: Keras 3 has another one of the same name."""

from typing import Any

import keras


@keras.saving.register_keras_serializable(package="everystate")  # type: ignore[untyped-decorator]
def hard_sigmoid_keras2(x: Any) -> Any:
    """Return ``clip(0.2 x + 0.5, 0, 1)`` of a tensor of Keras' back end."""
    return keras.ops.clip(0.2 * x + 0.5, 0.0, 1.0)
