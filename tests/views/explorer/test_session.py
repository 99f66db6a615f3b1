"""What is chosen in an explorer and what follows from it, without a browser."""

import numpy as np
import pytest
import xarray as xr

from everystate.errors import InputError, SelectionError, TraceFormatError
from everystate.testing import importorskip
from everystate.views.explorer.session import Session

importorskip("scipy")


@pytest.fixture
def trace(make_layer, make_trace):
    return make_trace({"dec": make_layer("GRU"), "enc": make_layer("LSTM", units=5, seed=8)})


@pytest.fixture
def session(trace):
    return Session(trace)


def test_one_epoch_is_explored_at_a_time(trace):
    with pytest.raises(InputError, match=r"trace\.isel\(epoch=-1\)"):
        Session(trace.map_over_datasets(lambda d: d.expand_dims(epoch=3) if d.data_vars else d))


def test_it_begins_with_the_whole_first_layer(session):
    assert (session.layer, session.variable) == ("dec", "h")
    assert session.window == (-0.5, 59.5)
    assert session.variables == list("hrzn")
    assert session.rows == [0, 1]
    session.choose_layer("enc")
    assert session.units.tolist() == [0, 1, 2, 3, 4]


def test_what_is_shown_is_the_row_of_the_trace(session, trace):
    session.row, session.variable = 1, "z"
    session.show(9.5, 29.5)
    shown = session.stretch()
    np.testing.assert_array_equal(shown.values.extremes, trace["dec"].z.values[1, 10:30].T)
    assert session.stretch() is shown
    session.move(0.5, 1.0)
    assert session.window == (19.5, 39.5)
    assert session.stretch().first == 20


def test_time_moves_within_the_record(session):
    session.move(0.0, 0.5)
    assert session.window == (14.5, 44.5)
    session.move(5.0, 1.0)
    assert session.window == (29.5, 59.5)
    session.move(-9.0, 1.0)
    assert session.window == (-0.5, 29.5)
    session.move(0.0, 1e9)
    assert session.window == (-0.5, 59.5)
    session.show(10.2, 10.3)
    assert session.window[1] - session.window[0] == 2


def test_a_selection_is_of_whole_steps(session, trace):
    session.select(9.6, 14.4)
    assert session.selection == (10, 15)
    session.picked = [4, 2]
    selected = session.selected()
    xr.testing.assert_identical(
        selected, trace["dec"].to_dataset().isel(batch=0, time=slice(10, 15), unit=[2, 4])
    )
    session.select(9.6, 9.9)
    assert session.selection is None
    with pytest.raises(SelectionError, match="select a stretch of time first"):
        session.selected()


@pytest.mark.parametrize("text", ["20:30", " 20 : 30 ", "20.0:30"])
def test_a_selection_can_be_written(session, text):
    session.select_labels(text)
    assert session.selection == (20, 31)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("20", "expected 'first : last'"),
        ("a:b", r"'a' is no step of the record\. The record goes from 0 to 59\."),
        (" 30 : 20 ", r"^'30 : 20': 20 comes before 30\. "),
        ("500 : 600", r"no step lies there\. The record goes from 0 to 59\."),
    ],
)
def test_what_is_written_wrongly_is_said_and_selects_nothing(session, text, message):
    session.select_labels("20 : 30")
    with pytest.raises(InputError, match=message):
        session.select_labels(text)
    assert session.selection is None


def test_a_selection_is_written_as_it_is_read(session):
    session.select(9.6, 14.4)
    assert session.written == "10 : 14"
    session.select_labels("55 : 600")
    assert session.written == "55 : 59"
    session.select_labels(" ")
    assert (session.selection, session.written) == (None, "")


def test_dates_have_colons_of_their_own(make_layer, make_trace):
    hours = np.datetime64("2026-03-01", "ns") + np.arange(60) * np.timedelta64(1, "h")
    session = Session(make_trace({"gru": make_layer("GRU", time=hours)}))
    session.select_labels("2026-03-01T05:00 : 2026-03-01T09:00")
    assert session.selection == (5, 10)


def test_stretches_like_the_selection_are_found(make_layer, make_trace):
    layer = make_layer("GRU", rows=1, steps=300)
    layer["h"][0, 200:220] = layer["h"][0, 40:60].values + 1e-3
    session = Session(make_trace({"gru": layer}))
    session.select(40, 59)
    found = session.similar(count=2)
    assert found.start.values.tolist() == [40, 200]
    assert found.distance.values[1] < 0.01


def test_a_search_of_too_much_says_what_to_do(session, monkeypatch):
    monkeypatch.setattr("everystate.views.explorer.session.SEARCHED", 130)
    session.select(0, 5)
    with pytest.raises(SelectionError, match="pick at most 2 units"):
        session.similar()
    session.picked = [1, 2]
    assert session.similar().sizes["match"] > 0


def test_another_trace_is_shown_beside_it(trace, make_layer, make_trace):
    other = make_trace({"dec": make_layer("GRU", seed=77), "enc": make_layer("GRU")})
    session = Session(trace, compare=other)
    both = (trace["dec"].h.values[0].T, other["dec"].h.values[0].T)
    np.testing.assert_array_equal(session.stretch("other").values.extremes, both[1])
    np.testing.assert_array_equal(session.stretch("difference").values.extremes, both[0] - both[1])
    session.choose_layer("enc")
    session.variable = "c"
    with pytest.raises(InputError, match="no c in layer 'enc'"):
        session.source("other")
    session.variable = "h"
    with pytest.raises(InputError, match="60 steps of 7 units in 'enc', this one 60 of 5"):
        session.source("difference")


def test_a_trace_that_grows_is_followed_at_its_end(make_layer, make_trace):
    layer = make_layer("GRU", steps=90)
    steps = iter([60, 60, 75, 90])

    def reopen():
        return make_trace({"gru": layer.isel(time=slice(next(steps)))})

    session = Session(reopen(), reopen=reopen)
    assert not session.follow()
    assert session.follow()
    assert session.window == (-0.5, 74.5)
    session.show(54.5, 74.5)
    assert session.follow()
    assert session.window == (69.5, 89.5)
    np.testing.assert_array_equal(session.stretch().values.extremes, layer.h.values[0, 70:90].T)


def test_a_view_of_the_past_stays_where_it_is(make_layer, make_trace):
    layer = make_layer("GRU", steps=90)
    session = Session(
        make_trace({"gru": layer.isel(time=slice(60))}), reopen=lambda: make_trace({"gru": layer})
    )
    session.show(9.5, 19.5)
    assert session.follow()
    assert session.window == (9.5, 19.5)
    assert not Session(session.trace).follow()


def test_what_does_not_fit_is_refused_at_once(trace):
    with pytest.raises(TraceFormatError):
        Session("run.zarr")
    with pytest.raises(InputError, match="series has shape"):
        Session(trace, scores={"score": np.zeros(7)})
    with pytest.raises(InputError, match="is not on the time axis"):
        Session(trace, labels={"odd": ("a", "b")})


def test_labels_beyond_the_record_are_refused(trace):
    with pytest.raises(InputError, match=r"mark 'a': 5000 to 6000 is beyond"):
        Session(trace, labels={"a": (5_000, 6_000)})
