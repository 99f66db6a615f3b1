"""What tapping costs: a jitted scan with all its carries, beside the plain one and the writing.

The carry of every step has to be written somewhere, which the plain function does not do. Its
share is measured apart: a program that does nothing but write as much, step by step.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from benchmarks.timing import best_of
from flax import nnx

from everystate.frameworks.jax import tap_scans

SHAPES = [(32, 100, 64, 128), (64, 200, 128, 512), (1, 2000, 32, 256), (16, 1000, 8, 64)]
"""(batch, time, features, units)."""


def flax_lstm(features: int, units: int) -> tuple[Callable[..., Any], Any]:
    """Return Flax's LSTM, whose output is one of the two states it carries, and its weights."""
    rnn = nnx.RNN(nnx.OptimizedLSTMCell(features, units, rngs=nnx.Rngs(0)), time_major=True)
    graph, state = nnx.split(rnn)
    return lambda state, x: nnx.merge(graph, state)(x), state


def equinox_gru(features: int, units: int) -> tuple[Callable[..., Any], Any]:
    """Return Equinox's GRU in a scan that puts out nothing but the last state, and the cell."""

    def run(cell: Any, x: Any) -> Any:
        step = jax.vmap(cell)
        return jax.lax.scan(lambda h, x: (step(x, h), None), jnp.zeros((x.shape[1], units)), x)[0]

    return run, eqx.nn.GRUCell(features, units, key=jax.random.key(0))


def written(x: Any, units: int) -> Any:
    """Write a state at every step, as the tapped scan does beyond the plain one, and no more."""

    def step(c: Any, x_t: Any) -> Any:
        c = c + x_t[0, 0]
        return c, c

    return jax.lax.scan(step, jnp.zeros((x.shape[1], units)), x)[1]


def measure(
    model: Callable[..., tuple[Callable[..., Any], Any]],
    shape: tuple[int, int, int, int],
    rounds: int,
) -> list[float]:
    """Return the times of the plain function, of the tapped one, and of the writing alone."""
    batch, steps, features, units = shape
    fn, weights = model(features, units)
    x = jax.random.normal(jax.random.key(1), (steps, batch, features))
    plain, tapped = jax.jit(fn), jax.jit(tap_scans(fn))
    writing = jax.jit(partial(written, units=units))
    return best_of(
        [
            lambda: jax.block_until_ready(plain(weights, x)),
            lambda: jax.block_until_ready(tapped(weights, x)),
            lambda: jax.block_until_ready(writing(x)),
        ],
        rounds,
    )


def main(rounds: int) -> None:
    """Print the table."""
    print(f"jax {jax.__version__} on {jax.default_backend()}; times plain function and writing")
    heads = " ".join(f"{head:>10}" for head in ("plain", "writing", "tapped"))
    print(f"{'(B, T, D, H)':>20} {'model':>12} {heads}    ratio")
    for model in (flax_lstm, equinox_gru):
        for shape in SHAPES:
            plain, tapped, writing = measure(model, shape, rounds)
            times = " ".join(f"{seconds * 1e3:7.1f} ms" for seconds in (plain, writing, tapped))
            print(f"{shape!s:>20} {model.__name__:>12} {times} {tapped / (plain + writing):7.2f}x")
