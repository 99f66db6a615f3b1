"""The demo's series: arterial blood pressure with one labelled anomaly (see ``data/README.md``).

The first 1,200 steps are declared normal by the archive, and are all that anything is fitted on:
the network and the store of normal states see `FIT`, thresholds come from `HELD_OUT`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

DATA: Final = Path(__file__).parent / "data"
WEIGHTS: Final = DATA / "autoencoder.safetensors"
NAME: Final = "135_UCR_Anomaly_InternalBleeding16"

FIT: Final = slice(0, 800)
HELD_OUT: Final = slice(800, 1200)
NORMAL_STEPS: Final = 1200
"""Steps at the start of the series that the archive declares normal."""


@dataclass(frozen=True, eq=False)
class Series:
    """A series and its label.

    Parameters
    ----------
    values : ndarray of float32, shape (time,)
        Arterial blood pressure.
    labelled : tuple of int, or None
        Half-open range of the steps labelled as an anomaly; None if there is none.
    """

    values: npt.NDArray[np.float32]
    labelled: tuple[int, int] | None


def load_series(part: Literal["TRAIN", "TEST"]) -> Series:
    """Load the normal part (``TRAIN``, 1,200 steps) or the whole series (``TEST``, 7,501 steps).

    Parameters
    ----------
    part : {"TRAIN", "TEST"}
        Named as in the package the files come from; the whole series begins with the normal part.

    Examples
    --------
    >>> load_series("TRAIN").values.shape, load_series("TEST").values.shape
    ((1200,), (7501,))
    """
    rows = np.loadtxt(DATA / f"{NAME}_{part}.csv", delimiter=",", skiprows=1)
    labelled = np.flatnonzero(rows[:, 2])
    return Series(
        values=rows[:, 1].astype(np.float32),
        labelled=(int(labelled[0]), int(labelled[-1]) + 1) if labelled.size else None,
    )
