"""The scan tap: a traced function evaluated again, in which each scan also returns its carry.

The equations of the trace are bound one by one, as they are. One that holds scans somewhere
inside goes by the rule of its kind: the function in it is tapped in turn, and what is found is
handed out beside its results. Nothing that the function itself computes is changed.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var
from jax.sharding import PartitionSpec

from everystate.frameworks.jax.carries import Scope
from everystate.frameworks.jax.devices import gathered
from everystate.frameworks.jax.internals import (
    argument_names,
    closed,
    differs,
    evaluated_as,
    shardings,
    source_of,
)
from everystate.frameworks.jax.records import Found, FoundScan, FoundTag, Tagged, Untapped, absent
from everystate.frameworks.jax.tags import tag_p

Values = list[Any]
Rule = Callable[[JaxprEqn, Values, Scope], tuple[Values, list[Found]]]


def evaluate(jaxpr: ClosedJaxpr, args: Sequence[Any], scope: Scope) -> tuple[Values, list[Found]]:
    """Evaluate a traced function.

    Parameters
    ----------
    jaxpr : ClosedJaxpr
        The trace.
    args : sequence of array
        Its arguments.
    scope : Scope
        Where it is.

    Returns
    -------
    list of array
        Its results.
    list of FoundScan, FoundTag or Untapped
        What was found in it, in the order of evaluation.
    """
    inner = jaxpr.jaxpr
    env: dict[Var, Any] = dict(zip(inner.constvars, jaxpr.consts, strict=True))
    env |= dict(zip(inner.invars, args, strict=True))
    last = _last_uses(inner)
    found: list[Found] = []
    more: list[Found]

    def value(atom: Any) -> Any:
        return atom.val if isinstance(atom, Literal) else env[atom]

    for place, eqn in enumerate(inner.eqns):
        values = [value(atom) for atom in eqn.invars]
        if eqn.primitive is tag_p:
            results, more = values, [FoundTag(values[0], **eqn.params)]
        elif holds_scans(eqn):
            rule = RULES.get(eqn.primitive.name, _cannot)
            with evaluated_as(eqn):
                results, more = rule(eqn, values, scope)
        else:
            results, more = bind(eqn, values), []
        found += more
        env |= dict(zip(eqn.outvars, results, strict=True))
        for var in last.get(place, ()):  # as early as JAX itself would, for the memory's sake
            env.pop(var, None)
    return [value(atom) for atom in inner.outvars], found


def bind(eqn: JaxprEqn, values: Values) -> Values:
    """Return the results of an equation as it is."""
    params = eqn.primitive.get_bind_params(eqn.params)
    with evaluated_as(eqn):
        results = eqn.primitive.bind(*values, **params)
    return list(results) if eqn.primitive.multiple_results else [results]


def holds_scans(eqn: JaxprEqn) -> bool:
    """Whether an equation is a scan or a tag, or has one in a function inside it."""
    if eqn.primitive is tag_p or eqn.primitive.name == "scan":
        return True
    return any(any(map(holds_scans, inner.eqns)) for inner in functions_of(eqn))


def functions_of(eqn: JaxprEqn) -> list[Jaxpr]:
    """Return the traced functions in an equation's parameters."""
    leaves = jax.tree.leaves(
        list(eqn.params.values()), is_leaf=lambda p: isinstance(p, (Jaxpr, ClosedJaxpr))
    )
    return [closed(p).jaxpr for p in leaves if isinstance(p, (Jaxpr, ClosedJaxpr))]


def _last_uses(jaxpr: Jaxpr) -> dict[int, list[Var]]:
    """Return which variables are used for the last time by which equation."""
    kept = {atom for atom in jaxpr.outvars if isinstance(atom, Var)}
    last: dict[Var, int] = {}
    for place, eqn in enumerate(jaxpr.eqns):
        for atom in (*eqn.invars, *eqn.outvars):
            if isinstance(atom, Var) and atom not in kept:
                last[atom] = place
    uses: dict[int, list[Var]] = {}
    for var, place in last.items():
        uses.setdefault(place, []).append(var)
    return uses


