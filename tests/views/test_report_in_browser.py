"""The report in a real Chromium: it is quiet, it moves as one, and it shows true values."""

import json

import numpy as np
import pytest
import xarray as xr

import everystate as es
from everystate.analysis.finding import Finding, Plot
from everystate.testing import importorskip

importorskip("bokeh")

ALL = "[...Bokeh.index.all_views()].filter(view => view.model.type == 'Figure')"
FIGURES = f"{ALL}.filter(view => view.model.x_range.bounds)"
"""Those over time, whose range has bounds."""
RANGES = f"() => {FIGURES}.map(({{model}}) => [model.x_range.start, model.x_range.end])"
BOX = f"""title => {{
    const view = {FIGURES}.find(({{model}}) => model.title.text.startsWith(title))
    view.el.scrollIntoView({{block: 'center'}})
    const {{x, y}} = view.el.getBoundingClientRect()
    const {{bbox}} = view.frame
    return [x + bbox.left, y + bbox.top, bbox.width, bbox.height]
}}"""
COLUMN = """key => {
    const all = [...Bokeh.documents[0].all_models].filter(m => m.type == 'ColumnDataSource')
    return [...all.find(m => m.data.x && m.data[key]).data[key]]
}"""
COLORS = """() => {
    const found = []
    for (const view of Bokeh.index.all_views()) {
        if (view.model.type != 'Figure') { continue }
        const {bbox} = view.frame
        const canvas = view.canvas_view.compose().canvas
        const context = canvas.getContext('2d')
        const {data} = context.getImageData(bbox.left, bbox.top, bbox.width, bbox.height)
        found.push(new Set(new Uint32Array(data.buffer)).size)
    }
    return found
}"""


DRAWN = 20
"""Colours that lines and their smooth edges have at least; an empty frame has fewer."""
BLANK = """
    for (const part of [...model.renderers, ...model.center]) { part.visible = false }
    model.outline_line_color = null
"""
TITLES = f"() => {FIGURES}.map(({{model}}) => model.title.text)"


@pytest.fixture(scope="module")
def layer(make_layer):
    return make_layer("LSTM", features=2)


@pytest.fixture(scope="module")
def small(layer, make_layer, make_trace, tmp_path_factory):
    trace = make_trace({"enc": layer, "dec": make_layer("GRU", seed=9)})
    path = tmp_path_factory.mktemp("report") / "small.html"
    return es.report(trace, path, marks={"labelled anomaly": (20, 30)})


def hover(page, title, across, up):
    """Move the pointer into a picture, and return what the tooltips say, line by line."""
    x, y, width, height = page.evaluate(BOX, title)
    page.mouse.move(x + across * width, y + (1 - up) * height)
    page.wait_for_timeout(150)
    rows = page.locator(".bk-Tooltip:visible .bk-tooltip-row-value").all_inner_texts()
    return [row.strip() for row in rows]


def test_it_opens_quietly_and_every_picture_is_drawn(small, opened):
    with opened(small) as (page, wrong):
        assert page.locator("canvas").count() > 0
        colors = page.evaluate(COLORS)
        assert len(colors) == 20
        assert min(colors) > DRAWN
        assert wrong == []
        # A blank picture would be noticed.
        page.evaluate(f"() => {ALL}.forEach(({{model}}) => {{ {BLANK} }})")
        page.wait_for_timeout(300)
        assert max(page.evaluate(COLORS)) < DRAWN


def test_a_page_that_is_not_quiet_is_noticed(opened, tmp_path):
    path = tmp_path / "loud.html"
    path.write_text(
        "<script>console.error('oh'); missing()</script><img src='http://127.0.0.1:9/x.png'>"
    )
    with opened(path, ready="document.images[0].complete") as (_, wrong):
        assert {note.split(":")[0] for note in wrong} == {"error", "request"}
        assert any("oh" in note for note in wrong)
        assert any("missing is not defined" in note for note in wrong)


SIDES = """selector => {
    const sides = [...document.querySelectorAll(selector)].map(e => e.getBoundingClientRect())
    return sides.map(({left, top, right, bottom}) => [left, top, right, bottom])
}"""


