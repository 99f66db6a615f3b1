"""Which units never move."""

import xarray as xr

from everystate import schema
from everystate.analysis.layer import Layer, dataset_of, finite, visible_state


def movement(layer: Layer, still_below: float = 1e-3) -> xr.Dataset:
    """Return how far each unit's state travels over time, and which units never move.

    A unit's travel is the difference of its largest and its least value over the steps of a
    row, in the row where it is largest. It is taken from ``h``, which is all that the rest of
    the model sees of a unit, or from the first recorded state where ``h`` was not recorded.

    Parameters
    ----------
    layer : xarray.DataTree or xarray.Dataset
        One layer of a trace.
    still_below : float
        A unit never moves if its travel is below this, in the units of the state: of the range
        of -1 to 1 that the ``h`` of most cells has, 0.001 is 0.05 %. A unit that holds another
        constant in each row never moves either.

    Returns
    -------
    xarray.Dataset
        ``travel`` (unit) and ``still`` (unit). The travel is NaN, and the unit not called still,
        where no row has two finite steps to compare. Empty if no state was recorded.

    Examples
    --------
    >>> h = xr.DataArray([[[0.2, 0.1], [0.2, -0.4]]], dims=("batch", "time", "unit"))
    >>> found = movement(xr.Dataset({"h": h}))
    >>> found.travel.values.tolist(), found.still.values.tolist()
    ([0.0, 0.5], [True, False])
    """
    layer = dataset_of(layer)
    name = visible_state(layer)
    if name is None:
        return xr.Dataset()
    values = finite(layer[name])
    travel = values.max(schema.TIME) - values.min(schema.TIME)
    travel = travel.where(values.notnull().sum(schema.TIME) > 1)
    if schema.BATCH in travel.dims:
        travel = travel.max(schema.BATCH)
    return xr.Dataset({"travel": travel, "still": travel < still_below}, attrs={"state": name})
