"""Keras' recurrent layers in float64: the oracles on a layer's own weights, mask and direction.

No code of everystate is in it. A test imports it as ``import keras_reference``.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np

import oracles

ORDER = {"LSTM": "ifgo", "GRU": "zrn", "SimpleRNN": "h"}
"""Columns of the kernels: ``keras/src/layers/rnn``."""
STATES = {"LSTM": "hc", "GRU": "h", "SimpleRNN": "h"}


def numpy(a: Any) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(a), np.float64)


def family(cell: Any) -> str:
    return next(name for name in ORDER if type(cell).__name__ == f"{name}Cell")


def gates(cell: Any) -> dict[str, oracles.Gate]:
    kernel, recurrent = numpy(cell.kernel), numpy(cell.recurrent_kernel)
    bias = None if cell.bias is None else numpy(cell.bias)
    b, b_R = bias if bias is not None and bias.ndim == 2 else (bias, None)
    return oracles.gates(ORDER[family(cell)], kernel.T, recurrent.T, b, b_R)


def variants(cell: Any) -> dict[str, Any]:
    found = {"activation": cell.activation.__name__}
    if family(cell) != "SimpleRNN":
        found["recurrent_activation"] = cell.recurrent_activation.__name__
    if family(cell) == "LSTM":
        found["output_activation"] = cell.activation.__name__
    if family(cell) == "GRU":
        found["reset"] = "after" if cell.reset_after else "before"
    return found


def layer(
    cell: Any,
    x: np.ndarray,
    start: Mapping[str, np.ndarray] | None = None,
    *,
    mask: np.ndarray | None = None,
    backwards: bool = False,
    wrong: dict[str, oracles.Gate] | None = None,
) -> dict[str, np.ndarray]:
    """Return every state and gate, (batch, time, units), and the initial states.

    `x` is (batch, time, features). Where `mask`, (batch, time), is False, states are carried
    over and gates are NaN; past a row's last True everything is NaN.
    """
    names, units = STATES[family(cell)], cell.units
    start = start or {n: np.zeros((len(x), units)) for n in names}
    mask = np.ones(x.shape[:2], bool) if mask is None else mask
    step = {"LSTM": oracles.lstm, "GRU": oracles.gru, "SimpleRNN": oracles.simple_rnn}
    rows = []
    for k, row in enumerate(np.asarray(x, np.float64)):
        first = {n: np.asarray(a, np.float64)[k : k + 1] for n, a in start.items()}
        if not mask[k].any():
            rows.append(None)
            continue
        run = step[family(cell)](
            row[mask[k]][:, None], first, wrong or gates(cell), reverse=backwards, **variants(cell)
        )
        rows.append(_spread({n: a[:, 0] for n, a in run.values.items()}, first, mask[k], backwards))
    template = next(row for row in rows if row is not None)
    blank = {n: np.full_like(a, np.nan) for n, a in template.items()}
    found = {n: np.stack([(row or blank)[n] for row in rows]) for n in template}
    return found | {f"initial_{n}": np.asarray(a, np.float64) for n, a in start.items()}


def _spread(values, first, mask, backwards):
    order = range(len(mask))[:: -1 if backwards else 1]
    place = dict(zip(np.flatnonzero(mask), range(mask.sum()), strict=True))
    end = np.flatnonzero(mask)[-1] + 1
    found = {n: np.full((len(mask), a.shape[-1]), np.nan) for n, a in values.items()}
    state = {n: a[0] for n, a in first.items()}
    for t in order:
        if mask[t]:
            state = {n: values[n][place[t]] for n in state}
        for n in found:
            if t < end:
                found[n][t] = state[n] if n in state else values[n][place[t]] if mask[t] else np.nan
    return found


def values(leaf: Any) -> dict[str, np.ndarray]:
    return {name: v.values for name, v in leaf.data_vars.items()}


def assert_leaf(leaf: Any, expected: Mapping[str, np.ndarray], tolerance: float = 2e-6) -> None:
    """Assert that a leaf of a trace has exactly these variables, with these values."""
    assert set(leaf.data_vars) == set(expected)
    oracles.assert_close(values(leaf), expected, tolerance)


def randomise(model: Any, seed: int = 0, scale: float = 0.5) -> Any:
    """Give a built layer or model seeded weights that no two gates, units or features share."""
    rng = np.random.default_rng(seed)
    for weight in model.trainable_variables:
        weight.assign(scale * rng.normal(size=weight.shape))
    return model


def random(*shape: int, seed: int, dtype: str = "float32") -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def gradient(f: Any, x: np.ndarray) -> np.ndarray:
    """Return the gradient of a scalar function of a tensor, by the back end's own means."""
    if keras.backend.backend() == "jax":
        import jax

        return numpy(jax.grad(f)(keras.ops.convert_to_tensor(x)))
    if keras.backend.backend() == "torch":
        a = keras.ops.convert_to_tensor(x).detach().requires_grad_()
        f(a).backward()
        return numpy(a.grad)
    import tensorflow as tf

    a = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(a)
        y = f(a)
    return numpy(tape.gradient(y, a))


def recurrent(model: Any) -> Iterator[Any]:
    """Yield every recurrent layer inside a model."""
    yield from (a for a in model._flatten_layers() if isinstance(a, keras.layers.RNN))
