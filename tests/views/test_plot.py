"""Static figures: what they are drawn from, without pixels; and that each of them is drawn."""

import subprocess
import sys

import numpy as np
import pytest
import xarray as xr

import mutations
from everystate.analysis.finding import Finding, Plot
from everystate.errors import InputError, SelectionError
from everystate.testing import importorskip

matplotlib = importorskip("matplotlib")
matplotlib.use("agg")

import matplotlib.pyplot as plt

from everystate.views import plot


@pytest.fixture(autouse=True)
def _no_figure_left_open():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def layer(make_layer):
    return make_layer("LSTM", rows=3, steps=90, units=7, features=2, batch=["a", "b", "c"])


def image_of(ax):
    return np.asarray(ax.images[0].get_array())


@pytest.mark.parametrize(
    "draw", [plot.heatmap, plot.gate_traces, plot.saturation_scatter, plot.trajectory]
)
def test_one_epoch_is_drawn_at_a_time(layer, draw):
    several = xr.concat([layer, layer], "epoch", combine_attrs="override")
    with pytest.raises(InputError, match=r"'epoch' of 2, .* trace\.isel\(epoch=-1\)"):
        draw(several)
    assert draw(several.isel(epoch=-1)).has_data()


def test_a_heat_map_shows_every_unit_of_a_row(layer):
    ax = plot.heatmap(layer, "f", row="b")
    np.testing.assert_array_equal(image_of(ax), layer.f.sel(batch="b").values.T)
    assert ax.images[0].get_clim() == (0, 1)
    assert ax.get_xlim() == (-0.5, 89.5)
    assert "forget gate f" in [other.get_ylabel() for other in ax.figure.axes]
    with mutations.must_be_noticed("another row"):
        np.testing.assert_array_equal(image_of(plot.heatmap(layer, "f")), layer.f[1].values.T)


def test_the_cell_state_is_the_default_and_its_scale_is_white_at_zero(layer):
    ax = plot.heatmap(layer)
    np.testing.assert_array_equal(image_of(ax), layer.c.values[0].T)
    low, high = ax.images[0].get_clim()
    assert -low == high == pytest.approx(np.abs(layer.c.values[0]).max())


def test_a_long_heat_map_keeps_its_extremes(make_layer):
    long = make_layer("GRU", rows=1, steps=12_345)
    long["h"][0, 7_001, 3] = -55.0
    ax = plot.heatmap(long, "h")
    assert image_of(ax)[3].min() == -55.0
    assert image_of(ax).shape[1] < 1_001
    left, right = ax.images[0].get_extent()[:2]
    place = (np.argmin(image_of(ax)[3]) + 0.5) / image_of(ax).shape[1]
    assert left + place * (right - left) == pytest.approx(7_001, abs=15)


def test_colours_that_end_early_say_so(layer):
    runaway = layer.copy(deep=True)
    runaway["c"][0, 40, 3] = 2_938.0
    ax = plot.heatmap(runaway)
    bound = ax.images[0].get_clim()[1]
    assert bound < 100
    assert ax.get_title() == f"colours end at ±{bound:,.4g}; the largest size is 2,938"
    assert ax.images[0].colorbar.extend == "both"
    plain = plot.heatmap(layer)
    assert (plain.get_title(), plain.images[0].colorbar.extend) == ("", "neither")


def test_gates_of_a_unit_and_their_mean(layer):
    ax = plot.gate_traces(layer, unit=4, row="c")
    said = ["input gate i", "forget gate f", "candidate g", "output gate o"]
    assert [line.get_label() for line in ax.lines] == said
    for line, name in zip(ax.lines, "ifgo", strict=True):
        np.testing.assert_array_equal(line.get_ydata(), layer[name].sel(batch="c", unit=4).values)
        np.testing.assert_array_equal(line.get_xdata(), np.arange(90))
    mean = plot.gate_traces(layer, row="c").lines[1].get_ydata()
    np.testing.assert_allclose(mean, layer.f.sel(batch="c").mean("unit").values, rtol=1e-5)
    dashes = {(line.get_color(), line.get_linestyle()) for line in ax.lines}
    assert len(dashes) == 4


