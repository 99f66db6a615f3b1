"""`unroll`: a recurrent layer's results and all its states, attached to the graph."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from everystate.cells import Weights
from everystate.errors import InputError, InputTypeError, UnsupportedModelError
from everystate.frameworks.torch.checks import check_input
from everystate.frameworks.torch.modules import CELLS, STACKS, leaf, weights_of, widened
from everystate.frameworks.torch.observations import equations, of_pass, plain
from everystate.frameworks.torch.passes import bind, by_name, in_layout, passes, restored
from everystate.frameworks.torch.probing import Probed, probed_passes
from everystate.recording.custom import is_cell, unroll_cell
from everystate.recording.observation import Observation, turn
from everystate.recording.stretches import in_processing_order
from everystate.recording.unrolled import LayerStates, States, Unrolled
from everystate.recording.verify import Verification


def unroll(layer: nn.Module, x: Any, hx: Any = None, *, probes: bool = False) -> Unrolled:
    """Run a PyTorch layer or cell and return all its states, differentiable.

    Parameters
    ----------
    layer : torch.nn.LSTM, GRU, RNN, or LSTMCell, GRUCell, RNNCell, or a cell of one's own
        A cell is stepped over the first axis of `x`.
    x : Tensor or PackedSequence
        The input; for a cell (time, batch, features) or (time, features).
    hx : Tensor or tuple of Tensor, optional
        The initial state, as the layer takes it. None: zeros.
    probes : bool, default False
        Whether to return zeros that are added to each state, to differentiate by: `probes` of the
        result. The layer is then stepped by its cell's equations, several times slower than on its
        kernel, and its results are the same within rounding.

    Returns
    -------
    Unrolled

    Raises
    ------
    UnsupportedModelError
        If `layer` is a whole model, not one recurrent layer; if a cell shall have probes.
    InputError, InputTypeError
        If the input does not fit the layer.

    Examples
    --------
    >>> import torch
    >>> out = unroll(torch.nn.LSTM(3, 4), torch.randn(50, 2, 3), probes=True)
    >>> loss = out.outputs[-1].square().sum()
    >>> torch.autograd.grad(loss, out.probes.c)[0].shape
    torch.Size([50, 2, 4])
    """
    if isinstance(layer, STACKS):
        check_input(type(layer).__name__.lower(), layer, x)
        return _unroll_stack(layer, x, hx, probes)
    if probes:
        raise UnsupportedModelError(
            f"probes are for nn.LSTM, nn.GRU and nn.RNN, got {type(layer).__name__}. Of a cell, "
            "step it yourself, and call retain_grad() on the states that it returns."
        )
    if isinstance(layer, CELLS) and not is_cell(layer):
        if not isinstance(x, Tensor):
            raise InputTypeError(
                f"{type(layer).__name__}: got {type(x).__name__}, expected a tensor (time, batch, "
                "features) or (time, features)."
            )
        return _unroll_cell(layer, x, hx)
    if is_cell(layer):
        return unroll_cell(type(layer).__name__.lower(), layer, x, hx)
    raise UnsupportedModelError(
        f"unroll takes one recurrent layer or cell, got {type(layer).__name__}. Try "
        "es.unroll(model.lstm, x), or es.record(model, x) for a whole model."
    )


def _unroll_stack(stack: nn.RNNBase, x: Tensor | PackedSequence, hx: Any, probes: bool) -> Unrolled:
    path = type(stack).__name__.lower()
    call = bind(stack, x, hx)
    stack._update_flat_weights()  # as its own forward does
    probed: list[Probed] = []
    if probes:
        probed, output = probed_passes(stack, x, call)
        found = [p.run for p in probed]
    else:
        found, output = passes(stack, call)
    layers, zeros = {}, {}
    for k, p in enumerate(found):
        name = p.place.name or path
        seen = of_pass(leaf(path, p.place), stack, p, call.lengths)
        variables = _replayed(seen, weights_of(stack, p.place.suffix), p.x, p.h, p.initial)
        if probes:
            variables |= probed[k].states
            zeros[name] = LayerStates(probed[k].probes)
        layers[name] = _layer_states(stack, x, {**variables, **_initial(p.initial)})
    final = tuple(torch.stack([p.final[name] for p in found]) for name in found[0].final)
    outputs, final_state = restored(stack, x, output, final)
    lengths = None if call.lengths is None else torch.as_tensor(call.lengths)
    return Unrolled(
        outputs, final_state, States(layers), lengths, States(zeros) if probes else None
    )


def _unroll_cell(cell: nn.RNNCellBase, x: Tensor, hx: Any) -> Unrolled:
    path = type(cell).__name__.lower()
    if x.dim() not in (2, 3) or not len(x):
        raise InputError(
            f"{path}: got an input of shape {tuple(x.shape)}, expected (time, batch, features) or "
            "(time, features), of one step at least."
        )
    check_input(path, cell, x[0])
    state, steps = hx, []
    for x_t in x:
        state = cell(x_t, state)
        steps.append(state if isinstance(state, tuple) else (state,))
    after = by_name(_batched(torch.stack(s), 2) for s in zip(*steps, strict=True))
    start = hx if hx is not None else tuple(torch.zeros_like(s) for s in steps[0])
    start = start if isinstance(start, (tuple, list)) else (start,)
    initial = by_name(_batched(s, 1) for s in start)
    seen = Observation(
        path=path,
        observed={n: plain(a) for n, a in after.items()},
        initial={n: plain(a) for n, a in initial.items()},
        inputs=plain(_batched(x, 2)),
        **equations(cell),
    )
    gates = _replayed(seen, weights_of(cell), _batched(x, 2), after["h"], initial)
    variables = {**gates, **after}
    if x.dim() == 2:
        variables = {n: a.squeeze(1) for n, a in variables.items()}
        initial = {n: a.squeeze(0) for n, a in initial.items()}
    states = States({path: LayerStates({**variables, **_initial(initial)})})
    return Unrolled(variables["h"], state, states)


def _batched(a: Tensor, rank_with_batch: int) -> Tensor:
    return a.unsqueeze(-2) if a.dim() == rank_with_batch else a


def _replayed(
    seen: Observation, w: Weights, x: Tensor, h: Tensor, initial: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return every variable, attached to the graph through `h`, and verified."""
    cell, lengths = seen.cell, seen.lengths
    assert cell is not None
    if seen.reverse:
        x, h = turn(x, lengths), turn(h, lengths)
    wide = {name: widened(s) for name, s in initial.items()}
    before = {**wide, "h": torch.cat([wide["h"][None], widened(h[:-1])])}
    with torch.autocast(x.device.type, enabled=False):
        a_x, a_h = cell.from_input(w, widened(x)), cell.from_state(w, before["h"])
        values = cell.evolve(w, a_x, a_h, before)
    detached = {name: plain(a) for name, a in values.items()}
    Verification(in_processing_order(seen)).compare(detached, slice(0, len(x)))
    values = {name: a.to(h.dtype) for name, a in values.items()} | {"h": h}
    if seen.reverse:
        values = {name: turn(a, lengths) for name, a in values.items()}
    if lengths is None:
        return values
    t = torch.arange(len(x), device=x.device)[:, None, None]
    valid = t < torch.as_tensor(lengths, device=x.device)[:, None]
    return {name: torch.where(valid, a, torch.zeros_like(a)) for name, a in values.items()}


def _initial(initial: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"initial_{name}": s for name, s in initial.items()}


def _layer_states(
    stack: nn.RNNBase, x: Tensor | PackedSequence, variables: Mapping[str, Tensor]
) -> LayerStates:
    """Return variables in the layer's own layout."""
    if isinstance(x, PackedSequence):
        return LayerStates(variables)
    return LayerStates({name: in_layout(stack, x, a) for name, a in variables.items()})