def _scan(eqn: JaxprEqn, values: Values, scope: Scope) -> tuple[Values, list[Found]]:
    """Return a scan's results, and beside them the carry and whatever is tagged in it."""
    p = eqn.params
    given, carried = p["num_consts"], p["num_consts"] + p["num_carry"]
    consts, initial, xs = values[:given], values[given:carried], values[carried:]
    body_jaxpr, inside = p["jaxpr"], scope.apart(eqn, body=True)
    seen: dict[str, Any] = {"place": None}
    going_on: list[int] = []
    if scope.carries is not None:
        seen["place"], initial, going_on = scope.carries.begin(eqn, initial)

    def body(before: Values, x: Values) -> tuple[Values, Any]:
        results, found = evaluate(body_jaxpr, [*consts, *before, *x], inside)
        after, ys = results[: p["num_carry"]], results[p["num_carry"] :]
        known = {id(a): ("constant", k) for k, a in enumerate(consts)}
        for kind, arrays in (("xs", x), ("after", after), ("before", before)):
            known |= {id(a): (kind, k) for k, a in enumerate(arrays)}
        put_out = {id(y): k for k, y in enumerate(ys)}
        held = [k for k, a in enumerate(after) if a is not before[k]]
        shared = {k: put_out[id(after[k])] for k in held if id(after[k]) in put_out}
        stacked: Values = []
        tags = []
        for t in found:
            if isinstance(t, FoundTag):
                if id(t.value) not in known:
                    known[id(t.value)] = ("stacked", len(stacked))
                    stacked.append(t.value)
                tags.append(Tagged(t.mark, t.mapped, known[id(t.value)]))  # type: ignore[arg-type]
        inner = [_hoisted(f, known) for f in found if not isinstance(f, FoundTag)]
        seen.update(tags=tuple(tags), held=held, shared=shared)
        own = [after[k] for k in held if k not in shared]  # an output of the body as it is
        return after, (ys, own, stacked, inner)

    options = {name: p[name] for name in ("length", "reverse", "unroll")}
    final, (ys, own, stacked, inner) = jax.lax.scan(body, initial, xs, **options)
    rest = iter(own)
    stacks = [ys[seen["shared"][k]] if k in seen["shared"] else next(rest) for k in seen["held"]]
    seen["final"] = [final[k] for k in going_on]
    found = _found_scan(eqn, scope, seen, (initial, stacks, xs, consts, stacked, inner))
    return [*final, *ys], [found]


def _found_scan(eqn: JaxprEqn, scope: Scope, seen: dict[str, Any], arrays: Any) -> FoundScan:
    initial, carried, xs, consts, stacked, inner = arrays
    p, held, tags = eqn.params, seen["held"], list(seen["tags"])
    names = argument_names(p["jaxpr"].jaxpr)[p["num_consts"] :][: p["num_carry"]]
    inner_constants = [k for f in inner if isinstance(f, FoundScan) for k in f.sources]
    wanted = [(t.where[0], t.where[1]) for t in tags]
    wanted += [("constant", k) for k in inner_constants if k is not None]
    kept = {kind: sorted({k for name, k in wanted if name == kind}) for kind in ("xs", "constant")}
    places = {**kept, "before": held, "after": held}

    def now(t: Tagged) -> Tagged:
        kind, k = t.where
        return replace(t, where=(kind, places[kind].index(k) if kind in places else k))

    def below(f: Found) -> Found:
        if not isinstance(f, FoundScan):
            return f
        at = (None if k is None else kept["constant"].index(k) for k in f.sources)
        return replace(f, sources=tuple(at))

    return FoundScan(
        initial=[initial[k] for k in held],
        carried=carried,
        xs=[xs[k] for k in kept["xs"]],
        constants=[consts[k] for k in kept["constant"]],
        stacked=stacked,
        inner=[below(f) for f in inner],
        ran=jax.numpy.ones((), bool),
        final=seen["final"],
        place=seen["place"],
        sources=(None,) * len(kept["constant"]),
        names=tuple(names[k] for k in held),
        tags=tuple(now(t) for t in tags),
        scope=scope.at(eqn).names,
        source=source_of(p["jaxpr"].jaxpr),
        reverse=p["reverse"],
    )


def _hoisted(f: Found, known: Mapping[int, Any]) -> Found:
    """Leave what is constant in the scan around to that scan: it need not be stacked."""
    if not isinstance(f, FoundScan):
        return f
    sources = [known.get(id(a), ("own", 0)) for a in f.constants]
    outer = [k if kind == "constant" else None for kind, k in sources]
    own = [a for a, k in zip(f.constants, outer, strict=True) if k is None]
    return replace(f, constants=own, sources=tuple(outer))


def _jit(eqn: JaxprEqn, values: Values, scope: Scope) -> tuple[Values, list[Found]]:
    """Keep a `jax.jit` and its shardings; open it within a body, which is compiled anyway."""
    p, inside = eqn.params, scope.at(eqn)
    if scope.body:
        return evaluate(p["jaxpr"], values, inside)

    def tapped(*args: Any) -> tuple[Values, list[Found]]:
        args = tuple(_placed(a, s) for a, s in zip(args, shardings(p, "in_shardings"), strict=True))
        results, found = evaluate(p["jaxpr"], args, inside)
        return [
            _placed(a, s) for a, s in zip(results, shardings(p, "out_shardings"), strict=True)
        ], found

    tapped.__name__ = p["name"]
    results, found = jax.jit(tapped)(*values)
    return results, found


