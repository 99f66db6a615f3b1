"""Colours: perceptually even, readable without colour vision, dark on white.

The diverging palette runs from dark blue over near-white to dark orange in even steps of
lightness in the OKLab space (Ottosson 2020, https://bottosson.github.io/posts/oklab/): the
sign is a hue that all common kinds of colour vision tell apart, the size is lightness. The
sequential one, which bokeh and matplotlib bring, is Cividis (Nuñez, Anderton and Renslow 2018,
doi:10.1371/journal.pone.0199239).
"""

from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

INK, QUIET, RULE, MISSING = "#1a1a1a", "#595959", "#d0d0d0", "#b3b3b3"
"""Text, secondary text, lines, and the place of values that are not numbers."""
MEAN, BAND, CHOSEN = "#124a78", "#9dbfdc", "#b34700"
"""The mean over units, the band over them, and the chosen unit."""
DISTINCT: Final = ("#124a78", "#b34700", "#00795c", "#7a3f8f", "#8a6d00", "#1a1a1a")
"""Lines of several features, after Okabe and Ito's, each dark enough on white."""

SEVERITY: Final[Mapping[str, str]] = {"info": "#124a78", "warning": "#b34700", "error": "#8f1230"}
"""Of a finding."""


def diverging(count: int) -> tuple[str, ...]:
    """Return `count` colours from blue over near-white to orange, as ``#rrggbb``."""
    t = np.linspace(-1.0, 1.0, count)
    lightness = 0.97 - 0.59 * np.abs(t)
    chroma = 0.105 * np.abs(t)
    hue = np.deg2rad(np.where(t < 0, 250.0, 50.0))
    lab = np.stack([lightness, chroma * np.cos(hue), chroma * np.sin(hue)], axis=-1)
    return tuple("#{:02x}{:02x}{:02x}".format(*rgb) for rgb in _srgb(lab))


_TO_LMS: Final = np.array(
    [
        [1, 0.3963377774, 0.2158037573],
        [1, -0.1055613458, -0.0638541728],
        [1, -0.0894841775, -1.291485548],
    ]
)
_TO_RGB: Final = np.array(
    [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.707614701],
    ]
)


def _srgb(lab: np.ndarray[tuple[int, int], np.dtype[np.float64]]) -> list[list[int]]:
    linear = (lab @ _TO_LMS.T) ** 3 @ _TO_RGB.T
    linear = np.clip(linear, 0.0, 1.0)
    coded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    found: list[list[int]] = np.rint(255 * coded).astype(int).tolist()
    return found


DIVERGING: Final = diverging(255)

MOST: Final = 0.95
DWARFING: Final = 4.0
"""When the colours of an unbounded state leave out its largest values."""


def bound_of(values: npt.NDArray[np.floating]) -> float:
    """Return where a symmetric scale ends: at the largest size, or sooner if few dwarf the rest.

    One runaway unit would leave all others white: where the largest value is more than
    `DWARFING` times what `MOST` of the values stay within, the colours end there.
    """
    sizes = np.abs(values[np.isfinite(values)])
    if not sizes.size or not sizes.any():
        return 1.0
    largest, bound = float(sizes.max()), float(np.quantile(sizes, MOST))
    return bound if 0 < DWARFING * bound < largest else largest


def said_of_bound(values: npt.NDArray[np.floating], bound: float) -> str:
    """Return what is said of colours that end at `bound`: nothing if no value is beyond it."""
    largest = float(np.abs(values[np.isfinite(values)]).max(initial=0.0))
    if largest <= bound:
        return ""
    return f"colours end at ±{bound:,.4g}; the largest size is {largest:,.4g}"
