"""`tap_scans`: a function that also returns what each of its scans carries, at every step."""

from collections.abc import Callable, Iterator, Sequence
from functools import wraps
from typing import Any

import jax
import numpy as np

from everystate.errors import NothingRecordedError, UnsupportedModelError
from everystate.frameworks.jax.naming import scope_path, state_names
from everystate.frameworks.jax.records import Found, FoundScan, Untapped
from everystate.frameworks.jax.tracing import Arguments, Traced, trace, while_loops
from everystate.recording.custom import distinct

Scans = dict[str, dict[str, Any]]
"""States by scan and name: ``scans["encoder"]["c"]`` of shape (time, ...)."""


def tap_scans(fn: Callable[..., Any]) -> Callable[..., tuple[Any, Scans]]:
    """Return a function that gives the result of `fn`, and what its scans carry at every step.

    Parameters
    ----------
    fn : callable
        A function of arrays, or of any structure of them, that `jax.jit` could take. Its scans
        may be anywhere in it: under `jax.jit`, `jax.vmap`, `jax.checkpoint`, in a branch, in
        the body of another scan, in a function with a derivative of its own. A ``fori_loop``
        with fixed bounds is a scan to JAX, and to this function.

    Returns
    -------
    callable
        Takes what `fn` takes and returns ``(result, scans)``. ``scans[scan][state]`` has shape
        (time, ...), in the order of the inputs also where the scan runs backwards;
        ``scans[scan]["initial_" + state]`` is the state before the first step. A scan is called
        by its name scope, which Flax sets to the module's path, else ``scan_0``, ``scan_1``; a
        scan in the body of another has the name of both, and both time axes, the outer first.
        States are called as the body's argument has them: by the keys or fields of the carry,
        ``state_0`` and ``state_1`` in a tuple; those with a meaning of their own in a trace, such
        as ``time``, with ``state_`` before them. What a scan passes on as it is, is no state.
        In a branch of ``lax.cond`` that is not taken, states are NaN, integers 0.

        The function can be put under `jax.jit`, `jax.vmap` and `jax.grad` like any other.

    Raises
    ------
    NothingRecordedError
        When called, if `fn` has no scan.
    UnsupportedModelError
        When called, if a scan is within a ``while_loop``, which has no fixed number of steps, or
        in something else that cannot be tapped.

    Notes
    -----
    `fn` is traced each time it is called outside of `jax.jit`; ``jax.jit(tap_scans(fn))`` is
    compiled once.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> def leaky(xs):
    ...     def step(state, x):
    ...         v = 0.5 * state["v"] + x
    ...         return {"v": v}, v > 1.0
    ...     return jax.lax.scan(step, {"v": jnp.zeros(())}, xs)[1]
    >>> spikes, scans = jax.jit(tap_scans(leaky))(jnp.ones(4))
    >>> scans["scan_0"]["v"].tolist()
    [1.0, 1.5, 1.75, 1.875]
    """

    @wraps(fn)
    def tapped(*args: Any, **kwargs: Any) -> tuple[Any, Scans]:
        given = Arguments(args, kwargs)
        traced = trace(fn, given)
        result, found = traced.run(given.arrays)
        check_tapped(fn, found)
        scans = dict(_named(found))
        if not scans:
            raise nothing_in(fn, traced, found)
        return result, scans

    del tapped.__wrapped__  # its signature says less than it returns
    return tapped


def check_tapped(fn: object, found: Sequence[Found]) -> None:
    """Raise if something with scans in it could not be tapped."""
    for f in _all(found):
        if isinstance(f, Untapped):
            raise UnsupportedModelError(f"{called(fn)}: {f.reason}")


def nothing_in(fn: object, traced: Traced, found: Sequence[Found]) -> NothingRecordedError:
    """Return what to say of a function without states."""
    if kinds := _kinds_carried(found):
        return NothingRecordedError(
            f"{called(fn)}: its scans carry {', '.join(kinds)} only, which are not recorded. A "
            "state of floating or complex numbers is; tap_scans gives all that a scan carries."
        )
    loops = while_loops(traced.jaxpr)
    if loops:
        return NothingRecordedError(
            f"{called(fn)} has no lax.scan but a while_loop ({'; '.join(loops)}), which has no "
            "fixed number of steps, so its states cannot be stacked. Use lax.scan, or "
            "lax.fori_loop with fixed bounds."
        )
    return NothingRecordedError(
        f"{called(fn)} has no lax.scan, so it carries no state from step to step. Give the "
        "function that runs the whole sequence; a Python loop over time is seen only where it "
        "calls a cell of Flax or Equinox. An associative_scan and a convolution have no steps: "
        "their states are arrays of your function, so return them, or run it as a lax.scan."
    )


def _kinds_carried(found: Sequence[Found]) -> list[str]:
    """Return what scans carry, where none of it is floating numbers; nothing otherwise."""
    carried = [a for f in _all(found) if isinstance(f, FoundScan) for a in f.carried]
    kinds = {
        "integers": (np.integer, np.bool_),
        "random keys": (jax.dtypes.prng_key,),
    }
    if any(jax.numpy.issubdtype(a.dtype, np.inexact) for a in carried):
        return []
    return [
        name
        for name, of in kinds.items()
        if any(jax.numpy.issubdtype(a.dtype, kind) for a in carried for kind in of)
    ]


def called(fn: object) -> str:
    """Return what to call a function in a message."""
    return str(getattr(fn, "__name__", type(fn).__name__))


def _all(found: Sequence[Found]) -> Iterator[Found]:
    for f in found:
        yield f
        if isinstance(f, FoundScan):
            yield from _all(f.inner)


def _named(found: Sequence[Found], outer: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    scans = [f for f in found if isinstance(f, FoundScan)]
    for path, scan in zip(paths(scans), scans, strict=True):
        name = f"{outer}/{path}" if outer else path
        states = dict(zip(state_names(scan.names), scan.carried, strict=True))
        initial = zip(states, scan.initial, strict=True)
        if states:  # a `lax.map` carries nothing
            yield name, states | {f"initial_{state}": a for state, a in initial}
        yield from _named(scan.inner, name)


def paths(scans: Sequence[FoundScan]) -> tuple[str, ...]:
    """Return what to call scans: by their scopes, else by their order."""
    scopes = [scope_path(scan.scope) for scan in scans]
    order = iter(range(len(scans)))
    return distinct(scope or f"scan_{next(order)}" for scope in scopes)
