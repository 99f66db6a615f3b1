"""How all pictures look."""

from typing import Final

from bokeh.themes import Theme

from everystate.views.palettes import INK, QUIET, RULE

FONT: Final = "system-ui, 'Segoe UI', Roboto, 'Liberation Sans', sans-serif"

_TICKS: Final = {
    "major_label_text_font": FONT,
    "major_label_text_font_size": "11px",
    "major_label_text_color": INK,
}
THEME: Final = Theme(
    json={
        "attrs": {
            "Title": {
                "text_font": FONT,
                "text_color": INK,
                "text_font_size": "13px",
                "standoff": 4,
            },
            "Axis": {
                **_TICKS,
                "axis_label_text_font": FONT,
                "axis_label_text_font_size": "12px",
                "axis_label_text_font_style": "normal",
                "axis_label_text_color": INK,
                "axis_line_color": RULE,
                "major_tick_line_color": QUIET,
                "minor_tick_line_color": None,
            },
            "ColorBar": {**_TICKS, "bar_line_color": RULE, "padding": 4},
            "Grid": {"grid_line_color": "#ececec"},
            "Plot": {"outline_line_color": RULE},
        }
    }
)
