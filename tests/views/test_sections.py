"""Sections without pixels: what they draw, and what they decline."""

import numpy as np
import pytest
import xarray as xr

from everystate.testing import importorskip

importorskip("bokeh")

from bokeh.models import HoverTool, LinearColorMapper, Range1d, Span
from bokeh.palettes import Cividis256
from bokeh.plotting import figure

from everystate.views.figures import Scale
from everystate.views.marks import marks_of
from everystate.views.prepare import prepare, row_of
from everystate.views.sections import gates, inputs, states
from everystate.views.time_axis import TimeAxis
from everystate.views.view import View, plain


def view_of(layer, marks=None, columns=1000):
    layer = row_of(layer)
    axis = TimeAxis.of(layer["time"])
    x_range = Range1d(start=axis.ends[0], end=axis.ends[1])
    return View(prepare(layer, columns), axis, x_range, Span(), marks_of(marks))


def titles(parts):
    return [part.title.text for part in parts if isinstance(part, figure)]


def test_states_come_with_the_memory_first(make_layer):
    assert titles(states.draw(view_of(make_layer("LSTM")))) == [
        *("Cell state c, every unit", "Cell state c, over all units"),
        *("Hidden state h, every unit", "Hidden state h, over all units"),
    ]


def test_gates_have_a_strip_each_and_one_heat_map(make_layer):
    parts = gates.draw(view_of(make_layer("GRU")))
    assert titles(parts) == [
        *("Reset gate r, over all units", "Update gate z, over all units"),
        *("Candidate n, over all units", "Update gate z, every unit"),
    ]
    images = parts[-1].renderers
    assert [image.visible for image in images] == [False, True, False]
    palettes = [image.glyph.color_mapper.palette for image in images]
    assert [tuple(p) == Cividis256 for p in palettes] == [True, True, False]


def test_sections_decline_what_is_not_there(make_layer):
    view = view_of(make_layer("SimpleRNN"))
    assert gates.draw(view) == []
    assert inputs.draw(view) == []
    assert titles(states.draw(view)) == [
        *("Hidden state h, every unit", "Hidden state h, over all units")
    ]


@pytest.mark.parametrize(("features", "kind"), [(1, "Line"), (6, "Line"), (7, "Image")])
def test_many_features_become_a_heat_map(make_layer, features, kind):
    (fig,) = inputs.draw(view_of(make_layer("GRU", features=features)))
    assert {type(renderer.glyph).__name__ for renderer in fig.renderers} == {kind}
    assert len(fig.renderers) == (features if kind == "Line" else 1)


def test_an_image_lies_where_its_steps_lie(make_layer):
    layer = make_layer("GRU", steps=617, time=np.arange(617) * 10 + 5)
    view = view_of(layer, columns=100)
    glyph = states.draw(view)[0].renderers[0].glyph
    assert glyph.x == 0.0  # half a step of 10 before the first, 5
    assert glyph.dw == 48 * 13 * 10  # every bucket whole, the last one beyond the end
    assert view.columns.data["x"][0] == pytest.approx(5 + 10 * (13 / 4 - 0.5))
    assert view.columns.data["span"][0] == view.columns.data["span"][1] == "5 to 125"


def test_the_unit_that_moves_most_is_chosen(make_layer):
    layer = make_layer("LSTM")
    layer["h"][0, :, 6] = np.linspace(-99, 99, 60)
    layer["c"][0, :, 4] = np.linspace(-9, 9, 60)
    view = view_of(layer)
    assert view.choice.value == "4"
    assert view_of(layer.drop_vars("c")).choice.value == "6"
    np.testing.assert_array_equal(view.columns.data[view.key("c")], layer["c"][0, :, 4])


def test_projected_units_are_not_what_a_choice_of_unit_is_about(make_layer):
    layer = make_layer("LSTM")
    h = layer["h"].isel(unit=slice(3)).rename(unit="projected_unit")
    view = view_of(layer.drop_vars("h").assign(h=h))
    assert "h" not in view.choosable()
    parts = states.draw(view)
    assert titles(parts)[2] == "Hidden state h, every projected unit"
    assert len(view.heat_maps) == 1


