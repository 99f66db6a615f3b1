"""What moves the pictures: the choice of a unit, and the stretch of time; all by keyboard too."""

from collections.abc import Sequence

from bokeh.models import Button, CustomJS, Range1d, Row

from everystate.views.view import View

_CHOOSE = """
const at = Number(choice.value)
for (const name of names) {
    const image = images.data[name][0]
    const count = image.shape[1]
    columns.data[name] = Array.from({length: count}, (_, k) => image[at * count + k])
}
columns.change.emit()
for (const frame of frames) { frame.bottom = at - 0.5; frame.top = at + 0.5 }
for (const arrow of arrows) { arrow.y = at }
"""

_TAP = """
const at = Math.round(cb_obj.y)
if (at >= 0 && at < choice.options.length) { choice.value = String(at) }
"""

_MOVE = """
for (const range of ranges) {
    const [first, last] = range.bounds
    const width = Math.min((range.end - range.start) * factor, last - first)
    const middle = (range.start + range.end) / 2 + shift * (range.end - range.start)
    const start = Math.min(Math.max(middle - width / 2, first), last - width)
    range.setv({start: start, end: start + width})
}
"""

MOVES = (
    ("Earlier", -0.5, 1.0),
    ("Later", 0.5, 1.0),
    ("Zoom in", 0.0, 0.5),
    ("Zoom out", 0.0, 2.0),
    ("Whole record", 0.0, 1e9),
)
"""Name, shift and change of width of each button, both in widths shown."""


def connect_units(view: View) -> None:
    """Let the choice of a unit, or a click on a heat map, change every picture of the layer.

    It is called once all pictures are drawn.
    """
    arguments = {
        "choice": view.choice,
        "images": view.images,
        "columns": view.columns,
        "names": [view.key(name) for name in view.choosable()],
        "frames": view.frames,
        "arrows": view.arrows,
    }
    view.choice.js_on_change("value", CustomJS(args=arguments, code=_CHOOSE))
    for fig in view.heat_maps:
        fig.js_on_event("tap", CustomJS(args={"choice": view.choice}, code=_TAP))


def time_bar(ranges: Sequence[Range1d]) -> Row:
    """Return the buttons that move all linked pictures of the page in time."""
    buttons = []
    for name, shift, factor in MOVES:
        button = Button(label=name, width=110)
        arguments = {"ranges": list(ranges), "shift": shift, "factor": factor}
        button.js_on_click(CustomJS(args=arguments, code=_MOVE))
        buttons.append(button)
    return Row(children=buttons, styles={"flex-wrap": "wrap"}, sizing_mode="stretch_width")
