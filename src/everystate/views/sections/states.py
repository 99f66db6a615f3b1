"""The states: each as a heat map of all units, and below it the chosen unit among them."""

from bokeh.models import LayoutDOM

from everystate import schema
from everystate.views.figures import Scale, heat_map, strip
from everystate.views.view import View


def draw(view: View) -> list[LayoutDOM]:
    """Return two pictures for each state, the cell state first: it is the memory."""
    pictures: list[LayoutDOM] = []
    for name in sorted(view.having("state"), key=lambda name: name != schema.C):
        pictures.append(heat_map(view, name, Scale.around_zero(view.data[name].values)))
        pictures.append(strip(view, name, limits=None))
    return pictures
