"""What is found within ``shard_map``: each device has its own part, and the parts are rows."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax.numpy as jnp

from everystate.frameworks.jax.records import Found, FoundScan, FoundTag, Tagged


def gathered(found: Sequence[Found], varying: Sequence[Any], depth: int = 0) -> list[Found]:
    """Return what was found on all devices as if `jax.vmap` had mapped over them.

    Parameters
    ----------
    found : sequence of FoundScan, FoundTag or Untapped
        Each array has the devices in front.
    varying : sequence
        The same structure, True for each array that differs from device to device.
    depth : int
        Axes of time of the scans around, which come before that of the devices.
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
        tags=tuple(_mapped(t, varies) for t in f.tags),
    )


def _mapped(t: Tagged, varies: Any) -> Tagged:
    """Return a tag that knows where the axis of the devices is."""
    kind, k = t.where
    fields = {"before": "carried", "after": "carried", "constant": "constants"}
    differs = getattr(varies, fields.get(kind, kind))[k]
    return replace(t, mapped=(*t.mapped, 0)) if differs else t


def _placed(a: Any, varies: bool, axes: int) -> Any:
    """Return an array with its devices behind the axes of time; one device's, if all are alike."""
    return jnp.moveaxis(a, 0, axes) if varies else a[0]
