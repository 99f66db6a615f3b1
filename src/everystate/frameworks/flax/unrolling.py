"""`unroll` for Flax's layers and cells."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx
from flax.linen.recurrent import flip_sequences

from everystate.errors import UnsupportedModelError
from everystate.frameworks.flax import graphs, linen
from everystate.frameworks.flax.calls import cell_call
from everystate.frameworks.jax.observations import by_call, value_of
from everystate.frameworks.jax.records import Found, FoundScan
from everystate.frameworks.jax.running import watch_all
from everystate.frameworks.jax.tags import Call
from everystate.frameworks.jax.tracing import Arguments, trace
from everystate.frameworks.jax.unrolling import (
    check_sequence,
    layer_states,
    unrolled_cell,
    variables_of,
)
from everystate.recording.unrolled import LayerStates, States, Unrolled

LAYERS = (nn.RNN, nn.Bidirectional, nnx.RNN, nnx.Bidirectional)
CELLS = (nn.RNNCellBase, nnx.nn.recurrent.RNNCellBase)


def unroll(layer: Any, xs: Any, state: Any = None, **options: Any) -> Unrolled:
    """Run a layer or cell of Flax and return all its states, differentiable.

    Parameters
    ----------
    layer : RNN, Bidirectional or a cell, of NNX, or of Linen bound to its variables
        A cell is stepped over the first axis of `xs`.
    xs : array
        The input as the layer takes it; of a cell (time, features) or (time, batch, features).
    state : pytree of array, optional
        The state before the first step, as the layer takes its ``initial_carry``. None: what the
        cell begins with by itself.
    **options : object
        What else the layer takes: ``seq_lengths``, ``time_major``, ``reverse``.

    Returns
    -------
    Unrolled
        States are in the layer's own layout, in the order of the inputs, and zero past a
        sequence's length; ``final_state`` is the layer's carry.

    Raises
    ------
    UnsupportedModelError
        If `layer` is a whole model, or a Linen module without variables.
    InputError, InputTypeError
        If the input does not fit the cell.
    """
    if not isinstance(layer, (*LAYERS, *CELLS)):
        raise UnsupportedModelError(
            f"unroll takes one recurrent layer or cell, got {type(layer).__name__}. Try "
            "es.unroll(model.rnn, x), or es.record(model, x) for a whole model."
        )
    fn, own = linen.apart(layer) if isinstance(layer, nn.Module) else graphs.apart(layer)
    if isinstance(layer, CELLS):
        return _cell(layer, fn, own, xs, state)
    return _layer(layer, fn, own, xs, options | ({} if state is None else {"initial_carry": state}))


def _cell(layer: Any, fn: Callable[..., Any], own: Any, xs: Any, state: Any) -> Unrolled:
    path = type(layer).__name__.lower()
    axes = layer.num_feature_axes
    xs = check_sequence(path, xs, getattr(layer, "in_features", None), (1 + axes, 2 + axes))
    if state is None:
        key = jax.random.key(0)
        state = (
            layer.initialize_carry(key, xs.shape[1:])
            if isinstance(layer, nn.Module)
            else layer.initialize_carry(xs.shape[1:], nnx.Rngs(key))
        )
    call = cell_call(path, layer, type(layer), state, None)
    weights = linen.weights(layer) if isinstance(layer, nn.Module) else graphs.weights(layer)
    return unrolled_cell(call, lambda state, x: fn(own, state, x), xs, state, weights)


def _layer(
    layer: Any, fn: Callable[..., Any], own: Any, xs: Any, options: Mapping[str, Any]
) -> Unrolled:
    xs = jnp.asarray(xs)
    given = {**options, "return_carry": True}
    arguments = Arguments((own, xs), given)
    (final, outputs), found = trace(fn, arguments, watch_all).run(arguments.arrays)
    time_major = options.get("time_major")
    time_major = bool(layer.time_major if time_major is None else time_major)
    lengths = options.get("seq_lengths")
    root = type(layer).__name__.lower()
    states = {
        path.removeprefix(f"{root}/"): layer_
        for path, layer_ in _layers(found, lengths, time_major)
    }
    return Unrolled(outputs, final, States(states), lengths)


def _layers(
    found: Sequence[Found], lengths: Any, time_major: bool
) -> list[tuple[str, LayerStates]]:
    layers = []
    for scan in (f for f in found if isinstance(f, FoundScan)):
        for call, tags in by_call([(t.mark.call, t) for t in scan.tags]):
            after = {s: value_of(scan, tags["after", s]) for s in call.states}
            initial = {s: value_of(scan, tags["before", s])[0] for s in call.states}
            weights = {n: value_of(scan, t) for (role, n), t in tags.items() if role == "weight"}
            x = value_of(scan, tags["input", "x"])
            variables = variables_of(call, after, initial, x, weights)
            placed = {n: _placed(a, call, lengths, time_major) for n, a in variables.items()}
            layers.append((call.path, layer_states(placed, initial)))
    return layers


def _placed(a: Any, call: Call, lengths: Any, time_major: bool) -> Any:
    """Return a variable in the order of the inputs and in the layer's own layout."""
    batch = a.ndim - 1 - call.feature_axes
    if call.reverse:
        a = flip_sequences(a, lengths, num_batch_dims=batch, time_major=True)
    if lengths is not None:
        t = jnp.arange(a.shape[0]).reshape((-1, *(1,) * (a.ndim - 1)))
        ends = jnp.asarray(lengths)
        ends = ends.reshape((1, *ends.shape, *(1,) * (a.ndim - 1 - ends.ndim)))
        a = jnp.where(t < ends, a, jnp.zeros_like(a))
    return a if time_major else jnp.moveaxis(a, 0, batch)
