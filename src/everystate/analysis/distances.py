r"""How far a state is from those of a baseline, in parts that add up: one for each column.

Three models of what is normal. Each is fitted on states of shape (samples, columns) and gives, for
each state it is asked about, non-negative `parts` of shape (samples, columns) whose sum over the
columns is the squared distance. So a score always comes with what it is made of.

Columns are standardised first, by mean and standard deviation of the baseline. A column that
hardly moved there counts as if it had moved by a thousandth of what the others do: if it moves
later on, it is far out, but rounding alone is not.
"""

from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from everystate.analysis.extra import extra
from everystate.analysis.features import Floats

NEEDED_BY: Final = "a score of anomaly"

STILL: Final = 1e-3
"""A column's standard deviation is at least this share of the root mean square of all of them."""


class Distance(Protocol):
    """A model of what is normal."""

    def parts(self, x: Floats) -> Floats:
        """Return what each column adds to the squared distance, shape (samples, columns)."""
        ...


def scaling(x: Floats) -> tuple[Floats, Floats]:
    """Return mean and standard deviation of each column, the latter bounded from below by `STILL`.

    Examples
    --------
    >>> scaling(np.array([[1.0, 5.0], [3.0, 5.0]]))[1].round(6).tolist()
    [1.0, 0.000707]
    """
    mean, std = x.mean(axis=0), x.std(axis=0)
    floor = STILL * float(np.sqrt((std**2).mean()))
    return mean, np.maximum(std, floor if floor > 0 else 1.0)


@dataclass(frozen=True, eq=False)
class Mahalanobis:
    r"""Squared Mahalanobis distance, and its Garthwaite-Koch partition.

    With the standardised state :math:`z` and the covariance :math:`\Sigma` of the standardised
    baseline,

    .. math:: d^2 = z^\top \Sigma^{-1} z = w^\top w, \qquad w = \Sigma^{-1/2} z,

    and column :math:`j` has part :math:`w_j^2`. The symmetric root makes :math:`w_j`, of all ways
    to whiten, the one closest to :math:`z_j`.

    Parameters
    ----------
    centre, scale : ndarray, shape (columns,)
        What a state is standardised by.
    whiten : ndarray, shape (columns, columns)
        :math:`\Sigma^{-1/2}`.

    References
    ----------
    Mahalanobis 1936. Ledoit and Wolf 2004, A well-conditioned estimator for large-dimensional
    covariance matrices (the default estimate). Rousseeuw and Van Driessen 1999, A fast algorithm
    for the minimum covariance determinant estimator (`robust`). Garthwaite and Koch 2016,
    Evaluating the contributions of individual variables to a quadratic form.
    """

    centre: Floats
    scale: Floats
    whiten: Floats

    @classmethod
    def fit(cls, x: Floats, *, robust: bool = False, seed: int = 0) -> "Mahalanobis":
        """Estimate centre and covariance from the states of a baseline."""
        covariance = extra("sklearn.covariance", NEEDED_BY)
        mean, scale = scaling(x)
        z = (x - mean) / scale
        if robust:
            found = covariance.MinCovDet(random_state=seed).fit(z)
        else:
            found = covariance.LedoitWolf().fit(z)
        values, vectors = np.linalg.eigh(found.covariance_)
        # Directions without any variance: the bound that STILL puts on single columns.
        values = np.maximum(values, STILL**2 * values.mean())
        whiten = (vectors / np.sqrt(values)) @ vectors.T
        return cls(mean + scale * found.location_, scale, whiten)

    def parts(self, x: Floats) -> Floats:
        """Return the squares of the whitened states."""
        parts: Floats = (((x - self.centre) / self.scale) @ self.whiten) ** 2
        return parts


@dataclass(frozen=True, eq=False)
class Nearest:
    r"""Mean squared distance to the nearest states of the baseline.

    .. math:: d^2 = \frac{1}{k} \sum_{n \in N_k(x)} \sum_j \frac{(x_j - n_j)^2}{s_j^2}

    Parameters
    ----------
    scale : ndarray, shape (columns,)
        :math:`s`.
    store : ndarray, shape (samples, columns)
        The baseline, in units of `scale`.
    neighbours : int
        :math:`k`.

    References
    ----------
    Ramaswamy, Rastogi and Shim 2000, Efficient algorithms for mining outliers from large data
    sets, for the distance to a neighbour as a score of anomaly.
    """

    scale: Floats
    store: Floats
    neighbours: int

    @classmethod
    def fit(cls, x: Floats, *, neighbours: int = 1) -> "Nearest":
        """Keep the states of a baseline."""
        _, scale = scaling(x)
        return cls(scale, x / scale, neighbours)

    def parts(self, x: Floats) -> Floats:
        """Return the mean of the squared differences from the nearest states."""
        search = extra("sklearn.neighbors", NEEDED_BY).NearestNeighbors(n_neighbors=self.neighbours)
        z = x / self.scale
        nearest: npt.NDArray[np.int64] = search.fit(self.store).kneighbors(z, return_distance=False)
        total = np.zeros_like(z)
        for k in range(self.neighbours):
            total += (z - self.store[nearest[:, k]]) ** 2
        return total / self.neighbours


@dataclass(frozen=True, eq=False)
class Residual:
    r"""What the principal components of the baseline leave over.

    .. math:: d^2 = \lVert z - V V^\top z \rVert^2

    with the standardised state :math:`z` and the leading principal components :math:`V`; also
    called the squared prediction error or Q statistic. It sees states that leave the space in
    which the baseline moves, not those that are merely large within it.

    Parameters
    ----------
    centre, scale : ndarray, shape (columns,)
        What a state is standardised by.
    components : ndarray, shape (components, columns)
        Rows of :math:`V^\top`.

    References
    ----------
    Jackson and Mudholkar 1979, Control procedures for residuals associated with principal
    component analysis.
    """

    centre: Floats
    scale: Floats
    components: Floats

    @classmethod
    def fit(cls, x: Floats, *, explained: float = 0.95) -> "Residual":
        """Keep the components that explain a share of the variance of a baseline."""
        mean, scale = scaling(x)
        found = extra("sklearn.decomposition", NEEDED_BY).PCA(explained, svd_solver="full")
        found.fit((x - mean) / scale)
        return cls(mean, scale, found.components_)

    def parts(self, x: Floats) -> Floats:
        """Return the squares of what is left over."""
        z = (x - self.centre) / self.scale
        parts: Floats = (z - z @ self.components.T @ self.components) ** 2
        return parts
