"""What is found on many devices, or for many elements of a map: the parts are rows."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax.numpy as jnp

from everystate.frameworks.jax.records import Found, FoundScan, FoundTag, Tagged


def gathered(found: Sequence[Found], varying: Sequence[Any], depth: int = 0) -> list[Found]:
    """Return what was found for all parts as if `jax.vmap` had mapped over them.

    Parameters
    ----------
    found : sequence of FoundScan, FoundTag or Untapped
        Each array has the parts in front.
    varying : sequence
        The same structure, True for each array that differs from part to part.
    depth : int
        Axes of time of the scans around, which come before that of the parts.
    """
    return [_gathered(f, v, depth) for f, v in zip(found, varying, strict=True)]


def _gathered(f: Found, varies: Any, depth: int) -> Found:
    if isinstance(f, FoundTag):
        mapped = (*f.mapped, 0) if varies.value else f.mapped
        return replace(f, value=_placed(f.value, varies.value, depth), mapped=mapped)
    if not isinstance(f, FoundScan):
        return f

    def placed(field: str, axes: int) -> list[Any]:
        pairs = zip(getattr(f, field), getattr(varies, field), strict=True)
        return [_placed(a, v, axes) for a, v in pairs]

    return replace(
        f,
        initial=[
            _placed(a, v or after, depth)
            for a, v, after in zip(f.initial, varies.initial, varies.carried, strict=True)
        ],
        carried=placed("carried", depth + 1),
        xs=placed("xs", depth + 1),
        constants=placed("constants", depth),
        stacked=placed("stacked", depth + 1),
        inner=gathered(f.inner, varies.inner, depth + 1),
        ran=_placed(f.ran, varies.ran, depth),
        tags=tuple(_mapped(t, f, varies) for t in f.tags),
    )


def _mapped(t: Tagged, f: FoundScan, varies: Any) -> Tagged:
    """Return a tag that knows where the axis of the parts is."""
    kind, k = t.where
    if kind == "constant":
        own = [place for place, source in enumerate(f.sources) if source is None]
        differs = k in own and varies.constants[own.index(k)]
    else:
        differs = getattr(varies, {"before": "carried", "after": "carried"}.get(kind, kind))[k]
    return replace(t, mapped=(*t.mapped, 0)) if differs else t


def _placed(a: Any, varies: bool, axes: int) -> Any:
    """Return an array with its parts behind the axes of time; one of them, if all are alike."""
    return jnp.moveaxis(a, 0, axes) if varies else a[0]