def test_saturation_is_a_point_for_each_unit(layer):
    ax = plot.saturation_scatter(layer, edge=0.2)
    forget = ax.collections[1]
    assert forget.get_label() == "forget gate f"
    f = layer.f.values.astype(float)
    expected = np.stack([(f > 0.8).mean(axis=(0, 1)), (f < 0.2).mean(axis=(0, 1))], axis=1)
    np.testing.assert_allclose(forget.get_offsets(), expected, atol=1e-12)
    assert expected.max() > 0
    with mutations.must_be_noticed("left and right swapped"):
        np.testing.assert_allclose(forget.get_offsets(), expected[:, ::-1], atol=1e-12)


def test_a_trajectory_is_the_plane_of_most_variance(layer):
    ready = plot.prepare_trajectory(layer, "c", row="b")
    x = layer.c.sel(batch="b").values.astype(float)
    x -= x.mean(axis=0)
    u, s, _ = np.linalg.svd(x, full_matrices=False)
    for k in range(2):
        expected = u[:, k] * s[k]
        sign = np.sign(expected @ ready.position.values[k])
        np.testing.assert_allclose(ready.position.values[k], sign * expected, atol=1e-9)
        with mutations.must_be_noticed("a step later"):
            np.testing.assert_allclose(
                ready.position.values[k], sign * np.roll(expected, 1), atol=1e-9
            )
    np.testing.assert_allclose(ready.share.values, (s**2 / (s**2).sum())[:2], rtol=1e-9)
    ax = plot.trajectory(layer, "c", row="b")
    np.testing.assert_array_equal(ax.lines[0].get_xdata(), ready.position.values[0])


def test_steps_that_are_not_finite_are_no_part_of_the_path(layer):
    ragged = layer.copy(deep=True)
    ragged["h"][0, 60:] = np.nan
    assert plot.prepare_trajectory(ragged).sizes["time"] == 60


@pytest.mark.parametrize("draw", [plot.heatmap, plot.gate_traces, plot.trajectory])
def test_every_kind_of_time_is_written_as_it_is(make_layer, draw):
    hours = np.datetime64("2026-03-01", "ns") + np.arange(60) * np.timedelta64(1, "h")
    for time in (hours, [f"word{k}$x$" for k in range(60)], np.arange(60) * 0.25):
        ax = draw(make_layer("LSTM", time=time))
        ax.figure.canvas.draw()
    assert ax.figure.axes


def test_hours_lie_where_matplotlib_has_them(make_layer):
    from matplotlib.dates import date2num

    hours = np.datetime64("2026-03-01", "ns") + np.arange(60) * np.timedelta64(1, "h")
    ax = plot.gate_traces(make_layer("GRU", time=hours))
    np.testing.assert_allclose(ax.lines[0].get_xdata(), date2num(hours), rtol=1e-12)


@pytest.mark.parametrize(
    "draw", [plot.heatmap, plot.gate_traces, plot.saturation_scatter, plot.trajectory]
)
def test_each_draws_into_the_axes_it_is_given(layer, draw):
    fig, (left, right) = plt.subplots(1, 2, figsize=(9, 4))
    assert draw(layer, ax=right) is right
    assert right.has_data()
    assert not left.has_data()
    fig.canvas.draw()
    drawn = np.asarray(fig.canvas.buffer_rgba())
    assert len(np.unique(drawn.reshape(-1, 4), axis=0)) > 20


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda layer: plot.heatmap(layer, "f"), r"no variable 'f'; it holds h"),
        (plot.gate_traces, r"no gate; it holds h.*select=es\.Select"),
        (plot.saturation_scatter, "no gate with ends"),
        (lambda layer: plot.trajectory(layer, "c"), "no state 'c'"),
        (lambda layer: plot.heatmap(layer, row=9), "row=9 is not in the trace"),
        (lambda layer: plot.trajectory(layer.isel(unit=[0])), "needs two units, got 1"),
    ],
)
def test_what_was_not_recorded_is_said(make_layer, draw, message):
    with pytest.raises(SelectionError, match=message):
        draw(make_layer("SimpleRNN"))


