"""Memory for what is kept, in huge pages where the system has them.

Fresh memory costs as much as computing what is put there: every page of it is first asked for,
and cleared. On Linux NumPy asks for pages of 2 MiB rather than 4 KiB for arrays of 4 MiB or more,
but one that begins anywhere holds few of them whole.
"""

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

PAGE: Final = 1 << 21
"""Bytes of a huge page."""
LARGE: Final = PAGE // 2
"""From which size on an array gets pages of its own."""
ASKED: Final = 1 << 22
"""From which size on NumPy asks for huge pages."""


def empty(shape: Sequence[int], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Return an array of any contents, which begins where a page does if it is large.

    Parameters
    ----------
    shape : sequence of int
        Its shape.
    dtype : dtype
        Of a plain kind.
    """
    dtype = np.dtype(dtype)
    size = math.prod(shape) * dtype.itemsize
    if size < LARGE:
        return np.empty(shape, dtype)
    around = np.empty(max(size + PAGE, ASKED), np.uint8)  # what is not touched takes no memory
    start = -around.ctypes.data % PAGE
    return around[start : start + size].view(dtype).reshape(shape)


def copy(a: npt.NDArray[Any], dtype: str | None) -> npt.NDArray[Any]:
    """Return a copy of an array, as another dtype if one is given."""
    own = empty(a.shape, dtype or a.dtype)
    np.copyto(own, a, casting="unsafe")
    return own


def concatenate(parts: Sequence[npt.NDArray[Any]], axis: int) -> npt.NDArray[Any]:
    """Return arrays one after the other along an axis, those of other axes alike."""
    shape = list(parts[0].shape)
    shape[axis] = sum(part.shape[axis] for part in parts)
    own = empty(shape, np.result_type(*parts))
    return np.concatenate(parts, axis=axis, out=own)
