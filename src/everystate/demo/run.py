"""The demo: one recorded pass over the whole series, and what its states and errors say.

Scores, smoothing and thresholds were fixed before the first run over the whole series. After it,
`h` and `c` were parted, which had been one score, and the states of windows were added, because
`c` grows all through the pass, as the normal part alone shows. Every score tried is listed.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt
import xarray as xr

import everystate as es
from everystate.analysis.simple_scores import moving_z_score, past_windows
from everystate.demo.alarms import (
    Alarms,
    Floats,
    Range,
    alarms,
    distance_to_nearest,
)
from everystate.demo.autoencoder import Autoencoder, State, Windows
from everystate.demo.findings import Counter, Findings, Stretch
from everystate.demo.series import FIT, HELD_OUT, NORMAL_STEPS, WEIGHTS, Series, load_series

STRIDE: Final = 4
"""Steps from one window to the next. Every window (1) raises the same alarms; coarser strides (8,
16) miss phases of the heartbeat and with them what is normal."""
SPARSE: Final = 4
"""Of how many windows one is written down from the carried state, for its mean error."""
SMOOTH: Final = 23
"""Steps over which scores are averaged: an eighth of a window."""

Stage = Callable[[str], AbstractContextManager[Callable[[int, int], None] | None]]
"""Gets the name of a stage and returns the context to do it in; see `run`."""


def _in_silence(task: str) -> AbstractContextManager[None]:
    """Do a stage without a word."""
    return nullcontext()


def run(stage: Stage = _in_silence) -> Findings:
    """Record one pass over the whole series and score it.

    Parameters
    ----------
    stage : callable, optional
        Gets the name of a stage and returns a context to do it in, which yields what is called
        with (steps done, steps in all), or None.
    """
    model, series = Autoencoder(), load_series("TEST")
    sequence = model.scale(series.values)
    select = es.Select(variables=("states", "gates", "inputs"))
    with stage("recording") as tick:
        trace = es.record(model.encoder, sequence, select=select, progress=tick)
    trace.attrs["model"] = WEIGHTS.name
    with stage("scoring"):
        return _examine(model, series, sequence, trace)


def _examine(model: Autoencoder, series: Series, sequence: Windows, trace: xr.DataTree) -> Findings:
    states = trace["encoder"].to_dataset()
    h, c = states.h.values[0], states.c.values[0]
    ends = np.arange(model.window, series.values.size + 1, STRIDE)
    windows = model.cut(sequence, ends)
    code = model.encode(windows)
    restarted = (model.decode(code) - windows)[..., 0] ** 2
    few = ends[::SPARSE]
    carried = (model.decode((h[None, few - 1], c[None, few - 1])) - windows[::SPARSE])[..., 0] ** 2
    errors = carried.mean(axis=1), restarted[::SPARSE].mean(axis=1)

    reached = reached_in_windows(model, windows[ends <= NORMAL_STEPS])
    bounds = (0, model.window, NORMAL_STEPS, series.values.size)
    return Findings(
        series=series,
        window=model.window,
        trace=trace,
        diagnosis=es.diagnose(trace, trained_on=model.window),
        stretches=[_stretch((a, b), c, reached, few, errors) for a, b in pairwise(bounds)],
        counter=_counter(c, states.f.values[0]),
        methods=_score(sequence[0, :, 0], (h, c), code, restarted, ends),
    )


def reached_in_windows(model: Autoencoder, windows: Windows) -> tuple[Floats, Floats]:
    """Return the least and the largest `c` of each unit in windows, read as it was trained.

    A little further out, by what float32 rounds differently in batches of another size.
    """
    c = es.record(model.encoder, windows, select=es.Select(variables="c"))["encoder"].c
    low, high = c.min(["batch", "time"]).values, c.max(["batch", "time"]).values
    return low - 1e-4 * (1 + np.abs(low)), high + 1e-4 * (1 + np.abs(high))


def _stretch(
    steps: Range,
    c: npt.NDArray[np.float32],
    reached: tuple[Floats, Floats],
    ends: npt.NDArray[np.int64],
    errors: tuple[Floats, Floats],
) -> Stretch:
    here = c[slice(*steps)]
    outside = (here < reached[0]) | (here > reached[1])
    ending = (ends > steps[0]) & (ends <= steps[1])
    carried, restarted = (float(error[ending].mean()) for error in errors)
    largest = float(np.abs(here).max())
    return Stretch(steps, largest, int(outside.any(axis=0).sum()), carried, restarted)


def _counter(c: npt.NDArray[np.float32], f: npt.NDArray[np.float32]) -> Counter:
    unit = int(np.abs(c[-1]).argmax())
    c, f = c[:, unit], f[:, unit]
    return Counter(
        unit=unit,
        last_forgot=int(np.flatnonzero(f < 0.9)[-1]),
        least_forget=float(f[NORMAL_STEPS:].min()),
        growth=float((c[-1] - c[NORMAL_STEPS]) / (c.size - 1 - NORMAL_STEPS)),
    )


def _score(
    values: npt.NDArray[np.float32],
    pass_: tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]],
    code: State,
    errors: npt.NDArray[np.float32],
    ends: npt.NDArray[np.int64],
) -> dict[str, Alarms]:
    """Return the alarms of every score; fitted on `FIT`, after the first window."""
    window = int(ends[0])
    fit = slice(window, FIT.stop)
    h, c = (state.astype(np.float64) for state in pass_)
    final = np.concatenate([state[0] for state in code], axis=1).astype(np.float64)
    past = past_windows(values.astype(np.float64), window)
    after_each = distance_to_nearest(final, final[ends <= FIT.stop])
    scores = {
        "c of the one pass": distance_to_nearest(c, c[fit]),
        "h of the one pass": distance_to_nearest(h, h[fit]),
        "h and c after each window": hold(after_each, ends, values.size),
        "reconstruction error": spread(errors.astype(np.float64), ends, values.size),
        "raw windows, no network": distance_to_nearest(past, past[fit]),
        "moving z-score, no network": moving_z_score(values.astype(np.float64), window),
    }
    return {name: alarms(score, HELD_OUT, SMOOTH) for name, score in scores.items()}


def hold(score: Floats, ends: npt.NDArray[np.int64], size: int) -> Floats:
    """Return a window's score at its last step and until the next window ends; zero before.

    Examples
    --------
    >>> hold(np.array([1.0, 2.0]), np.array([3, 5]), size=6).tolist()
    [0.0, 0.0, 1.0, 1.0, 2.0, 2.0]
    """
    latest = np.searchsorted(ends, np.arange(1, size + 1), side="right") - 1
    return np.where(latest < 0, 0.0, score[latest])


def spread(errors: Floats, ends: npt.NDArray[np.int64], size: int) -> Floats:
    """Return the mean error of each step over the windows that hold it; zero where none does.

    Examples
    --------
    >>> spread(np.array([[1.0, 3.0], [5.0, 7.0]]), np.array([2, 3]), size=4).tolist()
    [1.0, 4.0, 7.0, 0.0]
    """
    steps = ends[:, None] - errors.shape[1] + np.arange(errors.shape[1])
    count = np.bincount(steps.ravel(), minlength=size)
    total = np.bincount(steps.ravel(), errors.ravel(), minlength=size)
    return np.divide(total, count, out=np.zeros(size), where=count > 0)
