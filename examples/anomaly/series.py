"""Nine accelerometer channels of a walking person, and faults of the sensors to plant in them.

The series is S06R02E0 of the Daphnet freezing-of-gait data (see ``data/README.md``): 20 seconds of
standing, then 90 of walking. **No step of this excerpt is labelled as an anomaly**, so it can tell
how often a score raises a false alarm on real data, and not what it finds. For that, faults are
planted, of the kinds that body-worn sensors have. They are made, not measured.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

DATA: Final = Path(__file__).parent / "data" / "daphnet_s06r02e0.csv.gz"
RATE: Final = 32  # steps a second, after averaging pairs of the original's 64

FIT: Final = slice(0, 1760)
"""Steps that the network and the baseline are fitted on: standing, and 35 seconds of walking."""
HELD_OUT: Final = slice(1760, 2432)
"""Steps that thresholds come from: 21 seconds of walking."""
TEST: Final = slice(2432, 3520)
"""Steps that faults are planted in: 34 seconds of walking."""

Floats = npt.NDArray[np.float32]
Fault = Callable[[Floats, npt.NDArray[np.intp]], None]


def load_channels() -> Floats:
    """Return the series, shape (time, channels): means of pairs of steps, standardised by `FIT`."""
    raw = np.loadtxt(DATA, delimiter=",", skiprows=1, dtype=np.float32)
    pairs = raw.reshape(-1, 2, raw.shape[1]).mean(axis=1)
    return (pairs - pairs[FIT].mean(axis=0)) / pairs[FIT].std(axis=0)


def swapped(x: Floats, at: npt.NDArray[np.intp]) -> None:
    """Plug leg and trunk sensor in the wrong way round."""
    x[at, 3:9] = x[at][:, [6, 7, 8, 3, 4, 5]]


def frozen(x: Floats, at: npt.NDArray[np.intp]) -> None:
    """Let the ankle sensor go on sending its last reading."""
    x[at, 0:3] = x[at[0] - 1, 0:3]


def weak(x: Floats, at: npt.NDArray[np.intp]) -> None:
    """Let the ankle sensor show a third of what it should."""
    x[at, 0:3] /= 3


def backwards(x: Floats, at: npt.NDArray[np.intp]) -> None:
    """Read a buffer backwards: every value is normal, their order is not."""
    x[at] = x[at[::-1]]


def late(x: Floats, at: npt.NDArray[np.intp]) -> None:
    """Let the trunk sensor be half a second behind the others."""
    x[at, 6:9] = x[at - RATE // 2][:, 6:9]


def lost(x: Floats, at: npt.NDArray[np.intp]) -> None:
    """Lose every third reading, and send the one before in its place."""
    gone = at[::3]
    x[gone] = x[gone - 1]


FAULTS: Final[dict[str, Fault]] = {
    fault.__name__: fault for fault in (swapped, frozen, weak, backwards, late, lost)
}


@dataclass(frozen=True, eq=False)
class Planted:
    """The series with faults.

    Parameters
    ----------
    x : ndarray, shape (time, channels)
        The series.
    labels : ndarray of bool, shape (time,)
        Where the faults are.
    places : dict of str to (int, int)
        Half-open range of steps of each fault.
    """

    x: Floats
    labels: npt.NDArray[np.bool_]
    places: dict[str, tuple[int, int]]


def plant(x: Floats, seed: int, length: int = 48) -> Planted:
    """Plant each fault once, in random order, at a random place in its sixth of `TEST`."""
    rng = np.random.default_rng(seed)
    faulty, labels = x.copy(), np.zeros(len(x), bool)
    room = (TEST.stop - TEST.start) // len(FAULTS)
    places = {}
    for k, name in enumerate(rng.permutation(list(FAULTS))):
        # The last third of each sixth stays as it is, so that one fault's memory is not another's.
        start = TEST.start + k * room + int(rng.integers(room * 2 // 3 - length))
        at = np.arange(start, start + length)
        FAULTS[str(name)](faulty, at)
        labels[at] = True
        places[str(name)] = (start, start + length)
    return Planted(faulty, labels, places)