def _placed(a: Any, sharding: Any) -> Any:
    return a if sharding is None else jax.lax.with_sharding_constraint(a, sharding)


def _remat(eqn: JaxprEqn, values: Values, scope: Scope) -> tuple[Values, list[Found]]:
    """Keep a `jax.checkpoint`, with its policy."""
    p = eqn.params
    tapped = partial(evaluate, closed(p["jaxpr"]), scope=scope.at(eqn))
    kept = jax.checkpoint(
        lambda *args: tapped(args), prevent_cse=p["prevent_cse"], policy=p["policy"]
    )
    results, found = kept(*values)
    return results, found


def _cond(eqn: JaxprEqn, values: Values, scope: Scope) -> tuple[Values, list[Found]]:
    """Return what is found in every branch of ``lax.cond``, absent but of the one that runs."""
    branches, inside = eqn.params["branches"], scope.apart(eqn)
    index, *args = values
    shapes = [jax.eval_shape(partial(evaluate, b, scope=inside), args)[1] for b in branches]

    def tapped(k: int) -> Callable[..., tuple[Values, list[list[Found]]]]:
        def branch(*args: Any) -> tuple[Values, list[list[Found]]]:
            results, found = evaluate(branches[k], args, inside)
            return results, [found if j == k else absent(shapes[j]) for j in range(len(branches))]

        return branch

    results, found = jax.lax.switch(index, [tapped(k) for k in range(len(branches))], *args)
    return results, [f for of_branch in found for f in of_branch]


def _custom_derivative(eqn: JaxprEqn, values: Values, scope: Scope) -> tuple[Values, list[Found]]:
    """Bind a function with its own derivative as it is, and run it again for its states.

    In a sequence that is cut, only its states at hand are right, and nobody asks for derivatives.
    """
    results, found = evaluate(closed(eqn.params["call_jaxpr"]), values, scope.at(eqn))
    return (bind(eqn, values) if scope.carries is None else results), found


def _opened(eqn: JaxprEqn, values: Values, scope: Scope) -> tuple[Values, list[Found]]:
    """Open a call that says nothing but that it is one."""
    inner = eqn.params.get("call_jaxpr", eqn.params.get("jaxpr"))
    return evaluate(closed(inner), values, scope.at(eqn))


def _while(eqn: JaxprEqn, values: Values, scope: Scope) -> tuple[Values, list[Found]]:
    """Bind a ``while_loop`` as it is: nobody knows how many steps there will be."""
    where = source_of(eqn.params["body_jaxpr"].jaxpr)
    reason = (
        f"a while_loop ({where}) has a scan in it, and no fixed number of steps, so its states "
        "cannot be stacked. Use lax.scan, or lax.fori_loop with fixed bounds."
    )
    return bind(eqn, values), [Untapped(reason)]


def _shard_map(eqn: JaxprEqn, values: Values, scope: Scope) -> tuple[Values, list[Found]]:
    """Keep a ``shard_map``; what each device finds goes out side by side, as rows."""
    p, inside = eqn.params, scope.apart(eqn)
    axes = tuple(name for name in p["mesh"].axis_names if name in p["newly_manual_axes"])
    seen: dict[str, Any] = {}

    def tapped(*args: Any) -> tuple[Values, Values]:
        results, found = evaluate(closed(p["jaxpr"]), args, inside)
        leaves, seen["treedef"] = jax.tree.flatten(found)
        seen["varying"] = [differs(a, axes, told=p["check_vma"]) for a in leaves]
        return results, [a[None] for a in leaves]

    mapped = jax.shard_map(
        tapped,
        mesh=p["mesh"],
        in_specs=p["in_specs"],
        out_specs=(list(p["out_specs"]), PartitionSpec(axes)),
        axis_names=set(axes),
        check_vma=p["check_vma"],
    )
    results, leaves = mapped(*values)
    found, varying = (
        jax.tree.unflatten(seen["treedef"], leaves) for leaves in (leaves, seen["varying"])
    )
    return results, gathered(found, varying)


def _cannot(eqn: JaxprEqn, values: Values, scope: Scope) -> tuple[Values, list[Found]]:
    """Bind anything else as it is."""
    reason = f"a scan inside {eqn.primitive.name} cannot be tapped. Tap the function in it instead."
    return bind(eqn, values), [Untapped(reason)]


RULES: Final[dict[str, Rule]] = {
    "scan": _scan,
    "jit": _jit,
    "pjit": _jit,
    "remat2": _remat,
    "checkpoint": _remat,
    "cond": _cond,
    "custom_jvp_call": _custom_derivative,
    "custom_vjp_call": _custom_derivative,
    "closed_call": _opened,
    "core_call": _opened,
    "shard_map": _shard_map,
    "while": _while,
}
"""What is done with an equation that has scans in it, by the name of its primitive."""
