"""Finer columns than the overview has, which a report shows when one zooms in.

They are the levels of a min/max pyramid, each with about four times the columns of the one
before, and single steps around the places that a reader will look at. All of it is text in the
page, in pieces; a script decodes the few pieces that the stretch of time shown needs.
"""

import base64
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Final

import numpy as np
import xarray as xr
from bokeh.models import CustomJS, Div

from everystate import schema
from everystate.views.prepare import COLUMNS, level_sizes, prepare, prepare_levels
from everystate.views.view import View, spans_of

LEVEL_BYTES: Final = 20_000_000
"""What the levels of a page may weigh, the overview apart, before encoding adds a third."""
WINDOW_BYTES: Final = 6_000_000
"""What the single steps may weigh."""
PIECE: Final = 500
"""Columns of a piece, about half of what is shown at once."""


@dataclass(frozen=True, eq=False)
class Level:
    """Some steps of a layer, prepared with buckets of some size.

    Parameters
    ----------
    data : xarray.Dataset
        From `everystate.views.prepare.prepare`.
    start, steps : int
        Position of the first step, and their number.
    """

    data: xr.Dataset
    start: int
    steps: int

    @property
    def size(self) -> int:
        """Steps of a bucket."""
        return int(self.data.attrs["bucket_size"])

    @property
    def each(self) -> int:
        """Columns of a bucket."""
        return self.data.sizes["column"] // self.data.sizes["bucket"]

    @property
    def chunk(self) -> int:
        """Buckets of a piece."""
        return PIECE // self.each

    def pieces(self) -> Iterator[xr.Dataset]:
        """Return the level in pieces of `PIECE` columns, the last one shorter."""
        for bucket in range(0, self.data.sizes["bucket"], self.chunk):
            columns = slice(bucket * self.each, (bucket + self.chunk) * self.each)
            yield self.data.isel(bucket=slice(bucket, bucket + self.chunk), column=columns)


@dataclass(frozen=True)
class Budget:
    """How much detail the layers of a page may have.

    Parameters
    ----------
    columns : int
        Most columns of an overview.
    finest : int
        Most columns of the finest level.
    window : int
        Steps of each of the stretches that are kept step by step.
    """

    columns: int
    finest: int
    window: int

    @classmethod
    def of(cls, columns: int, series: int, windows: int) -> "Budget":
        """Share out the bytes among so many series and windows."""
        # The coarser levels add a third to the finest.
        finest = LEVEL_BYTES * 3 // 4 // (4 * max(1, series))
        window = WINDOW_BYTES // (4 * max(1, series) * max(1, windows))
        return cls(columns, finest, min(window, COLUMNS[1]))


def prepare_detail(
    layer: xr.Dataset, budget: Budget, places: Sequence[int]
) -> tuple[xr.Dataset, list[Level]]:
    """Return the overview of one row of a layer, and all that is finer, the finest first.

    Parameters
    ----------
    layer : xarray.Dataset
        As for `everystate.views.prepare.prepare`.
    budget : Budget
        How much of it.
    places : sequence of int
        Positions of steps around which every step is kept.
    """
    steps = layer.sizes[schema.TIME]
    overview, *finer = prepare_levels(layer, level_sizes(steps, budget.columns, budget.finest))
    levels = [Level(data, 0, steps) for data in reversed(finer)]
    if not levels or levels[0].size == 1:
        return overview, levels
    windows = []
    for place in places:
        start = int(np.clip(place - budget.window // 2, 0, steps - budget.window))
        window = layer.isel({schema.TIME: slice(start, start + budget.window)})
        windows.append(Level(prepare(window, budget.window), start, budget.window))
    return overview, windows + levels


def connect_detail(view: View, levels: Sequence[Level], said: Div) -> None:
    """Let the pictures of a layer show its finer columns when one zooms in.

    It is called once all pictures are drawn.

    Parameters
    ----------
    view : View
        The layer, with its overview.
    levels : sequence of Level
        The finest first.
    said : bokeh.models.Div
        Where to say how many steps a column stands for.
    """
    if not levels:
        return
    manifest = {
        "block": view.block,
        "names": [view.key(name) for name in view.variables],
        "heights": [len(view.labels(name)) for name in view.variables],
        "wanted": COLUMNS[1],
        "levels": [_told(k, level) for k, level in enumerate(levels)],
    }
    arguments = {
        "manifest": json.dumps(manifest),
        "origin": view.axis.at(-0.5),
        "step": view.axis.step,
        "range": view.x_range,
        "images": view.images,
        "columns": view.columns,
        "buckets": view.buckets,
        "glyphs": view.image_glyphs,
        "choice": view.choice,
        "choosable": [view.key(name) for name in view.choosable()],
        "said": said,
    }
    callback = CustomJS(args=arguments, code=source_of("detail.js"))
    view.x_range.js_on_change("start", callback)
    view.x_range.js_on_change("end", callback)


def _told(k: int, level: Level) -> dict[str, Any]:
    return {
        "id": k,
        "start": level.start,
        "steps": level.steps,
        "size": level.size,
        "each": level.each,
        "chunk": level.chunk,
        "chunks": -(-level.data.sizes["bucket"] // level.chunk),
        "said": said_of(level.size),
    }


def said_of(size: int) -> str:
    """Say how many steps a pair of columns stands for."""
    if size == 1:
        return "Shown: every step."
    return f"Shown: the lowest and the highest value of every {size:,} steps. Zoom in for more."


def source_of(name: str) -> str:
    """Return a script of the page, from the folder of templates."""
    return files("everystate.views").joinpath("templates", name).read_text(encoding="utf-8")


def encoded(view: View, levels: Sequence[Level]) -> dict[str, str]:
    """Return every piece of a layer's levels as text, by the id of its element.

    A piece is two lines of base64: the values, float32, little-endian, of each variable (unit,
    column) and after them of each variable mean, low and high; and as JSON the time of its
    buckets.
    """
    found = {}
    for k, level in enumerate(levels):
        for j, piece in enumerate(level.pieces()):
            values = [piece[name].values for name in view.variables]
            values += [piece["over_units"].sel(variable=name).values for name in view.variables]
            raw = b"".join(np.ascontiguousarray(a, dtype="<f4").tobytes() for a in values)
            firsts = [view.axis.text(int(at) + level.start) for at in piece["first"].values]
            times = {"firsts": firsts, "spans": spans_of(piece, view.axis, level.start)}
            lines = (raw, json.dumps(times).encode())
            text = "\n".join(base64.b64encode(line).decode() for line in lines)
            found[f"detail-{view.block}-{k}-{j}"] = text
    return found