@pytest.mark.parametrize("width", [1280, 420])
def test_nothing_is_cut_off_or_hidden_behind_the_bar(small, opened, width):
    with opened(small) as (page, _):
        page.set_viewport_size({"width": width, "height": 900})
        page.wait_for_timeout(300)
        assert page.evaluate("document.documentElement.scrollWidth") == width
        for button in page.get_by_role("button").filter(visible=True).all()[:5]:
            box = button.bounding_box()
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= width
        assert min(right - left for left, _, right, _ in page.evaluate(SIDES, "th .note")) > 140
        page.locator("nav a").nth(3).click()
        page.wait_for_timeout(300)
        bar, heading = page.evaluate(SIDES, ".bar, #block2 h2")
        assert bar[3] <= heading[1] < 200
        page.add_style_tag(content="section { scroll-margin-top: 0 !important; }")
        page.add_style_tag(content=".bar { position: sticky !important; }")
        page.locator("nav a").nth(3).click()
        page.wait_for_timeout(300)
        bar, heading = page.evaluate(SIDES, ".bar, #block2 h2")
        assert bar[3] > heading[1]  # without them it would be hidden


def test_dragging_in_one_picture_zooms_all(small, opened):
    with opened(small) as (page, wrong):
        x, y, width, height = page.evaluate(BOX, "Cell state c, every unit")
        page.mouse.move(x + 0.25 * width, y + 0.5 * height)
        page.mouse.down()
        for step in range(1, 6):
            page.mouse.move(x + (0.25 + 0.05 * step) * width, y + 0.5 * height)
        page.mouse.up()
        page.wait_for_function(f"() => ({RANGES})().every(([start]) => start > 0)")
        ranges = page.evaluate(RANGES)
        assert len(ranges) == 16
        assert ranges == [ranges[0]] * 16
        assert ranges[0] == pytest.approx([-0.5 + 0.25 * 60, -0.5 + 0.5 * 60], abs=0.5)
        assert wrong == []


def test_time_moves_by_keyboard(small, opened):
    def press(page, name):
        page.get_by_role("button", name=name, exact=True).press("Enter")
        page.wait_for_timeout(100)
        return page.evaluate(RANGES)

    with opened(small) as (page, wrong):
        assert press(page, "Zoom in") == [[14.5, 44.5]] * 16
        assert press(page, "Later") == [[29.5, 59.5]] * 16
        assert press(page, "Later") == [[29.5, 59.5]] * 16  # not beyond the end
        assert press(page, "Earlier") == [[14.5, 44.5]] * 16
        assert press(page, "Zoom out") == [[-0.5, 59.5]] * 16
        press(page, "Zoom in")
        assert press(page, "Whole record") == [[-0.5, 59.5]] * 16
        assert wrong == []


def test_hovering_says_true_values(small, opened, layer):
    with opened(small) as (page, wrong):
        height = page.evaluate(BOX, "Cell state c, every unit")[3]
        for unit, across in ((2, 0.1), (5, 0.9)):
            # One lane for the mark above the units.
            up = (unit + 0.5) / 7 * (height - 9) / height
            said = hover(page, "Cell state c, every unit", across, up)
            step = int(across * 60)
            assert said[:2] == [str(unit), str(step)]
            assert float(said[2]) == pytest.approx(layer["c"][0, step, unit].item(), rel=1e-5)
            assert float(said[2]) != pytest.approx(layer["c"][0, step - 1, unit].item(), rel=1e-5)
        said = hover(page, "Forget gate f, over all units", 0.5, 0.5)
        values = layer["f"][0].values[int(said[0])].astype(float)
        assert float(said[2]) == pytest.approx(values.mean(), rel=1e-4)
        assert float(said[3]) == pytest.approx(np.quantile(values, 0.1), rel=1e-4)
        assert float(said[4]) == pytest.approx(np.quantile(values, 0.9), rel=1e-4)
        assert wrong == []


def test_a_unit_is_chosen_by_a_click_or_by_keyboard(small, opened, layer):
    def shown(page):
        return [np.array(page.evaluate(COLUMN, key)) for key in ("v0", "v1", "v5")]

    with opened(small) as (page, wrong):
        x, y, width, height = page.evaluate(BOX, "Cell state c, every unit")
        page.mouse.click(x + 0.5 * width, y + height - (height - 9) / 7 * 1.5)
        page.wait_for_timeout(150)
        for values, name in zip(shown(page), "hco", strict=True):
            np.testing.assert_allclose(values, layer[name][0, :, 1], rtol=1e-6)
        page.get_by_label("Unit", exact=True).first.select_option("6")
        page.wait_for_timeout(150)
        for values, name in zip(shown(page), "hco", strict=True):
            np.testing.assert_allclose(values, layer[name][0, :, 6], rtol=1e-6)
        assert wrong == []