def test_few_outliers_do_not_blind_the_colours():
    rng = np.random.default_rng(2)
    values = rng.normal(size=(50, 200)).astype(np.float32)
    assert Scale.around_zero(values).high == np.abs(values).max()
    values[3] = 400.0 + 5000.0 * np.arange(200)  # one runaway unit of fifty
    scale = Scale.around_zero(values)
    assert 1.5 < scale.high < 3.0
    assert scale.low == -scale.high
    values[3, 8] = np.inf
    values[3, 9] = np.nan
    assert Scale.around_zero(values).high == pytest.approx(scale.high, rel=1e-2)
    for poor in (np.zeros((2, 2)), np.full((2, 2), np.nan), np.full((2, 2), np.inf)):
        assert Scale.around_zero(poor.astype(np.float32)).high == 1.0


def test_outliers_are_told_in_the_title(make_layer):
    layer = make_layer("LSTM", steps=600)
    layer["c"][0, 11:13, 3] = -400.0
    title = titles(states.draw(view_of(layer)))[0]
    assert "the largest size is 400" in title


def test_marks_are_in_every_picture(make_layer):
    view = view_of(make_layer("LSTM", features=2), marks={"a": (3, 7), "b": [(1, 2), (9, 12)]})
    parts = [*inputs.draw(view), *states.draw(view), *gates.draw(view)]
    for fig in (part for part in parts if isinstance(part, figure)):
        boxes = [box for box in fig.center if getattr(box, "left", None) in (3.0, 1.0, 9.0)]
        assert len(boxes) == 3
    assert view.frames  # units of 22 screen lines leave room for a frame


def test_several_features_have_a_legend_in_their_colours(make_layer):
    (fig,) = inputs.draw(view_of(make_layer("LSTM", features=2, feature=["load", "$$a"])))
    (legend,) = fig.legend
    assert [item.label["value"] for item in legend.items] == ["load", plain("$$a")]
    colors = [item.renderers[0].glyph.line_color for item in legend.items]
    assert colors == [line.glyph.line_color for line in fig.renderers]
    assert len(set(colors)) == 2
    (alone,) = inputs.draw(view_of(make_layer("LSTM", features=1)))
    assert not alone.legend


def test_gates_without_ends_are_drawn_as_states_are(make_layer):
    layer = make_layer("LSTM").assign_attrs(activation="relu", recurrent_activation="sigmoid")
    parts = gates.draw(view_of(layer))
    mappers = parts[-1].select({"type": LinearColorMapper})
    assert {mapper.low for mapper in mappers} >= {0.0}
    assert any(mapper.low < 0 for mapper in mappers)


POOR = {
    "one step": lambda layer: layer.isel(time=[0]),
    "one unit": lambda layer: layer.isel(unit=[3]),
    "only h": lambda layer: layer[["h"]],
    "only gates": lambda layer: layer.drop_vars(["h", "c"]),
    "all NaN": lambda layer: xr.full_like(layer, np.nan),
    "infinite": lambda layer: xr.full_like(layer, np.inf),
    "constant": xr.zeros_like,
    "half precision": lambda layer: layer.astype("float16"),
    "no feature labels": lambda layer: layer.assign(inputs=(DIMS, np.ones((2, 60, 9)))),
}
DIMS = ("batch", "time", "feature")


@pytest.mark.parametrize("poor", POOR)
def test_poor_layers_can_be_drawn(make_layer, poor, recwarn):
    view = view_of(POOR[poor](make_layer("LSTM")))
    parts = [*inputs.draw(view), *states.draw(view), *gates.draw(view)]
    drawn = " ".join(titles(parts))
    assert all(view.long_name(name) in drawn for name in view.variables)
    assert [str(w.message) for w in recwarn] == []


HOSTILE = "@{x} $x <img src=x onerror=alert(1)> $$\\alpha$$ \\(y\\) \\[z\\]"


def test_names_never_become_part_of_a_template_or_column(make_layer):
    layer = make_layer("SimpleRNN", features=2, feature=[HOSTILE, "b"]).rename(h=HOSTILE)
    del layer.attrs["cell"]
    layer[HOSTILE].attrs["long_name"] = HOSTILE
    view = view_of(layer)
    parts = [*inputs.draw(view), *states.draw(view)]
    assert all(name[0] in "vxs" and len(name) < 12 for name in view.columns.column_names)
    for part in parts:
        for hover in part.select({"type": HoverTool}):
            assert "alert" not in str(hover.tooltips)
    for title in titles(parts):
        assert "$$" not in title
        assert "\\(" not in title
        assert "\\[" not in title


def test_plain_text_looks_the_same():
    assert plain("cost in $ and (x)") == "cost in $ and (x)"
    assert plain("$$a$$").replace("\u200b", "") == "$$a$$"
