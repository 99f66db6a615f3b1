"""Flax Linen: a bound module as a model, and its cells wherever they are called."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import flax.linen as nn
import jax
from flax.traverse_util import flatten_dict

from everystate.errors import UnsupportedModelError
from everystate.frameworks.flax.calls import Calls, joined
from everystate.frameworks.jax.naming import scope_path
from everystate.frameworks.jax.running import Target


def target(model: nn.Module) -> Target:
    """Return a Linen model as a function of its variables.

    Raises
    ------
    UnsupportedModelError
        If it has none.
    """
    fn, variables = apart(model)
    return Target(fn, (variables,), name=_name(model), key=(type(model), repr(model)))


def apart(model: nn.Module) -> tuple[Callable[..., Any], Any]:
    """Return a module as a function of its variables and inputs, and the variables.

    Raises
    ------
    UnsupportedModelError
        If it has none.
    """
    if model.scope is None:
        raise UnsupportedModelError(
            f"got the Linen module {type(model).__name__} without variables, expected one with. "
            "Try es.record(module.bind(variables), x), or "
            "es.record(functools.partial(module.apply, variables), x)."
        )
    unbound, variables = model.unbind()
    rngs = {name: rng.as_jax_rng() for name, rng in model.scope.rngs.items()}
    return partial(unbound.apply, rngs=rngs or None), variables


def watching(_fn: object = None, _args: object = None) -> AbstractContextManager[Any]:
    """Return a context in which Linen's layers and cells tag their values."""
    calls = Calls()

    def intercept(run: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        module = context.module
        if context.method_name != "__call__" or module.is_initializing():
            return run(*args, **kwargs)
        path = joined(module.path, module)
        if isinstance(module, nn.Bidirectional):
            return calls.bidirectional(path, run, *args, **kwargs)
        if isinstance(module, nn.RNN):
            return calls.rnn(path, run, module, *args, **kwargs)
        if isinstance(module, nn.RNNCellBase):
            return calls.cell(path, run, module, type(module), weights(module))(*args, **kwargs)
        return run(*args, **kwargs)

    return nn.intercept_methods(intercept)


def weights(module: nn.Module) -> Mapping[str, Any]:
    """Return the parameters of a bound module by name: ``hi/kernel``."""
    params = module.variables.get("params", {})
    flat = flatten_dict(params, sep="/")
    return {name: a for name, a in flat.items() if isinstance(a, jax.Array)}


def _name(module: nn.Module) -> Callable[[str], str]:
    """Return what turns a name scope into a path: it begins with the class of the model."""
    root = type(module).__name__

    def name(scope: str) -> str:
        first, _, rest = scope_path(scope).partition("/")
        return (rest or root.lower()) if first == root else scope_path(scope)

    return name