def test_lines_fill_their_picture(make_layer, make_trace, opened, tmp_path):
    layer = make_layer("LSTM")
    layer["c"][:] = 1.0
    layer["c"][..., 3] = np.where(np.arange(60) < 45, 10.0, 5000.0)  # a runaway unit
    path = es.report(make_trace({"enc": layer}), tmp_path / "runaway.html")
    top = f"() => {FIGURES}.find(v => v.model.title.text.startsWith('Cell state c, over'))"
    with opened(path) as (page, wrong):
        whole = page.evaluate(f"({top})().model.y_range.end")
        page.get_by_role("button", name="Zoom in", exact=True).press("Enter")
        page.wait_for_timeout(300)
        zoomed = page.evaluate(f"({top})().model.y_range.end")  # steps 15 to 44
        page.get_by_role("button", name="Whole record", exact=True).press("Enter")
        page.get_by_label("Unit", exact=True).first.select_option("2")
        page.wait_for_timeout(300)
        flat = page.evaluate(f"({top})().model.y_range.end")
        assert whole > 5000
        assert 10 < zoomed < 20
        assert flat < whole / 2  # the band over all units is still in it
        assert wrong == []


def test_the_gate_of_the_heat_map_can_be_changed(small, opened):
    with opened(small) as (page, wrong):
        assert "Forget gate f, every unit" in page.evaluate(TITLES)
        page.get_by_label("Gate in the heat map below").first.select_option(label="Output gate o")
        page.wait_for_timeout(150)
        assert "Output gate o, every unit" in page.evaluate(TITLES)
        assert "Forget gate f, every unit" not in page.evaluate(TITLES)
        assert wrong == []


@pytest.fixture(scope="module")
def long(make_layer):
    return make_layer("LSTM", steps=20_000, units=6)


def test_a_finding_leads_to_its_steps_and_zooming_out_shows_true_extremes(
    long, make_trace, opened, tmp_path, monkeypatch
):
    monkeypatch.setattr("everystate.views.detail.LEVEL_BYTES", 600_000)
    plot = Plot("heat_map", "o", (4,), (12_345, 12_349))
    findings = [
        Finding("a", "error", "enc", "Nothing leads nowhere."),
        Finding("b", "warning", "enc", "It is stuck.", {"share": 0.5}, "mean", "rarely", plot),
    ]
    path = es.report(make_trace({"enc": long}), tmp_path / "r.html", findings=findings)
    said = "() => [...Bokeh.documents[0].all_models].find(m => m.type == 'Div').text"
    with opened(path) as (page, wrong):
        overview, columns = page.evaluate(said), page.evaluate(COLUMN, "v1")
        chosen_first = page.get_by_label("Unit", exact=True).input_value()
        page.get_by_role("button", name="Show finding 2").press("Enter")
        page.wait_for_function(f"({said})() == 'Shown: every step.'")
        start, end = page.evaluate(RANGES)[0]
        assert start < 12_345 < 12_349 < end < start + 30
        assert "Output gate o, every unit" in page.evaluate(TITLES)
        chosen, x = (np.array(page.evaluate(COLUMN, key)) for key in ("v5", "x"))
        np.testing.assert_array_equal(x, np.arange(x[0], x[0] + len(x)))
        expected = long.o[0, int(x[0]) : int(x[0]) + len(x), 4].values
        np.testing.assert_allclose(chosen, expected, rtol=1e-6)
        assert not np.allclose(chosen, np.roll(expected, 1), rtol=1e-6)
        shown = hover(page, "Output gate o, every unit", 0.5, 2.5 / 6)
        step = int(shown[1])
        assert shown[0] == "2"
        assert float(shown[2]) == pytest.approx(long.o[0, step, 2].item(), rel=1e-5)
        for _ in range(6):
            page.get_by_role("button", name="Zoom out", exact=True).press("Enter")
        page.wait_for_function(f"({said})().includes('highest value of every')")
        shown = hover(page, "Cell state c, every unit", 0.5, 3.5 / 6)
        first, last = map(int, shown[1].split(" to "))
        values = long.c[0, first : last + 1, 3].values
        assert 1 < len(values) < 40
        ends = [pytest.approx(values.min(), rel=1e-5), pytest.approx(values.max(), rel=1e-5)]
        assert float(shown[2]) in ends
        page.get_by_role("button", name="Whole record", exact=True).press("Enter")
        page.wait_for_function(f"({said})() == {json.dumps(overview)}")
        assert page.evaluate(RANGES)[0] == [-0.5, 19_999.5]
        page.get_by_label("Unit", exact=True).select_option("0")
        page.get_by_label("Unit", exact=True).select_option(chosen_first)
        assert page.evaluate(COLUMN, "v1") == columns
        assert wrong == []


HOSTILE = (
    """</script><script>window.hacked=1</script><img src=x onerror="window.hacked=1">'"$$\\a$$"""
)