def test_a_unit_that_is_not_there_is_said(layer):
    with pytest.raises(SelectionError, match=r"unit=70 was not recorded; there are 0, 1, 2"):
        plot.gate_traces(layer, unit=70)


@pytest.fixture
def findings():
    return [
        Finding(
            "a", "error", "enc", "Values are lost $x$.", plot=Plot("lines", "h", window=(20, 29))
        ),
        Finding("b", "warning", "enc", "Gates are shut. " * 12, plot=Plot("heat_map", "f")),
        Finding("c", "info", "enc", "Units are alike."),
    ]


def test_a_timeline_has_a_bar_for_each_finding(layer, make_trace, findings):
    trace = make_trace({"enc": layer})
    ready = plot.prepare_timeline(findings, trace)
    assert ready.start.values.tolist() == [19.5, -0.5, -0.5]
    assert ready.stop.values.tolist() == [29.5, 89.5, 89.5]
    ax = plot.timeline(findings, trace)
    assert [bar.get_x() for bar in ax.patches] == [19.5, -0.5, -0.5]
    assert [bar.get_y() for bar in ax.patches] == sorted(
        (bar.get_y() for bar in ax.patches), reverse=True
    )
    assert len({bar.get_hatch() for bar in ax.patches}) == 3
    ax.figure.canvas.draw()
    with pytest.raises(SelectionError, match="no finding to draw"):
        plot.timeline([], trace)


def test_a_finding_of_one_step_among_many_has_a_marker(make_layer, make_trace):
    trace = make_trace({"enc": make_layer("GRU", steps=3_000)})
    windows = [(1_650, 1_650), (100, 900)]
    found = [
        Finding("a", "error", "enc", "Lost.", plot=Plot("lines", "h", window=w)) for w in windows
    ]
    ax = plot.timeline(found, trace)
    (marker,) = ax.lines
    assert (marker.get_xdata().tolist(), marker.get_ydata().tolist()) == ([1_650], [1])
    assert marker.get_marker() == "D"


def test_messages_of_a_timeline_stay_in_its_axes(layer, make_trace, findings):
    fig, axes = plt.subplots(2, 2, figsize=(11, 8), layout="constrained")
    for ax in axes.flat:
        plot.timeline(findings, make_trace({"enc": layer}), ax=ax)
    fig.canvas.draw()
    for ax in axes.flat:
        assert all(t.get_window_extent().x1 < ax.get_window_extent().x1 for t in ax.texts)
        assert "[...]" in ax.texts[1].get_text()


def test_a_legend_does_not_narrow_its_neighbours(layer):
    def width(draw):
        fig, axes = plt.subplots(2, 2, figsize=(11, 8), layout="constrained")
        for ax in axes.flat:
            draw(layer, ax=ax)
        fig.canvas.draw()
        return min(ax.get_position().width for ax in axes.flat)

    assert width(plot.gate_traces) > 0.4
    with mutations.must_be_noticed("a legend in one row"):
        assert width(one_row) > 0.4


def one_row(layer, ax):
    plot.gate_traces(layer, ax=ax).legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=4)


def test_xarrays_own_plot_works_on_a_trace(layer, make_trace):
    trace = make_trace({"lstm": layer})
    mesh = trace["lstm"].c.sel(batch="b").plot(x="time")
    np.testing.assert_array_equal(mesh.get_array(), trace["lstm"].c.sel(batch="b").values.T)
    plt.figure()
    trace["lstm"].c.plot()  # a histogram of three dimensions
    assert plt.gca().patches


def test_matplotlib_is_loaded_when_something_is_drawn_and_asked_for_if_missing():
    code = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "import numpy as np, xarray as xr\n"
        "from everystate.views import plot\n"
        "from everystate.errors import MissingDependencyError\n"
        "c = xr.Dataset({'c': (('time', 'unit'), np.eye(3))})\n"
        "try: plot.heatmap(c)\n"
        "except MissingDependencyError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "needs matplotlib" in done.stdout
    assert "everystate[plot]" in done.stdout
