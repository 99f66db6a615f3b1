"""One pass over as many steps as there are, in memory that does not grow with them."""

from everystate.analysis.reducers.autocorrelation import Autocorrelation
from everystate.analysis.reducers.base import Reducer
from everystate.analysis.reducers.covariance import Covariance
from everystate.analysis.reducers.histogram import Histogram
from everystate.analysis.reducers.moments import Moments
from everystate.analysis.reducers.quantiles import Quantiles
from everystate.analysis.reducers.range import Range
from everystate.analysis.reducers.run import reduced
from everystate.analysis.reducers.saturation import Saturation
from everystate.analysis.reducers.top_steps import TopSteps

__all__ = [
    "Autocorrelation",
    "Covariance",
    "Histogram",
    "Moments",
    "Quantiles",
    "Range",
    "Reducer",
    "Saturation",
    "TopSteps",
    "reduced",
]