def test_names_are_only_ever_text(make_layer, make_trace, opened, tmp_path):
    name = HOSTILE.replace("/", "")  # a path is split at its slashes
    labels = [f"{HOSTILE} {k}" for k in range(60)]
    layer = make_layer("GRU", features=2, time=labels, batch=[HOSTILE, "b"], feature=labels[:2])
    layer["h"].attrs["long_name"] = HOSTILE
    layer["time"].attrs["long_name"] = HOSTILE
    layer = layer.assign_attrs(direction=HOSTILE).rename(r=name)
    trace = make_trace({name: layer}, created=HOSTILE, evil_version=HOSTILE)
    plot = Plot("lines", "h", (0,), (labels[3], labels[5]), HOSTILE)
    evil = Finding(HOSTILE, "error", name, HOSTILE, {HOSTILE: HOSTILE}, HOSTILE, HOSTILE, plot)
    options = {"title": HOSTILE, "findings": [evil], "marks": {HOSTILE: (labels[3], labels[9])}}
    series = xr.DataArray(np.arange(60.0), {"time": labels}, ("time",), name=HOSTILE)
    path = es.report(trace, tmp_path / "r.html", series=series, **options)
    with opened(path) as (page, wrong):
        said = hover(page, "Input", 0.5, 0.5) + hover(page, "</script>", 0.5, 0.5)
        assert any("onerror" in text for text in said)
        page.get_by_role("button", name="Show finding 1").click()
        page.get_by_text("Evidence").click()
        assert page.title() == HOSTILE
        assert page.evaluate("window.hacked") is None
        assert page.locator("img").count() == 0
        assert wrong == []


def test_any_labels_of_time(make_layer, make_trace, opened, tmp_path):
    labels = {
        "datetime": np.datetime64("2026-03-01", "ns") + np.arange(60) * np.timedelta64(1, "h"),
        "float": np.arange(60) * 0.25,
        "string": [f"word{k}" for k in range(60)],
    }
    layers = {kind: make_layer("SimpleRNN", time=time) for kind, time in labels.items()}
    for kind, layer in layers.items():
        layer["h"].attrs["long_name"] = kind
    path = es.report(make_trace(layers), tmp_path / "r.html")
    with opened(path) as (page, wrong):
        said = [hover(page, f"{k.capitalize()} h, every unit", 0.501, 0.2)[1] for k in labels]
        assert said == ["2026-03-02 06:00:00", "7.5", "word30"]
        assert wrong == []


def test_folded_findings_are_one_click_away_and_lead_to_their_picture(
    layer, make_trace, opened, tmp_path
):
    plot = Plot("heat_map", "o", (4,), (20, 24))
    findings = [Finding("a", "warning", "enc", "It is stuck.")]
    findings += [Finding("b", "info", "enc", f"Note {k}.", plot=plot) for k in range(4)]
    path = es.report(make_trace({"enc": layer}), tmp_path / "r.html", findings=findings)
    with opened(path) as (page, wrong):
        assert page.get_by_text("It is stuck.").is_visible()
        assert not page.get_by_text("Note 3.").is_visible()
        page.get_by_text("4 more that are worth knowing, none a warning").click()
        assert page.get_by_text("Note 3.").is_visible()
        page.get_by_role("button", name="Show finding 5").press("Enter")
        page.wait_for_function(f"({RANGES})()[0][0] > 0")
        start, end = page.evaluate(RANGES)[0]
        assert start < 20 < 24 < end
        assert page.evaluate("document.querySelector('details.further ol').start") == 2
        assert wrong == []


def test_a_hundred_thousand_steps_of_512_units(make_trace, opened, tmp_path):
    steps, units = 100_000, 512
    rng = np.random.default_rng(8)
    values = rng.standard_normal((steps, 1), dtype=np.float32)
    values = values * np.linspace(0.01, 0.05, units, dtype=np.float32) + np.float32(0.5)
    values[77_777, 300] = 12.5
    data = {"c": (("time", "unit"), values)}
    layer = xr.Dataset(data, {"time": np.arange(steps)}, {"cell": "LSTM"}).expand_dims("batch")
    path = es.report(make_trace({"lstm": layer}), tmp_path / "r.html", findings=())
    assert path.stat().st_size < 45e6
    with opened(path) as (page, wrong):
        up, across = (300.5) / 512, (77_777 // 224 * 224 + 112) / steps
        found = [hover(page, "C, every unit", across + d, up) for d in (-4e-4, 4e-4)]
        assert {tuple(said[:2]) for said in found} == {("300", "77728 to 77951")}
        assert "12.5" in [said[2] for said in found]
        ticks = "model.below[0].formatter.doFormat([100000, 150000, 1250000], {loc: 0})"
        written = page.evaluate(f"() => {FIGURES}.map(({{model}}) => {ticks})")
        assert ["100000", "150000", "1250000"] in written
        assert not any("e+" in text for texts in written for text in texts)
        assert json.dumps(wrong) == "[]"
