"""The diverging palette: even steps, symmetric, and safe without colour vision."""

import numpy as np

from everystate.views.marks import STYLES
from everystate.views.palettes import DISTINCT, DIVERGING, SEVERITY, diverging

WHITE = 1.0


def rgb(color):
    return np.array([int(color[k : k + 2], 16) / 255 for k in (1, 3, 5)])


def linear(color):
    c = rgb(color)
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def oklab(color):
    """The forward transform, from the published matrices."""
    to_lms = [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
    to_lab = [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
    return np.array(to_lab) @ np.cbrt(np.array(to_lms) @ linear(color))


def deuteranopic(color):
    """What is left without the green cones (Vienot, Brettel and Mollon 1999)."""
    m = [[0.29275, 0.70725, 0.0], [0.29275, 0.70725, 0.0], [-0.02234, 0.02234, 1.0]]
    return np.array(m) @ linear(color)


def test_steps_of_the_palette_are_even():
    points = np.array([oklab(color) for color in diverging(21)])  # few: colours are whole numbers
    steps = np.linalg.norm(np.diff(points, axis=0), axis=1)
    assert steps.max() / steps.min() < 1.15


def test_lightness_is_symmetric_and_lightest_in_the_middle():
    lightness = np.array([oklab(color)[0] for color in diverging(61)])
    np.testing.assert_allclose(lightness, lightness[::-1], atol=0.01)
    assert (np.diff(lightness)[:30] > 0).all()
    assert lightness[30] > 0.95


def test_the_sign_is_seen_without_green_cones():
    low, high = deuteranopic(DIVERGING[0]), deuteranopic(DIVERGING[-1])
    assert low[2] > low[0] + 0.05
    assert high[2] < high[0] - 0.05


def test_lines_are_dark_enough_on_white():
    for color in (*DISTINCT, *(color for color, _, _ in STYLES), *SEVERITY.values()):
        luminance = np.dot([0.2126, 0.7152, 0.0722], linear(color))
        assert (WHITE + 0.05) / (luminance + 0.05) > 4.5
