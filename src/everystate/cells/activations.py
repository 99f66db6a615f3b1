"""The activation functions of recurrent cells, for any array-API array.

The two "hard sigmoids" are different functions under one name, and weights trained with
one load without a word into a layer that uses the other:

======================  =======================  ============================================
name here               equation                 who calls it ``hard_sigmoid``
======================  =======================  ============================================
``hard_sigmoid``        ``relu6(x + 3) / 6``     Keras 3, PyTorch (``Hardsigmoid``), JAX
``hard_sigmoid_keras2`` ``clip(0.2 x + 0.5)``    Keras 1 and 2, ONNX (default ``alpha``, ``beta``)
======================  =======================  ============================================
"""

from collections.abc import Callable
from typing import Any, Final

from array_api_compat import array_namespace

Array = Any
"""A NumPy, PyTorch or JAX array; anything that ``array_api_compat`` knows."""

Activation = Callable[[Array], Array]


def sigmoid(x: Array) -> Array:
    """Return ``1 / (1 + exp(-x))``, without overflow and with full relative accuracy.

    Examples
    --------
    >>> import numpy as np
    >>> sigmoid(np.array([-1000.0, 0.0, 1000.0])).tolist()
    [0.0, 0.5, 1.0]
    """
    xp = array_namespace(x)
    if hasattr(xp, "sigmoid"):  # PyTorch: one kernel, and the right gradient everywhere
        return xp.sigmoid(x)
    # e <= 1 on either side, so nothing overflows; the gradient at x = 0 needs no |x|.
    below = x < 0
    e = xp.exp(xp.where(below, x, -x))
    return xp.where(below, e, 1.0) / (1.0 + e)


def tanh(x: Array) -> Array:
    """Return the hyperbolic tangent of `x`."""
    return array_namespace(x).tanh(x)


def hard_sigmoid(x: Array) -> Array:
    """Return ``relu6(x + 3) / 6``: the hard sigmoid of Keras 3, PyTorch and JAX."""
    return array_namespace(x).clip(x / 6.0 + 0.5, 0.0, 1.0)


def hard_sigmoid_keras2(x: Array) -> Array:
    """Return ``clip(0.2 x + 0.5, 0, 1)``: the hard sigmoid of Keras 1 and 2, and of ONNX."""
    return array_namespace(x).clip(0.2 * x + 0.5, 0.0, 1.0)


def relu(x: Array) -> Array:
    """Return ``max(x, 0)``, NaN staying NaN.

    The derivative at 0 is 0, as every framework has it; that of a clip would be 1 or 1/2.
    """
    return array_namespace(x).where(x <= 0, 0.0, x)


def linear(x: Array) -> Array:
    """Return `x` itself."""
    return x


ACTIVATIONS: Final[dict[str, Activation]] = {
    "tanh": tanh,
    "sigmoid": sigmoid,
    "hard_sigmoid": hard_sigmoid,
    "hard_sigmoid_keras2": hard_sigmoid_keras2,
    "relu": relu,
    "linear": linear,
}
"""Every activation by the name that a cell's fields use."""
