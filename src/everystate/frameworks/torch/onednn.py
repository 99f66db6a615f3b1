"""Every gate from the kernel itself: oneDNN's training forward keeps them in its workspace.

On a CPU, ``aten::mkldnn_rnn_layer`` runs an LSTM layer at full speed and, with gradients
enabled, returns a workspace that its backward pass reads: in float32 its first region is
the activated gates, rows of (time, batch) and columns i f g o, with a padded row length
(oneDNN, ``src/cpu/rnn/rnn_utils.cpp``: ``set_workspace_sizes``, ``get_good_ld``). Reading
them there saves the matrix products of a replay, which cost as much as the forward itself.

Time is run in chunks with the state carried on, so that the workspace stays small enough for
the allocator to use again. The layout is private to oneDNN: the first chunk is compared with
the equations, and a layer whose workspace reads otherwise is replayed like any other. ``c``
and ``h`` are verified at every step in any case.

Only for a model that is run for the recording alone (`everystate.record`): the training
kernel's ``h`` differs from the inference kernel's by rounding, for some shapes, and a user's
own results must not change by a bit.
"""

from collections.abc import Callable, Iterator
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from everystate.frameworks.torch.modules import cell_of, leaves, places, raw_weights
from everystate.frameworks.torch.observations import equations
from everystate.frameworks.torch.passes import Call
from everystate.recording.observation import Observation

CHUNK_BYTES: Final = 28 << 20
"""Workspace of one chunk: what the C library's allocator still keeps for the next one."""
WORKSPACE_FLOATS: Final = 16
"""Workspace per step, row and unit, about."""
SHORTEST: Final = 8
"""Steps of a chunk at least: each call packs the weights anew."""
MODE_LSTM: Final = 2


def shows_gates(stack: nn.RNNBase, call: Call) -> bool:
    """Whether a call of a stack can run on the kernel that shows its gates."""
    plain = isinstance(stack, nn.LSTM) and not (stack.bidirectional or stack.proj_size)
    plain = plain and stack.bias and call.packed is None and call.x.shape[0] >= SHORTEST
    plain = plain and not is_parametrized(stack)  # whose weights are made by its own forward
    still = not (stack.training and stack.dropout)  # dropout would draw other masks in chunks
    flags = torch.backends.mkldnn
    ready = bool(flags.is_available() and flags.enabled)  # type: ignore[no-untyped-call]
    tensors = (call.x, *call.state, *raw_weights(stack, places(stack)[0].suffix))
    single = all(a.device.type == "cpu" and a.dtype == torch.float32 for a in tensors)
    return plain and still and ready and single and not torch.is_autocast_enabled("cpu")


def chunk_steps(stack: nn.RNNBase, call: Call) -> int:
    """Return how many steps to run at once."""
    per_step = 4 * WORKSPACE_FLOATS * stack.hidden_size * call.x.shape[1]
    return max(SHORTEST, CHUNK_BYTES // per_step)


def run(
    path: str,
    stack: nn.RNNBase,
    call: Call,
    hand_over: Callable[[Observation, bool], None],
    *,
    known: bool = False,
) -> tuple[Tensor, tuple[Tensor, ...]] | None:
    """Run a stack chunk by chunk and hand over what each layer did.

    Parameters
    ----------
    path : str
        The stack's path.
    stack : torch.nn.LSTM
        A stack of which `shows_gates` is true.
    call : Call
        What it was called with.
    hand_over : callable
        Takes each observation, and whether it goes on with the last one of its path.
    known : bool
        Whether the workspace of this stack was compared before.

    Returns
    -------
    Tensor, tuple of Tensor
        The output, time-major, and ``(h_n, c_n)``. None if the workspace is laid out in
        another way than the one known here: then nothing was handed over.
    """
    shared = [
        {"path": name, "whole": len(call.x), **equations(stack, place.suffix)}
        for name, place in zip(leaves(path, stack), places(stack), strict=True)
    ]
    states = list(zip(*(s.unsqueeze(1) for s in call.state), strict=True))
    steps = chunk_steps(stack, call)
    several = len(call.x) > steps
    output = call.x.new_empty(*call.x.shape[:2], stack.hidden_size) if several else None
    for start, x in _chunks(call.x, steps):
        for k, own in enumerate(shared):
            seen, states[k] = _run_layer(stack, k, x, states[k], own)
            if start == 0 and k == 0 and not (known or _as_known(seen)):
                return None
            hand_over(seen, start > 0)
            x = seen.observed["h"]
        if output is not None:
            output[start : start + len(x)] = x
    final = tuple(torch.cat(s) for s in zip(*states, strict=True))
    return x if output is None else output, final


def _chunks(x: Tensor, steps: int) -> Iterator[tuple[int, Tensor]]:
    for start in range(0, x.shape[0], steps):
        yield start, x[start : start + steps].contiguous()


def _run_layer(
    stack: nn.RNNBase, layer: int, x: Tensor, state: tuple[Tensor, ...], own: dict[str, Any]
) -> tuple[Observation, tuple[Tensor, ...]]:
    """Run one layer on a chunk; return what it did, with all in `own`, and its last states."""
    units = stack.hidden_size
    weights = [w.detach() for w in raw_weights(stack, places(stack)[layer].suffix)]
    with torch.enable_grad():  # the workspace is kept only then; nothing here requires a gradient
        h, h_n, c_n, workspace = torch.ops.aten.mkldnn_rnn_layer(
            x, *weights, *state, False, [], MODE_LSTM, units, 1, True, False, False, True
        )
    gates = _gates(workspace, h)
    seen = Observation(
        observed={"h": h, **dict(zip(cell_of(stack).gates, gates, strict=True))},
        initial={"h": state[0][0], "c": state[1][0]},
        final={"h": h_n[0], "c": c_n[0]},
        inputs=x,
        **own,
    )
    return seen, (h_n, c_n)


def _gates(workspace: Tensor, h: Tensor) -> tuple[Tensor, ...]:
    """Return views of i, f, g, o in the workspace of a run whose output is `h`."""
    steps, batch, units = h.shape
    row = _padded(4 * units)
    gates = workspace.view(torch.float32)[: steps * batch * row].view(steps, batch, row)
    return tuple(gates[..., k * units : (k + 1) * units] for k in range(4))


def _padded(columns: int) -> int:
    """Return the length of a row in the workspace: whole cache lines, but no multiple of 256."""
    lines = -(-columns // 16) * 16
    return lines + 16 if lines % 256 == 0 else lines


def _as_known(seen: Observation) -> bool:
    """Whether the gates read from the workspace are those of the equations.

    Compared at the first and the last step, in the first and the last row.
    """
    cell, w = seen.equations
    h, x = seen.observed["h"], seen.inputs
    assert x is not None
    steps, rows = [[0], [len(x) - 1]], [[0, x.shape[1] - 1]]
    before = torch.stack([seen.initial["h"], h[-2]])[[[0], [1]], rows]
    state = {"h": before, "c": torch.zeros_like(seen.initial["c"][rows[0]])}
    expected = cell.evolve(w, cell.from_input(w, x[steps, rows]), cell.from_state(w, before), state)
    shown = torch.cat([seen.observed[gate][steps, rows] for gate in cell.gates])
    replayed = torch.cat([expected[gate] for gate in cell.gates])
    return torch.allclose(shown, replayed, rtol=1e-4, atol=1e-4, equal_nan=True)
