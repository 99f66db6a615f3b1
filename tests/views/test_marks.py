"""Stretches of time with a name."""

import numpy as np
import pytest
import xarray as xr

from everystate.errors import InputError
from everystate.views.marks import STYLES, check_marks, marks_of
from everystate.views.time_axis import TimeAxis

AXIS = TimeAxis.of(xr.DataArray(np.arange(100), dims="time"))


def test_a_mark_is_one_stretch_or_several():
    one, several = marks_of({"a": (3, 7), "b": [(1, 2), (50, 60)]})
    assert one.places(AXIS) == [(3.0, 7.0)]
    assert several.places(AXIS) == [(1.0, 2.0), (50.0, 60.0)]
    assert (one.color, one.hatch, one.path) == STYLES[0]
    assert (several.color, several.hatch, several.path) == STYLES[1]
    assert marks_of(None) == []


def test_labels_of_strings_make_a_stretch_too():
    axis = TimeAxis.of(xr.DataArray(list("abcd"), dims="time"))
    assert marks_of({"x": ("b", "d")})[0].places(axis) == [(1.0, 3.0)]


@pytest.mark.parametrize("stretches", [3, "ab", (1, 2, 3), [(1, 2), 3], [(1, 2, 3)], None])
def test_something_else_is_refused(stretches):
    with pytest.raises(InputError, match=r"mark 'x' is .*; expected \(start, stop\)"):
        marks_of({"x": stretches})


def test_a_stretch_may_not_end_before_it_starts():
    with pytest.raises(InputError, match="mark 'x': 3 comes before 7; expected"):
        marks_of({"x": (7, 3)})[0].places(AXIS)


def test_a_stretch_beyond_every_axis_is_refused():
    long = TimeAxis.of(xr.DataArray(np.arange(3_000), dims="time"))
    beyond = marks_of({"a": [(2, 5), (5_000, 6_000)]})
    with pytest.raises(InputError, match=r"mark 'a': 5000 to 6000 is beyond .* from 0 to 99"):
        check_marks(beyond, [AXIS, long])
    check_marks(marks_of({"a": [(90, 300), (2_000, 2_100)]}), [AXIS, long])
