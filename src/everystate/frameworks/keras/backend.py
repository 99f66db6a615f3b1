"""The three back ends behind one face: what is concrete, and arrays of NumPy from it."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
from keras.src.backend.common.symbolic_scope import in_symbolic_scope

Tensor = Any
"""A tensor of the back end that Keras runs on."""


def is_described(x: Tensor) -> bool:
    """Whether Keras only works out shapes: nothing is computed, so there is nothing to see."""
    if isinstance(x, keras.KerasTensor) or in_symbolic_scope():
        return True
    return keras.backend.backend() == "torch" and bool(x.device.type == "meta")


def is_compiled(x: Tensor) -> bool:
    """Whether a function around the layer is being compiled: its tensors have no numbers yet."""
    if keras.backend.backend() == "jax":
        import jax

        return isinstance(x, jax.core.Tracer)
    return keras.backend.backend() == "tensorflow" and not hasattr(x, "numpy")


def without_gradients() -> AbstractContextManager[object]:
    """Return a context in which the back end keeps nothing for a backward pass."""
    if keras.backend.backend() == "torch":
        import torch

        return torch.no_grad()
    return nullcontext()


def computed_in(dtype: str) -> str:
    """Return the precision that a layer of some dtype computes in.

    Not always its own: without ``jax_enable_x64`` JAX makes float32 of float64, and on PyTorch
    ``keras.ops.matmul`` multiplies float64 in float32.
    """
    if dtype != "float64":
        return dtype
    one = keras.ops.ones((1, 1), dtype)
    return str(keras.backend.standardize_dtype(keras.ops.matmul(one, one).dtype))


def as_array(x: Tensor) -> npt.NDArray[Any]:
    """Return a tensor or variable as a NumPy array, half precision as float32 (which is exact)."""
    a = np.asarray(keras.ops.convert_to_numpy(x))
    return a if a.dtype in (np.float32, np.float64) else a.astype(np.float32)


def time_major(x: Tensor) -> npt.NDArray[Any]:
    """Return (batch, time, ...) as an array (time, batch, units), further dimensions flattened."""
    a = as_array(x)
    return np.ascontiguousarray(np.swapaxes(a.reshape(*a.shape[:2], -1), 0, 1))


def flat(x: Tensor) -> npt.NDArray[Any]:
    """Return (batch, ...) as an array (batch, units)."""
    a = as_array(x)
    return a.reshape(a.shape[0], -1)


def stacked(steps: list[Tensor]) -> npt.NDArray[Any]:
    """Return the tensors of PyTorch's that the steps computed as one array (time, batch, units)."""
    import torch

    return as_array(torch.stack(steps).detach())


def native(a: npt.NDArray[Any]) -> Any:
    """Return an array as one that is computed with fastest: on PyTorch, a tensor of its memory."""
    if keras.backend.backend() != "torch":
        return a
    import torch

    return torch.from_numpy(np.ascontiguousarray(a))
