"""Gradients by the state at each step: layers are stepped, and zeros added to their states.

A fused kernel has no tensor for the state of a step, so nothing can be differentiated by it. Here
each layer and direction is stepped, and a probe, a zero that requires a gradient, is added to each
state as soon as it is computed: whatever is made of the state sees the sum, also the ``h`` of the
same step that is ``o * tanh(c)``. So the gradient by a probe is the gradient by that state.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from everystate.frameworks.torch.modules import places, raw_weights
from everystate.frameworks.torch.passes import Call, Pass, by_name, in_layout, time_major
from everystate.recording.observation import turn

_CELLS: Final[Mapping[str, Any]] = {
    "GRU": torch._VF.gru_cell,
    "RNN_TANH": torch._VF.rnn_tanh_cell,
    "RNN_RELU": torch._VF.rnn_relu_cell,
}


States = Mapping[str, Tensor]


@dataclass(eq=False)
class Probed:
    """One layer in one direction, stepped.

    Parameters
    ----------
    run : Pass
        What it did, as `passes` says it.
    states : dict
        Every state, (time, batch, units), in the order of the input.
    probes : dict
        The zeros added to them, leaves of the graph in the layout of the stack's input.
    """

    run: Pass
    states: dict[str, Tensor]
    probes: dict[str, Tensor]


def probed_passes(
    stack: nn.RNNBase, given: Tensor | PackedSequence, call: Call
) -> tuple[list[Probed], Tensor]:
    """Return what each layer and direction did, stepped, and the output.

    Parameters
    ----------
    stack : torch.nn.LSTM, GRU or RNN
        The module.
    given : Tensor or PackedSequence
        Its input, in the caller's layout.
    call : Call
        What it is called with.

    Returns
    -------
    list of Probed
        In the order of ``h_n``.
    Tensor
        The last layer's output, time-major or packed data.
    """
    found: list[Probed] = []
    data = call.x
    for layer in range(stack.num_layers):
        here = [(k, place) for k, place in enumerate(places(stack)) if place.layer == layer]
        x = call.padded(data)
        stepped = [_stepped(stack, k, x, call, given) for k, _ in here]
        h = _as_given(call, torch.cat([one.states["h"] for one in stepped], -1))
        inner = layer < stack.num_layers - 1 and stack.training and stack.dropout
        data = torch.dropout(h, stack.dropout, True) if inner else h
        found += stepped
    return found, data


def _stepped(
    stack: nn.RNNBase, k: int, x: Tensor, call: Call, given: Tensor | PackedSequence
) -> Probed:
    """Step the layer and direction that has row `k` of ``h_n`` over (time, batch, features)."""
    place, lengths = places(stack)[k], call.lengths
    initial = by_name(call.in_callers_order(s[k]) for s in call.state)
    valid = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
    if lengths is not None:
        ends = torch.as_tensor(lengths, device=x.device)
        valid = torch.arange(len(x), device=x.device)[:, None] < ends
    probes = {n: _zeros(stack, s, given, len(x)) for n, s in initial.items()}
    added = {n: p if call.packed else time_major(stack, p) for n, p in probes.items()}
    inputs = x
    if place.reverse:
        inputs, added = turn(x, lengths), {n: turn(p, lengths) for n, p in added.items()}
    state, steps = initial, []
    for t, x_t in enumerate(inputs):
        after = _step(stack, place.suffix, x_t, state, {n: p[t] for n, p in added.items()})
        kept = valid[t][:, None]
        state = {n: torch.where(kept, s, state[n]) for n, s in after.items()}
        steps.append({n: torch.where(kept, s, torch.zeros_like(s)) for n, s in state.items()})
    states = {n: torch.stack([s[n] for s in steps]) for n in initial}
    if place.reverse:
        states = {n: turn(s, lengths) for n, s in states.items()}
    return Probed(Pass(place, x, states["h"], initial, state), states, probes)


def _zeros(stack: nn.RNNBase, state: Tensor, given: Tensor | PackedSequence, steps: int) -> Tensor:
    """Return a leaf of the graph for every step of a state, in the layout of the input."""
    zeros = state.new_zeros((steps, *state.shape))
    if isinstance(given, Tensor):
        zeros = in_layout(stack, given, zeros).contiguous()
    return zeros.detach().requires_grad_()


def _step(
    stack: nn.RNNBase, suffix: str, x: Tensor, before: States, added: States
) -> dict[str, Tensor]:
    """Return the states after a step, probes added.

    An LSTM's is written out, as ``torch.nn.LSTM`` has it in its docstring: the cell of the library
    makes ``h`` of ``c`` before anybody could add to it.
    """
    weights = raw_weights(stack, suffix)
    if stack.mode != "LSTM":
        return {"h": _CELLS[stack.mode](x, before["h"], *weights) + added["h"]}
    projection = weights.pop() if stack.proj_size else None
    (w_x, w_h), biases = weights[:2], weights[2:]
    gates = sum(biases, functional.linear(x, w_x) + functional.linear(before["h"], w_h))
    i, f, g, o = gates.chunk(4, -1)
    c = f.sigmoid() * before["c"] + i.sigmoid() * g.tanh() + added["c"]
    h = o.sigmoid() * c.tanh()
    return {"h": (h if projection is None else h @ projection.T) + added["h"], "c": c}


def _as_given(call: Call, a: Tensor) -> Tensor:
    """Return (time, batch, units) as the kernels have it: of packed input, packed data."""
    if call.packed is None:
        return a
    order, lengths = call.packed.sorted_indices, torch.as_tensor(call.lengths)
    if order is not None:
        a, lengths = a.index_select(1, order), lengths[order.cpu()]
    return pack_padded_sequence(a, lengths).data
