"""What a model answers to the beginning of a sequence: by that, one that goes on is recognised.

Weights can be compared only where they are known; layers before a recurrent one, a constant in a
compiled function or in a graph are not. Whatever they are, a model that is another one gives other
states. So the first steps are run from the state that the model itself begins with, and of each
variable two numbers a step are kept: its projection onto a fixed direction, and its size.

Rounding differs between machines and numbers of threads, so they are compared within a tolerance,
beyond which rounding may grow from step to step as in a trial (see `everystate.streaming.cutting`).
What changes the states of these steps by less than that is not seen.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import xarray as xr

from everystate import schema
from everystate.errors import NothingRecordedError, ResumeError
from everystate.recording.recorder import Recorder
from everystate.recording.verify import TOLERANCE
from everystate.streaming.cutting import GROWTH, STEPS, trace_of

Answer = dict[str, dict[str, Any]]
"""For each layer its precision, and for each variable its shape but for time, and its numbers."""

HALF: Final[Mapping[str, float]] = {"float16": 0.01, "bfloat16": 0.05}
"""In a projection the rounding of single numbers, which half precision knows, averages out."""


def answer_of(recorder: Recorder) -> Answer:
    """Return the answer that was recorded; an empty one if no layer was called."""
    try:
        return answer_in(trace_of(recorder))
    except NothingRecordedError:
        return {}


def answer_in(trace: xr.DataTree) -> Answer:
    """Return the answer that the first steps of a trace show."""
    trace = trace.isel({schema.TIME: slice(STEPS)}, missing_dims="ignore")
    return {
        leaf.path.strip("/"): {
            "precision": str(leaf.attrs.get("precision", "float32")),
            "variables": {str(name): _numbers(a) for name, a in leaf.data_vars.items()},
        }
        for leaf in trace.leaves
    }


def _numbers(a: xr.DataArray) -> dict[str, Any]:
    """Return the shape of a variable but for time, and for each step projection and size."""
    if schema.TIME not in a.dims:
        a = a.expand_dims(schema.TIME)
    steps_first = a.transpose(schema.TIME, ...)
    shape = steps_first.shape[1:]
    values = steps_first.values.astype(np.float64).reshape(steps_first.shape[0], -1)
    values = np.nan_to_num(values, nan=2.0, posinf=3.0, neginf=-3.0)
    count = max(values.shape[1], 1)
    direction = np.random.default_rng(0).standard_normal(values.shape[1])
    return {
        "shape": list(shape),
        "projection": (values @ direction / np.sqrt(count)).tolist(),
        "size": np.sqrt((values**2).sum(axis=1) / count).tolist(),
    }


def check_answer(path: Path | str, then: Answer | None, now: Answer) -> None:
    """Raise `ResumeError` if a model answers otherwise than the one that began.

    Parameters
    ----------
    path : path
        Where the recording is.
    then : mapping, optional
        The answer that is kept there. None: none is, and nothing is compared.
    now : mapping
        That of the model at hand.
    """
    told = None if then is None else difference(then, now)
    if told is not None:
        raise ResumeError(
            f"{path}: {told} Resume with the model that began, or record anew: overwrite=True."
        )


def difference(then: Answer, now: Answer) -> str | None:
    """Say where two answers part, and why that may be; None if they do not."""
    for layer in dict.fromkeys([*then, *now]):
        told = _difference(then.get(layer), now.get(layer))
        if told is not None:
            return (
                f"{layer}: {told}. For the first steps of the input the model gives other states "
                "than the one that began: its weights are others, or those of a layer before it, "
                "or it answers differently each time (dropout in training mode, a state kept "
                "inside)."
            )
    return None


def _difference(then: Any, now: Any) -> str | None:
    """Say how two answers of a layer differ; None if they do not."""
    if then is None or now is None:
        return f"{'it was' if now is None else 'it was not'} there when the recording began"
    if then["precision"] != now["precision"] or then["variables"].keys() != now["variables"].keys():
        return f"had {_said(then)}, and now {_said(now)}"
    single = TOLERANCE.get(now["precision"], TOLERANCE["float32"])
    tolerance = HALF.get(now["precision"], single)
    for name, one in then["variables"].items():
        other = now["variables"][name]
        if one["shape"] != other["shape"]:
            return f"{name} had shape {one['shape']} at each step, and now {other['shape']}"
        step = _first_apart(one, other, tolerance)
        if step is not None:
            return f"{name} differs from step {step} on"
    return None


def _said(layer: Any) -> str:
    return f"{', '.join(layer['variables'])} in {layer['precision']}"


def _first_apart(one: Any, other: Any, tolerance: float) -> int | None:
    """Return the first step at which two recordings of a variable part by more than rounding.

    One that was stopped early may have fewer of them.
    """
    steps = min(len(one["size"]), len(other["size"]))
    scale = 1.0 + np.asarray(one["size"][:steps])
    error: npt.NDArray[np.float64] = np.zeros(steps)
    for number in ("projection", "size"):
        apart = np.asarray(one[number][:steps]) - np.asarray(other[number][:steps])
        error = np.maximum(error, np.abs(apart) / scale)
    before = np.append(0.0, error[:-1])
    apart_at = np.flatnonzero(error > np.maximum(tolerance, GROWTH * before))
    return int(apart_at[0]) if apart_at.size else None
