"""What the explorer draws, without a browser."""

from everystate.testing import importorskip

hv = importorskip("holoviews")
importorskip("datashader")
importorskip("panel")

from everystate.views.explorer import pictures
from everystate.views.explorer.session import Session


def test_a_title_says_where_colours_end(make_layer, make_trace):
    hv.extension("bokeh")

    def title(layer):
        drawn = pictures.heat_map(Session(make_trace({"enc": layer})))
        return hv.render(drawn).title.text

    layer = make_layer("LSTM")
    assert title(layer) == "cell state c, every unit"
    layer["c"][0, 40, 3] = 2_938.0
    assert title(layer).endswith("; the largest size is 2,938)")
