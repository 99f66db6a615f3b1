"""The gates: each over all units, and one heat map that shows the gate one asks for."""

from bokeh.models import CustomJS, LayoutDOM, Select

from everystate.analysis.saturation import gate_range
from everystate.views.figures import Scale, add_image, blank_heat_map, strip
from everystate.views.view import View

_SHOW = """
for (const [name, parts] of Object.entries(images)) {
    for (const part of parts) { part.visible = name == cb_obj.value }
}
title.text = titles[cb_obj.value]
"""


def draw(view: View) -> list[LayoutDOM]:
    """Return a strip for each gate, then the choice of a gate and its heat map."""
    names = view.having("gate")
    if not names:
        return []
    strips = [strip(view, name, gate_range(view.data, name)) for name in names]
    return [*strips, *_heat_map(view, names)]


def _heat_map(view: View, names: list[str]) -> list[LayoutDOM]:
    shown = next((name for name in names if name in ("f", "z")), names[0])
    fig, first = blank_heat_map(view, shown), view.key(shown)
    images = {}
    for name in names:
        parts = add_image(fig, view, name, _scale(view, name))
        for part in parts:
            part.visible = view.key(name) == first
        images[view.key(name)] = parts
    options = [(view.key(name), view.long_name(name)) for name in names]
    select = Select(title="Gate in the heat map below", value=first, options=options)
    select.update(name=f"gate-{view.block}", width=220, height=50, sizing_mode="fixed")
    titles = {key: f"{name}, every unit" for key, name in options}
    arguments = {"images": images, "title": fig.title, "titles": titles}
    select.js_on_change("value", CustomJS(args=arguments, code=_SHOW))
    return [select, fig]


def _scale(view: View, name: str) -> Scale:
    ends = gate_range(view.data, name)
    if ends is None:
        return Scale.around_zero(view.data[name].values)
    return Scale.share() if ends[0] == 0.0 else Scale.symmetric(ends[1])
