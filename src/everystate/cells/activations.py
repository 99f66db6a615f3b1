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

import inspect
import re
from collections.abc import Callable
from functools import partial
from typing import Any, Final, Protocol

import numpy as np
from array_api_compat import array_namespace, is_numpy_array

from everystate.errors import WeightsError

Array = Any
"""A NumPy, PyTorch or JAX array; anything that ``array_api_compat`` knows."""


class Activation(Protocol):
    """An activation: of `x`, put into `out` if that is given (a NumPy array, as `x` is)."""

    def __call__(self, x: Array, out: Array | None = None) -> Array: ...  # noqa: D102


def sigmoid(x: Array, out: Array | None = None) -> Array:
    """Return ``1 / (1 + exp(-x))``, without overflow and with full relative accuracy.

    Parameters
    ----------
    x : array
        Any shape.
    out : ndarray, optional
        Where to put it, of NumPy arrays. None: fresh memory.

    Examples
    --------
    >>> import numpy as np
    >>> sigmoid(np.array([-1000.0, 0.0, 1000.0])).tolist()
    [0.0, 0.5, 1.0]
    """
    xp = array_namespace(x)
    if hasattr(xp, "sigmoid"):  # PyTorch: one kernel, and the right gradient everywhere
        return xp.sigmoid(x)
    if is_numpy_array(x):  # a fifth of the passes; what overflows becomes 1 / inf, which is 0
        with np.errstate(over="ignore"):
            if out is None:
                return 1.0 / (1.0 + np.exp(-x))
            np.exp(np.negative(x, out=out), out=out)
            out += 1.0
            return np.divide(1.0, out, out=out)
    # e <= 1 on either side, so nothing overflows; the gradient at x = 0 needs no |x|.
    below = x < 0
    e = xp.exp(xp.where(below, x, -x))
    return xp.where(below, e, 1.0) / (1.0 + e)


def tanh(x: Array, out: Array | None = None) -> Array:
    """Return the hyperbolic tangent of `x`; in `out`, as `sigmoid` does."""
    return array_namespace(x).tanh(x) if out is None else np.tanh(x, out=out)


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


def softsign(x: Array) -> Array:
    """Return ``x / (1 + |x|)``."""
    return x / (1.0 + array_namespace(x).abs(x))


def softplus(x: Array) -> Array:
    """Return ``log(1 + exp(x))``, without overflow."""
    xp = array_namespace(x)
    below = x < 0  # as in `sigmoid`
    return xp.where(below, 0.0, x) + xp.log1p(xp.exp(xp.where(below, x, -x)))


def affine(x: Array, alpha: float, beta: float) -> Array:
    """Return ``alpha x + beta``."""
    return alpha * x + beta


def leaky_relu(x: Array, alpha: float) -> Array:
    """Return `x` where it is positive, ``alpha x`` elsewhere."""
    return array_namespace(x).where(x < 0, alpha * x, x)


def thresholded_relu(x: Array, alpha: float) -> Array:
    """Return `x` where it is above `alpha`, 0 elsewhere."""
    return array_namespace(x).where(x <= alpha, 0.0, x)


def scaled_tanh(x: Array, alpha: float, beta: float) -> Array:
    """Return ``alpha tanh(beta x)``."""
    return alpha * tanh(beta * x)


def elu(x: Array, alpha: float) -> Array:
    """Return `x` where it is positive, ``alpha (exp(x) - 1)`` elsewhere."""
    xp = array_namespace(x)
    return xp.where(x < 0, alpha * xp.expm1(xp.where(x < 0, x, xp.zeros_like(x))), x)


def hard_sigmoid_onnx(x: Array, alpha: float, beta: float) -> Array:
    """Return ``clip(alpha x + beta, 0, 1)``."""
    return array_namespace(x).clip(affine(x, alpha, beta), 0.0, 1.0)


IN_PLACE: Final = {"sigmoid": sigmoid, "tanh": tanh}
"""Those that are in nearly every cell, and need no memory but that for their result."""

ACTIVATIONS: Final[dict[str, Callable[[Array], Array]]] = {
    "tanh": tanh,
    "sigmoid": sigmoid,
    "hard_sigmoid": hard_sigmoid,
    "hard_sigmoid_keras2": hard_sigmoid_keras2,
    "relu": relu,
    "linear": linear,
    "softsign": softsign,
    "softplus": softplus,
}
"""Every activation without parameters, by the name that a cell's fields use."""

PARAMETRIC: Final[dict[str, Callable[..., Array]]] = {
    "affine": affine,
    "elu": elu,
    "hard_sigmoid_onnx": hard_sigmoid_onnx,
    "leaky_relu": leaky_relu,
    "scaled_tanh": scaled_tanh,
    "thresholded_relu": thresholded_relu,
}
"""Those with parameters: a cell's fields name them with these, ``"affine(1.0, 0.5)"``.

Equations: the operators ``LSTM``, ``GRU`` and ``RNN`` in ONNX's ``docs/Operators.md``."""

_CALL: Final = re.compile(r"(\w+)\(([^()]*)\)")


def activation(name: str) -> Activation:
    """Return an activation by its name.

    Parameters
    ----------
    name : str
        A key of `ACTIVATIONS`, or of `PARAMETRIC` with its parameters.

    Raises
    ------
    WeightsError
        If there is none of that name, or it has other parameters.

    Examples
    --------
    >>> import numpy as np
    >>> activation("leaky_relu(0.5)")(np.array([-2.0, 2.0])).tolist()
    [-1.0, 2.0]
    """
    if name in IN_PLACE:
        return IN_PLACE[name]
    if name in ACTIVATIONS:
        return partial(_placed, ACTIVATIONS[name])
    called = _CALL.fullmatch(name)
    if called is None or called[1] not in PARAMETRIC:
        raise WeightsError(
            f"unknown activation {name!r}; there are {', '.join(ACTIVATIONS)}, and with "
            f"parameters, as in affine(1.0, 0.5), {', '.join(PARAMETRIC)}."
        )
    function = PARAMETRIC[called[1]]
    names = list(inspect.signature(function).parameters)[1:]
    try:
        given = [float(number) for number in called[2].split(",")]
        parameters = dict(zip(names, given, strict=True))
    except ValueError:
        raise WeightsError(
            f"activation {name!r}: expected {called[1]}({', '.join(names)}), each a number."
        ) from None
    return partial(_placed, partial(function, **parameters))


def _placed(function: Callable[[Array], Array], x: Array, out: Array | None = None) -> Array:
    """Return an activation of `x`, copied to `out` if that is given."""
    if out is None:
        return function(x)
    np.copyto(out, function(x))
    return out
