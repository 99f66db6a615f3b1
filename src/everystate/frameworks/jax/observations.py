"""What a tap found, as `Observation`s: cells by their tags, other scans by what they carry."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np
import numpy.typing as npt
from array_api_compat import array_namespace

from everystate.frameworks.jax.devices import gathered
from everystate.frameworks.jax.naming import state_names
from everystate.frameworks.jax.records import Found, FoundScan, FoundTag, Tagged, is_key
from everystate.frameworks.jax.scans import paths
from everystate.frameworks.jax.tags import Call
from everystate.recording.custom import distinct
from everystate.recording.observation import Lengths, Observation, turn, widened
from everystate.recording.trace import weights_digest

Host = npt.NDArray[Any]
Tags = Mapping[tuple[str, str], Tagged]
"""The tags of one call of a cell, by role and name."""
Name = Callable[[str], str]


def observations(found: Sequence[Found], name: Name = str) -> list[Observation]:
    """Return an observation of each cell and of each other scan.

    Parameters
    ----------
    found : sequence of FoundScan, FoundTag or Untapped
        What was found in one run of a model.
    name : callable
        Turns a scan's name scope into a path of the trace.
    """
    fetched: list[Found] = jax.device_get(_without_keys(found))
    return list(_observed(fetched, name, {}, ""))


def _without_keys(found: Sequence[Found]) -> list[Any]:
    """Leave out random keys, which are no numbers, and keep their place."""
    plain = jax.tree.map(lambda a: jax.random.key_data(a) if is_key(a) else a, list(found))
    return list(plain)


def _observed(
    found: Sequence[Found], name: Name, lengths: Mapping[Call, Host], outer: str
) -> Iterator[Observation]:
    alone = [f for f in found if isinstance(f, FoundTag)]
    lengths = {
        **lengths,
        **{f.mark.call: _flat(f.value) for f in alone if f.mark.role == "lengths"},
    }
    yield from _stepped(alone)
    scans = [f for f in found if isinstance(f, FoundScan)]
    for path, scan in zip(paths(scans), scans, strict=True):
        if not np.all(scan.ran):
            continue
        path = f"{outer}/{name(path)}" if outer else name(path)
        groups = by_call([(t.mark.call, t) for t in scan.tags])
        for call, tags in groups:
            if any(role == "after" for role, _ in tags):
                yield _of_cell(call, tags, scan, lengths.get(call.within or call))
        yield from _of_carry(path, scan, {call.path for call, _ in groups})
        yield from _inside(scan, name, lengths, path)


def _inside(
    scan: FoundScan, name: Name, lengths: Mapping[Call, Host], path: str
) -> Iterator[Observation]:
    """Yield what was observed in a scan's body: rows of a map, else a call, or layer, a step."""
    leaves = jax.tree.leaves(scan.inner)
    if not leaves:
        return
    if not scan.carried:
        differ = jax.tree.map(lambda _: True, scan.inner)
        yield from _observed(
            _with_constants(scan, gathered(scan.inner, differ)), name, lengths, path
        )
        return
    calls = []
    for step in range(len(leaves[0])):
        inner = jax.tree.map(lambda a, step=step: a[step], scan.inner)
        known = {**lengths, **_inner_lengths(scan, step)}
        calls.append(list(_observed(_with_constants(scan, inner), name, known, path)))
    yield from _told_apart(calls)


def _told_apart(calls: Sequence[Sequence[Observation]]) -> Iterator[Observation]:
    """Yield what each step of an outer scan did; a cell with other weights is another layer."""
    digests: dict[str, set[str]] = {}
    for seen in (seen for call in calls for seen in call):
        found = "" if seen.weights is None else weights_digest(seen.weights)
        digests.setdefault(seen.path, set()).add(found)
    for step, call in enumerate(calls):
        for seen in call:
            apart = len(digests[seen.path]) > 1
            yield replace(seen, path=f"{seen.path}/layer_{step}") if apart else seen


def _with_constants(scan: FoundScan, inner: Sequence[Found]) -> list[Found]:
    """Return what was found in a scan's body with all its constants, also those of the scan."""

    def whole(f: Found) -> Found:
        if not isinstance(f, FoundScan):
            return f
        own = iter(f.constants)
        constants = [next(own) if k is None else scan.constants[k] for k in f.sources]
        return replace(f, constants=constants, sources=(None,) * len(constants))

    return [whole(f) for f in inner]


def _inner_lengths(scan: FoundScan, step: int) -> dict[Call, Host]:
    found = [t for t in scan.tags if t.mark.role == "lengths"]
    return {t.mark.call: _flat(value_of(scan, t)[step]) for t in found}


