"""The one loop over time that a replay cannot do without: ``c_t = f_t c_{t-1} + u_t``.

Written as a plain loop rather than as a parallel prefix sum: the loop's rounding is the
kernels' own, and in NumPy's memory a step costs about a microsecond.
"""

from typing import Any

import numpy as np
from array_api_compat import array_namespace, is_numpy_array, is_torch_array

from everystate.cells.activations import Array


def linear_scan(
    f: Array, u: Array, c: Array, bound: float | None = None, out: Array | None = None
) -> Array:
    """Return ``c_t = clip(f_t * c_{t-1} + u_t)`` for every step.

    Parameters
    ----------
    f, u : array, shape (time, ...)
        What is kept of the state, and what is added to it.
    c : array, shape (...)
        The state before the first step.
    bound : float, optional
        Bound of the absolute value after each step.
    out : ndarray, shape (time, ...), optional
        Where to put the states, of NumPy arrays; `u` itself will do. None: fresh memory.

    Returns
    -------
    array, shape (time, ...)
        The state after each step; differentiable if the arguments are.

    Examples
    --------
    >>> import numpy as np
    >>> linear_scan(np.array([0.5, 0.5]), np.array([1.0, 1.0]), np.array(4.0)).tolist()
    [3.0, 2.5]
    """
    xp = array_namespace(f, u, c)
    if is_numpy_array(f):
        return _in_place(f, u, c, bound, out)
    if is_torch_array(f) and (seen := _as_numpy(xp, f, u, c)) is not None:
        # The same memory seen as NumPy arrays: a step costs a third of PyTorch's dispatch.
        return xp.from_numpy(_in_place(*seen, bound))
    steps = []
    for t in range(f.shape[0]):
        c = clip(f[t] * c + u[t], bound)
        steps.append(c)
    return xp.stack(steps)


def clip(a: Array, bound: float | None) -> Array:
    """Return `a` held within ``[-bound, bound]``; as it is where there is no bound."""
    return a if bound is None else array_namespace(a).clip(a, -bound, bound)


def _as_numpy(xp: Any, f: Array, u: Array, c: Array) -> tuple[Array, Array, Array] | None:
    """Return PyTorch tensors as NumPy arrays of the same memory; None if that loses anything."""
    if any(xp.autograd.forward_ad.unpack_dual(a).tangent is not None for a in (f, u, c)):
        return None
    try:
        return f.numpy(), u.numpy(), c.numpy()
    except (RuntimeError, TypeError):  # under autograd or vmap; another device, bfloat16
        return None


def _in_place(f: Array, u: Array, c: Array, bound: float | None, out: Array | None = None) -> Array:
    states = np.empty(u.shape, np.result_type(f, u, c)) if out is None else out
    kept = np.empty((1, *u.shape[1:]), states.dtype)
    # With one axis more a step is a view even where it has no dimension of its own.
    for f_t, u_t, c_t in zip(f[:, None], u[:, None], states[:, None], strict=True):
        np.multiply(f_t, c, kept)
        np.add(kept, u_t, c_t)
        if bound is not None:
            np.clip(c_t, -bound, bound, c_t)
        c = c_t
    return states
