"""Joining the calls of one recording: along ``batch``, or along ``time`` for a stateful stream."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final, Literal, get_args

import numpy as np
import numpy.typing as npt

from everystate import schema
from everystate.errors import JoinError
from everystate.recording.replay import Recorded

Along = Literal["batch", "time"]
ALONG: Final = get_args(Along)
Attribute = str | int | float


def join(parts: Sequence[Recorded], along: Along) -> Recorded:
    """Join what several calls recorded of one layer.

    Parameters
    ----------
    parts : sequence of Recorded
        In the order of the calls, all of one path.
    along : {"batch", "time"}
        ``batch``: each call brings further rows; sequences shorter than the longest are
        padded with NaN and get a length. ``time``: each call goes on where the one before
        it stopped.

    Raises
    ------
    JoinError
        If variables, units, batch sizes (along time) or steps (along batch) do not fit.
    """
    first = parts[0]
    if len(parts) == 1:
        return first
    for k, part in enumerate(parts[1:], start=1):
        _check_alike(first, part, k)
    return _along_batch(parts) if along == "batch" else _along_time(parts)


def make_room(first: Recorded, rows: int) -> None:
    """Make room for all the chunks of a sequence whose first chunk this is.

    Parameters
    ----------
    first : Recorded
        The first chunk; its variables become views of arrays that hold the whole sequence.
    rows : int
        Recorded steps of the whole sequence.
    """
    for name, a in first.variables.items():
        first.room[name] = np.empty((rows, *a.shape[1:]), a.dtype)
        first.room[name][: len(a)] = a
        first.variables[name] = first.room[name][: len(a)]


def fill(sequence: Recorded, chunk: Recorded) -> bool:
    """Put a chunk behind those before it, where room was made; return whether there was room."""
    start, stop = sequence.steps.size, sequence.steps.size + chunk.steps.size
    if not sequence.room or any(stop > len(room) for room in sequence.room.values()):
        return False
    for name, room in sequence.room.items():
        room[start:stop] = chunk.variables[name]
        sequence.variables[name] = room[:stop]
    sequence.attrs = worst([sequence.attrs, chunk.attrs])
    sequence.steps = np.concatenate([sequence.steps, chunk.steps + sequence.length])
    sequence.length += chunk.length
    sequence.final = chunk.final
    return True


def _check_alike(first: Recorded, part: Recorded, call: int) -> None:
    for name in dict.fromkeys((*first.variables, *part.variables)):
        shapes = [p.variables[name].shape if name in p.variables else None for p in (first, part)]
        if shapes[0] is None or shapes[1] is None or shapes[0][2:] != shapes[1][2:]:
            raise JoinError(
                f"{first.path}: call {call} has {name} of shape (time, batch, ...) = {shapes[1]}, "
                f"the first call {shapes[0]}; their units must be the same to join them. "
                "Record them in two separate blocks."
            )


def _along_batch(parts: Sequence[Recorded]) -> Recorded:
    longest = max(parts, key=lambda p: p.length)
    for k, part in enumerate(parts):
        if not np.array_equal(part.steps, longest.steps[: part.steps.size]):
            raise JoinError(
                f"{part.path}: call {k} recorded steps {_brief(part.steps)}, another call "
                f"{_brief(longest.steps)}; along batch the steps must be the same. Select a window "
                "that all calls have, or join along='time'."
            )
    ragged = len({p.length for p in parts}) > 1 or any(p.lengths is not None for p in parts)
    return replace(
        longest,
        variables=_each(
            parts, lambda p: {n: _padded(a, longest.steps.size) for n, a in p.variables.items()}, 1
        ),
        initial=_each(parts, lambda p: p.initial, 0),
        final=_each(parts, lambda p: p.final, 0),
        lengths=np.concatenate([_lengths(p) for p in parts]) if ragged else None,
        attrs=worst([p.attrs for p in parts]),
    )


def _along_time(parts: Sequence[Recorded]) -> Recorded:
    first = parts[0]
    batches = [_rows(p) for p in parts]
    if len(set(batches)) > 1:
        raise JoinError(
            f"{first.path}: calls with {_brief(np.asarray(batches))} rows cannot be joined along "
            "time, a stream keeps its rows. Drop the last, smaller batch, or join along='batch'."
        )
    for k, part in enumerate(parts[:-1]):
        if part.lengths is not None and (part.lengths < part.length).any():
            raise JoinError(
                f"{first.path}: call {k} has rows shorter than its {part.length} steps, so the "
                "next call cannot follow them in time. Join along='batch'."
            )
    attrs = worst([p.attrs for p in parts])
    starts = np.cumsum([0, *(p.length for p in parts)])
    resets = [int(s) for s, a, b in zip(starts[1:], parts, parts[1:], strict=False) if breaks(a, b)]
    if resets:
        attrs["state_resets"] = ", ".join(map(str, resets))
    last = parts[-1]
    lengths = None if last.lengths is None else last.lengths + int(starts[-2])
    return replace(
        first,
        variables=_each(parts, lambda p: p.variables, 0),
        steps=np.concatenate([p.steps + s for p, s in zip(parts, starts, strict=False)]),
        length=int(starts[-1]),
        final=last.final,
        lengths=lengths,
        attrs=attrs,
    )


def breaks(before: Recorded, after: Recorded) -> bool:
    """Return whether a call starts from another state than the one before it ended with."""
    known = [name for name in after.initial if name in before.final]
    return not all(np.array_equal(before.final[n], after.initial[n], equal_nan=True) for n in known)


def _each(
    parts: Sequence[Recorded],
    arrays: Callable[[Recorded], dict[str, npt.NDArray[np.generic]]],
    axis: int,
) -> dict[str, npt.NDArray[np.generic]]:
    found = [arrays(p) for p in parts]
    return {name: np.concatenate([f[name] for f in found], axis=axis) for name in found[0]}


def _padded(a: npt.NDArray[np.generic], steps: int) -> npt.NDArray[np.generic]:
    missing = steps - a.shape[0]
    if not missing:
        return a
    return np.pad(a, ((0, missing), *((0, 0),) * (a.ndim - 1)), constant_values=np.nan)


def _rows(part: Recorded) -> int:
    return int(next(iter(part.variables.values())).shape[1])


def _lengths(part: Recorded) -> npt.NDArray[np.int64]:
    return np.full(_rows(part), part.length) if part.lengths is None else part.lengths


def worst(parts: Sequence[Mapping[str, Attribute]]) -> dict[str, Attribute]:
    """Return the attributes of several parts together: the largest errors, sums of counts."""
    attrs = {name: value for part in reversed(parts) for name, value in part.items()}
    for name in attrs:
        if name.startswith("max_error_") or name == "error_over_rounding":
            attrs[name] = max(float(p.get(name, 0.0)) for p in parts)
        elif name in ("unverified_values", "edited_steps", "weights_changed", schema.SKIPPED_ATTR):
            attrs[name] = sum(int(p.get(name, 0)) for p in parts)
    return attrs


def _brief(a: npt.NDArray[np.int64]) -> str:
    return str(a.tolist()) if a.size <= 6 else f"{a[0]}, {a[1]} ... {a[-1]} ({a.size})"
