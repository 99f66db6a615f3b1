"""Where an equation is, and what the outermost scans of a function begin with and end with.

A sequence that is cut in time goes on in the next chunk: each scan along time begins with what
it ended with in the chunk before, and hands out what it ends with.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
from jax.extend.core import JaxprEqn, Literal

from everystate.errors import UncuttableError
from everystate.frameworks.jax.internals import source_of
from everystate.frameworks.jax.records import is_key

Array = Any


@dataclass(eq=False)
class Carries:
    """What the outermost scans of a function begin with, by their places in order of evaluation.

    Parameters
    ----------
    along : mapping of int to sequence of array or None
        Of each scan that goes on in the next chunk, what it ended with in the chunk before; None
        in the first one.
    """

    along: Mapping[int, Sequence[Array] | None] = field(default_factory=dict)
    _count: int = 0

    def begin(self, eqn: JaxprEqn, own: list[Array]) -> tuple[int, list[Array], list[int]]:
        """Return a scan's place, what it begins with, and which of its carries go on.

        Raises
        ------
        UncuttableError
            If what it ended with does not fit what it begins with.
        """
        place = self._count
        self._count += 1
        if place not in self.along:
            return place, own, []
        moving, given = moves(eqn), self.along[place]
        if given is None:
            return place, own, moving
        initial = list(own)
        if len(given) != len(moving):
            raise UncuttableError(
                f"a scan ({source_of(eqn.params['jaxpr'].jaxpr)}) carries other states than in the "
                "chunk before."
            )
        for k, a in zip(moving, given, strict=True):
            initial[k] = _restored(a, own[k])
        return place, initial, moving


def moves(eqn: JaxprEqn) -> list[int]:
    """Return which carries of a scan go on in the next chunk.

    Not what is passed on as it is, nor the counter by which a ``fori_loop`` finds its input: that
    counts the steps of the chunk.
    """
    body, p = eqn.params["jaxpr"].jaxpr, eqn.params
    before = body.invars[p["num_consts"] :][: p["num_carry"]]
    after = body.outvars[: p["num_carry"]]
    finds_input = len(eqn.invars) == p["num_consts"] + p["num_carry"]
    counters = [_plus_one(e) for e in body.eqns] if finds_input else []
    return [
        k
        for k, pair in enumerate(zip(before, after, strict=True))
        if pair[0] is not pair[1] and pair not in counters
    ]


def _plus_one(eqn: JaxprEqn) -> tuple[Any, Any] | None:
    """Return the variables before and after a step of a counter; None of any other equation."""
    if eqn.primitive.name != "add":
        return None
    aval: Any = eqn.outvars[0].aval
    whole = jax.numpy.issubdtype(aval.dtype, jax.numpy.integer)
    by = [atom.val for atom in eqn.invars if isinstance(atom, Literal)]
    if not whole or len(by) != 1 or by[0] != 1:
        return None
    return next(a for a in eqn.invars if not isinstance(a, Literal)), eqn.outvars[0]


def storable(a: Array) -> Array:
    """Return a carry as an array of numbers: random keys as those that they are made of."""
    return jax.random.key_data(a) if is_key(a) else a


def _restored(a: Array, like: Array) -> Array:
    """Return a carry from its numbers."""
    if is_key(like):
        a = jax.random.wrap_key_data(a, impl=jax.random.key_impl(like))
    if a.shape != jax.numpy.shape(like):
        raise UncuttableError(
            f"its state is of shape {a.shape} at the end of a chunk, but the next one begins with "
            f"one of shape {jax.numpy.shape(like)}."
        )
    return a


class Scope:
    """Where an equation is: in which name scope, and within which scan's body.

    Parameters
    ----------
    names : str
        JAX's name stack around the function at hand.
    body : bool
        Whether this is the body of a scan, which is compiled as one: a `jax.jit` in it need not
        be kept apart.
    carries : Carries, optional
        What the scans at hand begin with. None: what the function itself says.
    """

    def __init__(
        self, names: str = "", *, body: bool = False, carries: Carries | None = None
    ) -> None:
        self.names, self.body, self.carries = names, body, carries

    def at(self, eqn: JaxprEqn) -> "Scope":
        """Return the scope inside an equation that runs once, as a part of what is around it."""
        return Scope(self._inside(eqn), body=self.body, carries=self.carries)

    def apart(self, eqn: JaxprEqn, *, body: bool = False) -> "Scope":
        """Return the scope inside an equation whose scans cannot go on in the next chunk."""
        return Scope(self._inside(eqn), body=self.body or body)

    def _inside(self, eqn: JaxprEqn) -> str:
        own = str(eqn.source_info.name_stack)
        return "/".join(part for part in (self.names, own) if part)
