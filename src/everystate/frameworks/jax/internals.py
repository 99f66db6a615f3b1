"""The JAX names that are not public, each with what it is for; nothing else imports them.

Read in JAX 0.10. What is public is taken from `jax`, `jax.core` and `jax.extend` by whoever
needs it.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import jax
from jax._src import config
from jax._src.sharding_impls import UNSPECIFIED  # type: ignore[attr-defined]
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn
from jax.extend.source_info_util import current_name_stack, user_context

_FRESH = r"\beverystate\b(?!)"  # it matches nothing


def fresh_trace() -> AbstractContextManager[None]:
    """Return a context in which functions are traced anew, whatever JAX has cached of them.

    Functions under `jax.jit` are traced once and remembered, and what is traced while the model
    is watched must neither come from that memory nor go into it. JAX keeps a memory of its own
    for each value of a setting that says how paths of source files are shortened in compiled
    code, the one setting that changes no computation.
    """
    changed: AbstractContextManager[None] = config.hlo_source_file_canonicalization_regex(_FRESH)
    return changed


@contextmanager
def evaluated_as(eqn: JaxprEqn) -> Iterator[None]:
    """Give what is bound in the block the name scope, source line and context of an equation."""
    scope = current_name_stack() + eqn.source_info.name_stack
    with user_context(eqn.source_info.traceback, name_stack=scope), eqn.ctx.manager:
        yield


def argument_names(jaxpr: Jaxpr) -> tuple[str, ...]:
    """Return what a traced function calls its arguments, ``state['v']``; empty where unknown."""
    found = getattr(jaxpr.debug_info, "arg_names", None) or ()
    names = tuple(str(name or "") for name in found)
    return names if len(names) == len(jaxpr.invars) else ("",) * len(jaxpr.invars)


def source_of(jaxpr: Jaxpr) -> str:
    """Return where a traced function was defined: ``body at model.py:12``."""
    return str(getattr(jaxpr.debug_info, "func_src_info", "") or "")


def shardings(params: Mapping[str, Any], key: str) -> list[Any]:
    """Return what a ``jit`` equation says of shardings, None where it says nothing."""
    return [None if s is UNSPECIFIED else s for s in params[key]]


def closed(jaxpr: Any) -> ClosedJaxpr:
    """Return a jaxpr with its constants, of which an open one has none."""
    return jaxpr if isinstance(jaxpr, ClosedJaxpr) else ClosedJaxpr(jaxpr, ())


def differs(a: Any, axes: Iterable[str], *, told: bool) -> bool:
    """Whether an array may differ from device to device along some axes of ``shard_map``.

    Parameters
    ----------
    a : array
        An array within the function.
    axes : iterable of str
        The axes of the mesh.
    told : bool
        Whether JAX keeps account of it (``check_vma``). If not, it may.
    """
    return not told or bool(set(axes) & jax.typeof(a).manual_axis_type.varying)
