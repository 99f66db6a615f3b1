"""What PyTorch showed, as `Observation`s: detached, float32 where it was half precision."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import type_before_parametrizations

from everystate.cells import Weights
from everystate.errors import ReplayMismatchError
from everystate.frameworks.torch.modules import (
    GATE_ORDER,
    cell_of,
    raw_weights,
    weights_of,
    widened,
)
from everystate.frameworks.torch.passes import Pass
from everystate.frameworks.torch.sequences import Step
from everystate.recording.observation import Lengths, Observation
from everystate.recording.verify import tolerance_of


def plain(a: Tensor) -> Tensor:
    """Return a tensor out of the graph, half precision as float32 (which is exact)."""
    return widened(a.detach())


def equations(module: nn.Module, suffix: str = "") -> dict[str, Any]:
    """Return cell, weights, precision, attributes and hints of one layer and direction."""
    cell = cell_of(module)
    weights = weights_of(module, suffix)
    return {
        "cell": cell,
        "weights": Weights(**{name: plain(a) for name, a in weights.items()}),
        "precision": _precision(raw_weights(module, suffix)[0]),
        "attrs": {
            "module": type_before_parametrizations(module).__name__,
            "framework_gate_order": GATE_ORDER[type(cell).__name__],
        },
        "hints": _hints(module),
    }


def copied(equations: dict[str, Any]) -> dict[str, Any]:
    """Return `equations` with weights that an optimiser's next step does not change."""
    if "weights" not in equations:
        return equations
    weights = {name: a.clone() for name, a in equations["weights"].items()}
    return {**equations, "weights": Weights(**weights)}


def of_pass(path: str, stack: nn.RNNBase, p: Pass, lengths: Lengths | None) -> Observation:
    """Return the observation of one layer and direction of a stack."""
    return Observation(
        path=path,
        observed={"h": plain(p.h)},
        initial={name: plain(s) for name, s in p.initial.items()},
        final={name: plain(s) for name, s in p.final.items()},
        inputs=plain(p.x),
        lengths=lengths,
        reverse=p.place.reverse,
        **equations(stack, p.place.suffix),
    )


def check_run_again(seen: Observation) -> None:
    """Check that an inner layer, run again, ends in the state that the call returned.

    Raises
    ------
    ReplayMismatchError
        If it does not: the call did something else than the layer's own equations.
    """
    h, last, tolerance = seen.observed["h"], seen.final["h"], tolerance_of(seen)
    steps = np.full(seen.batch, seen.steps) if seen.lengths is None else seen.lengths
    t = torch.as_tensor(np.zeros_like(steps) if seen.reverse else steps - 1)
    end = h[t, torch.arange(seen.batch)]
    if not torch.allclose(end, last, rtol=tolerance, atol=tolerance, equal_nan=True):
        cause = "; ".join((*seen.hints, "was the layer's forward changed?"))
        raise ReplayMismatchError(
            f"{seen.path}: its h was brought out by running the layer again on PyTorch's own "
            f"kernel, which ended in another state than the call returned (difference up to "
            f"{float((end - last).abs().max()):.2g}). Probable cause: {cause} Nothing of this "
            "layer was stored."
        )


def of_steps(path: str, steps: list[Step], edited: int, equations: dict[str, Any]) -> Observation:
    """Return the observation of a layer that was called step by step.

    Parameters
    ----------
    path : str
        Leaf path.
    steps : list of Step
        In order of time.
    edited : int
        How many steps started from another state than the one before them ended with.
    equations : dict
        What `equations` says of the layer; of a custom cell just its attributes.
    """
    inputs = [s.x for s in steps if s.x is not None]
    previous = None
    if edited:
        previous = {n: torch.stack([s.before[n] for s in steps]) for n in steps[0].before}
    return Observation(
        path=path,
        observed={n: torch.stack([s.after[n] for s in steps]) for n in steps[0].after},
        initial=steps[0].before,
        final=steps[-1].after,
        inputs=torch.stack(inputs) if inputs else None,
        previous=previous,
        **{**equations, "attrs": {**equations["attrs"], "edited_steps": edited}},
    )


def _precision(weight: Tensor) -> str:
    device = weight.device.type
    autocast = torch.is_autocast_enabled(device)
    dtype = torch.get_autocast_dtype(device) if autocast else weight.dtype
    return str(dtype).removeprefix("torch.")


def _hints(module: nn.Module) -> tuple[str, ...]:
    if module.training and vars(module).get("dropout"):
        return ("dropout was active between the layers (the module is in training mode)",)
    return ()
