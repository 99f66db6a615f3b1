"""The cells of ``tf.compat.v1.nn.rnn_cell``, also where TensorFlow no longer gives them out.

With Keras 3 every name in ``tf.compat.v1.nn.rnn_cell`` raises "not available with Keras 3".
The cells are still in TensorFlow's wheel, and TensorFlow tests them; this module hands them
out under their old names. Their variables have the old names too, so old checkpoints restore.

A name is looked up when it is first asked for: TensorFlow's public one where that works
(Keras 2, or ``TF_USE_LEGACY_KERAS=1`` with tf_keras), else the one in the wheel.

Examples
--------
>>> from everystate.frameworks.tensorflow import rnn_cell
>>> rnn_cell.MultiRNNCell([rnn_cell.LSTMCell(4), rnn_cell.GRUCell(5)]).state_size
(LSTMStateTuple(c=4, h=4), 5)
"""

from importlib import import_module
from typing import Any

__all__ = [  # noqa: F822 - looked up by __getattr__
    "BasicLSTMCell",
    "BasicRNNCell",
    "DeviceWrapper",
    "DropoutWrapper",
    "GRUCell",
    "LSTMCell",
    "LSTMStateTuple",
    "MultiRNNCell",
    "RNNCell",
    "ResidualWrapper",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(
            f"module {__name__!r} has no attribute {name!r}; there are {', '.join(__all__)}."
        )
    public = import_module("tensorflow").compat.v1.nn.rnn_cell
    try:
        found = getattr(public, name)
    except (AttributeError, ImportError):  # Keras 3, or Keras 2 asked for and not installed
        found = getattr(import_module("tensorflow.python.ops.rnn_cell_impl"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
