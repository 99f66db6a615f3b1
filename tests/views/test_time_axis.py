"""Time axes of every kind of label."""

from datetime import UTC, date, datetime

import numpy as np
import pytest
import xarray as xr

from everystate.errors import InputError
from everystate.views.time_axis import TimeAxis

DAYS = np.array(["2026-03-01", "2026-03-02", "2026-03-03"], "datetime64[ns]")
DAY = 86_400_000.0


def axis_of(labels, **attrs):
    return TimeAxis.of(xr.DataArray(np.asarray(labels), dims="time", attrs=attrs))


@pytest.mark.parametrize(
    ("labels", "kind", "start", "step"),
    [
        ([0, 1, 2], "number", 0.0, 1.0),
        ([10, 20, 30], "number", 10.0, 10.0),
        ([0.5, 0.75, 1.0], "number", 0.5, 0.25),
        ([7], "number", 7.0, 1.0),
        (DAYS, "datetime", DAYS[0].astype(int) / 1e6, DAY),
        (["a", "b", "c"], "label", 0.0, 1.0),
        ([0, 1, 5], "label", 0.0, 1.0),
        ([3, 2, 1], "label", 0.0, 1.0),
        ([4, 4, 4], "label", 0.0, 1.0),
        ([0.0, np.nan, 2.0], "label", 0.0, 1.0),
        ([DAYS[0], np.datetime64("NaT"), DAYS[2]], "label", 0.0, 1.0),
    ],
)
def test_even_numbers_and_times_are_drawn_where_they_are(labels, kind, start, step):
    axis = axis_of(labels)
    assert (axis.kind, axis.start, axis.step, axis.size) == (kind, start, step, len(labels))


def test_ends_are_half_a_step_beyond():
    assert axis_of([10, 20, 30]).ends == (5.0, 35.0)


def test_titles_say_what_time_is():
    assert axis_of([0, 1]).title == "time step"
    assert axis_of(DAYS).title == "time"
    assert axis_of([0.0, 0.1], long_name="time since start", units="s").title == (
        "time since start (s)"
    )


@pytest.mark.parametrize(
    ("labels", "text"),
    [
        ([1200, 1201], "1200"),
        ([0.1 + 0.2, 1.3], "0.3"),
        (DAYS, "2026-03-01 00:00:00"),
        (["a", "b"], "a"),
    ],
)
def test_labels_are_written_for_people(labels, text):
    assert axis_of(labels).text(0) == text


@pytest.mark.parametrize(
    ("labels", "label", "place"),
    [
        ([10, 20, 30], 15, 15.0),
        ([10, 20, 30], np.int64(99), 99.0),
        (DAYS, "2026-03-02", DAYS[1].astype(int) / 1e6),
        (DAYS, date(2026, 3, 2), DAYS[1].astype(int) / 1e6),
        (DAYS, datetime(2026, 3, 2, tzinfo=UTC), DAYS[1].astype(int) / 1e6),
        (DAYS, DAYS[1], DAYS[1].astype(int) / 1e6),
        (["a", "b", "c"], "b", 1.0),
        ([0, 1, 5], 3, 1.5),
        ([5, 1, 0], 3, 0.5),
        ([0, 1, 5], 10, 4.0),  # twice the usual spacing of 2.5 beyond the last
        ([5, 1, 0], 10, -2.0),
        ([5, 1, 0], -5, 4.0),
        ([DAYS[0], DAYS[2], np.datetime64("NaT")], "2026-03-02", 0.5),
    ],
)
def test_labels_have_a_place(labels, label, place):
    assert axis_of(labels).place_of(label) == pytest.approx(place)


@pytest.mark.parametrize(
    ("labels", "label"),
    [([0, 1], "a"), ([0, 1], True), (DAYS, 3), (DAYS, "tomorrow?"), (["a", "b"], "c"), (["a"], 0)],
)
def test_a_label_of_another_kind_is_refused(labels, label):
    with pytest.raises(InputError, match=r"is not on the time axis, which goes from .* to "):
        axis_of(labels).place_of(label)


def test_axes_of_one_stretch_of_time_are_linked():
    steps = axis_of(np.arange(100))
    assert steps.fits(axis_of(np.arange(0, 100, 10)))
    assert not steps.fits(axis_of(np.arange(50)))
    assert not steps.fits(axis_of(DAYS))
    assert axis_of(["a", "b"]).fits(axis_of(["a", "b"]))
    assert not axis_of(["a", "b"]).fits(axis_of(["a", "c"]))
