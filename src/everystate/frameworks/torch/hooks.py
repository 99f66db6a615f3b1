"""Hooks on one module: its copies, which PyTorch gives them too, are not seen."""

import sys
import weakref
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, cast

import torch
from torch import nn

Hook = TypeVar("Hook", bound=Callable[..., Any])


def hook_on(module: nn.Module, see: Callable[..., Any]) -> Callable[..., Any]:
    """Return a hook that calls a method for calls of `module` alone, as long as its object lives.

    Copies of a module, as a training loop takes of the best one so far, keep its hooks for good:
    they are other models, must not hold what was recorded, nor be heard after the block. Replicas
    that ``nn.DataParallel`` makes for a call are the module itself.

    Parameters
    ----------
    module : torch.nn.Module
        Which module the hook will be registered on.
    see : bound method
        Called as the hook is; its object is referred to weakly.
    """
    own, seen = weakref.ref(module), weakref.WeakMethod(see)

    def call(called: nn.Module, *args: Any, **kwargs: Any) -> Any:
        hears = seen()
        if hears is None or (called is not own() and not getattr(called, "_is_replica", False)):
            return None
        return hears(called, *args, **kwargs)

    return untraced(call)


def untraced(hook: Hook) -> Hook:
    """Return a hook that torch.compile calls as it is, without tracing into it.

    The compiler takes a second to load, so it is asked only once somebody has loaded it.
    """
    skipped: list[Any] = []

    @wraps(hook)
    def call(*args: Any, **kwargs: Any) -> Any:
        if "torch._dynamo" not in sys.modules:
            return hook(*args, **kwargs)
        if not skipped:
            skipped.append(torch.compiler.disable(hook))  # type: ignore[no-untyped-call]
        return skipped[0](*args, **kwargs)

    call._torchdynamo_disable = True  # type: ignore[attr-defined]
    return cast(Hook, call)
