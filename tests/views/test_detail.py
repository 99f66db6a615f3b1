"""Finer columns of a report: what is kept, within which bounds, and that its text is the values."""

import base64
import json

import numpy as np
import pytest
from bokeh.models import Div, Range1d, Span

import mutations
from everystate.testing import importorskip

importorskip("bokeh")

from everystate.views import detail
from everystate.views.detail import Budget, connect_detail, encoded, prepare_detail
from everystate.views.prepare import level_sizes, row_of
from everystate.views.time_axis import TimeAxis
from everystate.views.view import View

BUDGET = Budget(columns=100, finest=900, window=40)


def prepared(layer, places=(), budget=BUDGET):
    row = row_of(layer)
    overview, levels = prepare_detail(row, budget, places)
    axis = TimeAxis.of(row["time"])
    return View(overview, axis, Range1d(*axis.ends), Span(), []), levels


def decoded(text, heights, each):
    """The two lines of a piece: images and bands by variable, and the times."""
    values, times = (base64.b64decode(line) for line in text.split("\n"))
    times = json.loads(times)
    buckets = len(times["spans"])
    flat = np.frombuffer(values, "<f4")
    images, at = [], 0
    for height in heights:
        size = height * buckets * each
        images.append(flat[at : at + size].reshape(height, -1))
        at += size
    bands = flat[at:].reshape(len(heights), 3, buckets)
    return images, bands, times


def test_sizes_go_from_the_overview_to_the_finest():
    assert level_sizes(1_000_000, 1000, 16_000) == [2000, 500, 125]
    assert level_sizes(12_345, 1000, 100_000) == [25, 4, 1]
    assert level_sizes(900, 1000, 1000) == [1]
    assert level_sizes(10_000, 1000, 500) == [20]
    for steps in (1_001, 7_777, 123_456):
        sizes = level_sizes(steps, 100, 900)
        assert all(size % sizes[-1] == 0 for size in sizes)
        assert 2 * -(-steps // sizes[0]) <= 100
        assert 2 * -(-steps // sizes[-1]) <= 900


def test_levels_and_single_steps_are_kept(make_layer):
    layer = make_layer("GRU", steps=5_000)
    view, levels = prepared(layer, places=(2_000, 4_999))
    assert [(level.size, level.start, level.steps) for level in levels] == [
        *((1, 1_980, 40), (1, 4_960, 40)),
        *((12, 0, 5_000), (48, 0, 5_000)),
    ]
    assert view.bucket_size == 108
    np.testing.assert_array_equal(levels[0].data["h"].values, layer.h[0, 1_980:2_020].values.T)


def test_a_short_record_has_nothing_finer(make_layer):
    assert prepared(make_layer("GRU", steps=90), places=(3,))[1] == []
    steps = make_layer("GRU", steps=500)
    assert [level.size for level in prepared(steps, places=(3,))[1]] == [1, 4]


def test_the_text_of_a_page_is_the_values(make_layer):
    layer = make_layer("LSTM", steps=5_000, features=2)
    view, levels = prepared(layer, places=(3_210,))
    texts = encoded(view, levels)
    heights = [len(view.labels(name)) for name in view.variables]
    seen = 0
    for k, level in enumerate(levels):
        for j in range(-(-level.data.sizes["bucket"] // level.chunk)):
            images, bands, times = decoded(texts[f"detail-1-{k}-{j}"], heights, level.each)
            first = level.start + j * level.chunk * level.size
            for name, image, band in zip(view.variables, images, bands, strict=True):
                values = layer[name].values[0]
                for bucket in range(len(times["spans"])):
                    start = first + bucket * level.size
                    steps = values[start : min(start + level.size, level.start + level.steps)]
                    columns = image[:, bucket * level.each : (bucket + 1) * level.each]
                    np.testing.assert_array_equal(columns.min(axis=1), steps.min(axis=0))
                    np.testing.assert_array_equal(columns.max(axis=1), steps.max(axis=0))
                    assert band[0, bucket] == pytest.approx(steps.mean(dtype=float), abs=1e-5)
                    assert times["firsts"][bucket] == str(start)
                    seen += 1
            if level.size > 1 and j == 0:
                with mutations.must_be_noticed("a step later"):
                    late = layer.h.values[0, 1 : 1 + 40 * level.size]
                    lowest = late.reshape(40, level.size, 7).min(axis=1).T
                    shown = images[0].reshape(7, -1, 2).min(axis=-1)[:, :40]
                    np.testing.assert_array_equal(shown, lowest)
    assert seen > 1_000


def test_what_is_kept_has_a_bound():
    for series in (4, 1_024, 100_000):
        budget = Budget.of(1000, series, 4)
        kept = 4 * series * (budget.finest * 4 // 3 + 4 * budget.window)
        assert kept <= detail.LEVEL_BYTES + detail.WINDOW_BYTES


def test_labels_that_are_hostile_are_only_text(make_layer):
    time = [f"</script><b>{k}" for k in range(900)]
    view, levels = prepared(make_layer("SimpleRNN", steps=900, time=time))
    texts = encoded(view, levels)
    assert texts
    assert not any("<" in text for text in texts.values())
    assert decoded(texts["detail-1-0-0"], [7], levels[0].each)[2]["firsts"][5] == "</script><b>5"


def test_without_anything_finer_nothing_listens(make_layer):
    view, levels = prepared(make_layer("GRU", steps=90))
    connect_detail(view, levels, Div())
    assert view.x_range.js_property_callbacks == {}
    view, levels = prepared(make_layer("GRU", steps=900))
    connect_detail(view, levels, Div())
    assert set(view.x_range.js_property_callbacks) == {"change:start", "change:end"}
