"""Static figures for papers, drawn with matplotlib: ``es.plot.heatmap(layer, "c")``.

Each takes one layer of a trace (the timeline: a diagnosis) and an ``ax``, draws into it, and
returns it. What it draws is prepared first, as a dataset that can be read without drawing it.
"""

from everystate.views.plot.gates import gate_traces
from everystate.views.plot.paths import prepare_trajectory, trajectory
from everystate.views.plot.states import heatmap
from everystate.views.plot.units import saturation_scatter
from everystate.views.plot.verdicts import prepare_timeline, timeline

__all__ = [
    "gate_traces",
    "heatmap",
    "prepare_timeline",
    "prepare_trajectory",
    "saturation_scatter",
    "timeline",
    "trajectory",
]