def by_call(tags: Sequence[tuple[Call, Tagged]]) -> list[tuple[Call, dict[tuple[str, str], Any]]]:
    """Gather tags by the call they belong to; a role that comes again begins another call."""
    groups: list[tuple[Call, dict[tuple[str, str], Any]]] = []
    latest: dict[Call, dict[tuple[str, str], Any]] = {}
    for call, t in tags:
        role = t.mark.role, t.mark.name
        if call not in latest or role in latest[call]:
            latest[call] = {}
            groups.append((call, latest[call]))
        latest[call][role] = t
    return groups


def value_of(scan: FoundScan, t: Tagged) -> Any:
    """Return a tagged value at every step, (time, ...); of a constant, the value."""
    kind, k = t.where
    if kind == "before":
        return before_each(scan.carried[k], scan.initial[k], scan.reverse)
    arrays = {
        "after": scan.carried,
        "xs": scan.xs,
        "stacked": scan.stacked,
        "constant": scan.constants,
    }
    return arrays[kind][k]


def before_each(after: Any, initial: Any, reverse: bool = False) -> Any:
    """Return the state before each step from that after each."""
    xp = array_namespace(after)
    first = xp.astype(xp.asarray(initial), after.dtype)[None]
    return xp.concat([after[1:], first] if reverse else [first, after[:-1]])


def _of_cell(call: Call, tags: Tags, scan: FoundScan, lengths: Lengths | None) -> Observation:
    """Return the observation of one cell that a scan steps."""
    constants = {n: t for (role, n), t in tags.items() if role == "weight"}
    fixed = all(t.where[0] == "constant" and not t.mapped for t in constants.values())
    weights = {n: value_of(scan, t) for n, t in constants.items()} if fixed else {}
    after = {s: _rows(value_of(scan, tags["after", s]), tags["after", s]) for s in call.states}
    carried = all(
        tags["before", s].where[0] == "before"
        and tags["after", s].where == ("after", tags["before", s].where[1])
        for s in call.states
    )
    before = {s: _rows(value_of(scan, tags["before", s]), tags["before", s]) for s in call.states}
    first = -1 if scan.reverse else 0
    shown = tags.get(("input", "x"))
    count = len(next(iter(after.values())))
    inputs = None
    if shown is not None:
        x = value_of(scan, shown)
        inputs = _rows(np.repeat(x[None], count, 0) if shown.where[0] == "constant" else x, shown)
    steps = Steps(
        after, {s: a[first] for s, a in before.items()}, inputs, None if carried else before
    )
    return finished(call, steps, weights, lengths=lengths, reverse=scan.reverse)


@dataclass(frozen=True, eq=False)
class Steps:
    """What a cell showed, in the order in which its layer turned it; as `Observation` has it."""

    after: Mapping[str, Host]
    initial: Mapping[str, Host]
    inputs: Host | None = None
    previous: Mapping[str, Host] | None = None


def finished(
    call: Call,
    steps: Steps,
    weights: Mapping[str, Host],
    *,
    lengths: Lengths | None = None,
    reverse: bool = False,
) -> Observation:
    """Return an observation of a cell, its sequences in the order of the inputs.

    Parameters
    ----------
    call : Call
        The cell.
    steps : Steps
        What it showed.
    weights : mapping
        What was tagged as weight; empty if it changes from step to step.
    lengths : ndarray of int, optional
        Valid steps of each row.
    reverse : bool
        Whether the scan itself runs backwards.
    """
    after, previous = steps.after, steps.previous
    canonical = None
    if call.weights is not None and weights:
        canonical = call.weights({n: widened(a) for n, a in weights.items()})
    rows = max(a.shape[1] for a in after.values())

    def of_all_rows(a: Host) -> Host:
        return np.broadcast_to(widened(a), (*a.shape[:-2], rows, a.shape[-1]))

    def in_order(a: Host) -> Host:
        a = of_all_rows(a)
        return turn(a, lengths) if call.reverse else a

    order = [s for s in (call.cell.states if call.cell else call.states) if s in after]
    return Observation(
        path=call.path,
        observed={s: in_order(after[s]) for s in order},
        initial={s: of_all_rows(steps.initial[s]) for s in order},
        inputs=None if steps.inputs is None else in_order(steps.inputs),
        cell=None if canonical is None else call.cell,
        weights=canonical,
        previous=previous and {s: in_order(previous[s]) for s in order},
        lengths=lengths,
        reverse=reverse != call.reverse,
        precision=call.precision or str(after[call.states[0]].dtype),
        attrs=call.attrs,
    )


