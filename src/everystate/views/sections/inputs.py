"""What the layer was given."""

from bokeh.models import LayoutDOM

from everystate import schema
from everystate.views import palettes
from everystate.views.figures import Scale, heat_map, lines
from everystate.views.view import View


def draw(view: View) -> list[LayoutDOM]:
    """Return a line for each feature, or a heat map where they are too many to tell apart."""
    if schema.INPUTS not in view.variables:
        return []
    values = view.data[schema.INPUTS].values
    if len(values) <= len(palettes.DISTINCT):
        return [lines(view, schema.INPUTS)]
    return [heat_map(view, schema.INPUTS, Scale.around_zero(values))]
