"""Since when something has been so."""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def since(values: Floats, limit: float, width: int) -> int | None:
    r"""Return the first place from which a series stays at or above a limit, to its end.

    Judged by the means over the `width` steps from each place on: with the least :math:`s` for
    which :math:`\frac{1}{w} \sum_{k<w} x_{t+k} \ge \text{limit}` for all :math:`s \le t \le T -
    w`, the result is the first place from :math:`s` on with :math:`x_t \ge \text{limit}`. A jump
    is found exactly.

    Parameters
    ----------
    values : ndarray of shape (time,)
        NaN is left out.
    limit : float
        What to stay above.
    width : int
        Steps of the running mean.

    Returns
    -------
    int or None
        None if the end is not above it.

    Examples
    --------
    >>> since(np.array([0.9, 0.0, 0.0, 0.9, 0.8, 0.7, 0.9]), limit=0.5, width=1)
    3
    >>> since(np.array([0.9, 0.0, 0.0]), limit=0.5, width=1) is None
    True
    """
    there = np.isfinite(values)
    total = np.concatenate([[0.0], np.cumsum(np.where(there, values, 0.0))])
    count = np.concatenate([[0], np.cumsum(there)])
    width = max(1, min(width, len(values)))
    n = count[width:] - count[:-width]
    means = (total[width:] - total[:-width]) / np.maximum(n, 1)
    below = np.flatnonzero((n > 0) & (means < limit - 1e-12))
    start = int(below[-1]) + 1 if below.size else 0
    if start >= len(means) or not n[start:].any():
        return None
    return start + int(np.flatnonzero(values[start:] >= limit - 1e-12)[0])