def _stepped(found: Sequence[FoundTag]) -> Iterator[Observation]:
    """Yield the observation of each cell that is called step by step, in no scan."""
    steps: dict[Call, list[dict[tuple[str, str], FoundTag]]] = {}
    for call, tags in by_call([(f.mark.call, f) for f in found]):  # type: ignore[misc]
        if any(role == "after" for role, _ in tags):
            steps.setdefault(call, []).append(tags)
    for call, groups in steps.items():

        def values(
            role: str, name: str, groups: list[dict[tuple[str, str], FoundTag]] = groups
        ) -> Host:
            found = [g[role, name] for g in groups]
            taken = [_rows(f.value[None], f)[0] for f in found]
            rows = max(a.shape[0] for a in taken)  # a first state may be the same for all
            return np.stack([np.broadcast_to(a, (rows, a.shape[1])) for a in taken])

        before = {s: values("before", s) for s in call.states}
        shown = values("input", "x") if ("input", "x") in groups[0] else None
        taken = Steps(
            {s: values("after", s) for s in call.states},
            {s: a[0] for s, a in before.items()},
            shown,
            before,
        )
        weights = {n: f.value for (role, n), f in groups[0].items() if role == "weight"}
        yield finished(call, taken, weights)


def _rows(a: Host, t: Tagged | FoundTag) -> Host:
    """Return (time, rows, units): mapped axes and axes of the batch are rows."""
    for lead, axis in enumerate(reversed(t.mapped)):
        a = np.moveaxis(a, 1 + lead + axis, 1 + lead)
    features = t.mark.call.feature_axes
    at = max(a.ndim - min(features, t.mark.rank), 1)
    return a.reshape((a.shape[0], int(np.prod(a.shape[1:at])), int(np.prod(a.shape[at:]))))


def _of_carry(path: str, scan: FoundScan, taken: set[str]) -> Iterator[Observation]:
    """Yield what a scan carries beside the states of the cells in it."""
    told = {
        t.where[1]
        for t in scan.tags
        if t.mark.role in ("before", "after") and t.where[0] in ("before", "after")
    }
    names = state_names(scan.names)
    rest = [k for k in range(len(scan.carried)) if k not in told]
    numbers = [k for k in rest if jax.numpy.issubdtype(scan.carried[k].dtype, np.inexact)]
    if not numbers:
        return
    left_out = [names[k] for k in rest if k not in numbers]
    batch = _batch([scan.initial[k].shape for k in numbers])
    observed = _real({names[k]: scan.carried[k] for k in numbers}, names)
    initial = _real({names[k]: scan.initial[k][None] for k in numbers}, names)
    yield Observation(
        path=path if path not in taken else f"{path}/carried",
        observed={name: _as_rows(a, batch) for name, a in observed.items()},
        initial={name: _as_rows(a, batch)[0] for name, a in initial.items()},
        reverse=scan.reverse,
        precision=str(scan.carried[numbers[0]].real.dtype),
        attrs={
            "module": scan.source.partition(" at ")[0] or "scan",
            **({"not_numbers": ", ".join(left_out)} if left_out else {}),
        },
    )


def _real(states: Mapping[str, Host], taken: Sequence[str]) -> dict[str, Host]:
    """Return states of real numbers: a complex one as its two parts, ``h_real`` and ``h_imag``.

    Not every file format has complex numbers, and nobody can draw one.
    """
    found: dict[str, Host] = {}
    for name, a in states.items():
        if not np.iscomplexobj(a):
            found[name] = a
            continue
        apart = distinct([*taken, f"{name}_real", f"{name}_imag"])[-2:]
        found |= zip(apart, (a.real, a.imag), strict=True)
    return found


def _batch(shapes: Sequence[tuple[int, ...]]) -> int:
    """Return the number of rows that arrays of a state have in common; 1 if there is no such."""
    leading = {shape[0] for shape in shapes if len(shape) > 1}
    return leading.pop() if len(leading) == 1 else 1


def _as_rows(a: Host, batch: int) -> Host:
    """Return (time, rows, units) of what a scan of no known cell carries.

    The first axis of arrays with several is the batch, if they agree on its size; an array that
    has no such axis is the same for all rows.
    """
    a = widened(a)
    if a.ndim > 1 and a.shape[1] == batch:
        return a.reshape((a.shape[0], batch, int(np.prod(a.shape[2:]))))
    a = a.reshape((a.shape[0], 1, int(np.prod(a.shape[1:]))))
    return np.broadcast_to(a, (a.shape[0], batch, a.shape[2]))


def _flat(a: Host) -> Host:
    return np.asarray(a).reshape(-1).astype(np.int64)
