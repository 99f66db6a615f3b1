"""Scans within ``shard_map`` on two devices of this CPU, beside the same function on one."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, PartitionSpec

import everystate as es
from everystate.frameworks.jax import tap_scans

assert len(jax.devices()) == 2
T, B, D, H = 5, 4, 2, 3
x = jax.random.normal(jax.random.key(0), (T, B, D))
cell = eqx.nn.GRUCell(D, H, key=jax.random.key(1))
mesh = jax.make_mesh((2,), ("rows",), axis_types=(AxisType.Auto,))


def final(x):
    start = jnp.zeros((x.shape[1], H)) + 0.1 * x[0, :, :1]
    return jax.lax.scan(lambda h, x: (jax.vmap(cell)(x, h), None), start, x)[0]


def sharded(*, check):
    rows = {"in_specs": PartitionSpec(None, "rows"), "out_specs": PartitionSpec("rows")}
    return jax.shard_map(final, mesh=mesh, check_vma=check, **rows)


plain = es.record(final, x)["grucell"]
for check in (True, False):
    fn = sharded(check=check)
    result, scans = jax.jit(tap_scans(fn))(x)
    np.testing.assert_array_equal(result, jax.jit(fn)(x))
    (scan,) = scans.values()
    h = scan["h"]
    assert h.shape == (T, 2, B // 2, H), h.shape
    np.testing.assert_allclose(h.reshape(T, B, H).swapaxes(0, 1), plain.h, rtol=1e-6)
    leaf = es.record(fn, x)["grucell"]
    np.testing.assert_allclose(leaf.h, plain.h, rtol=1e-6)
    np.testing.assert_allclose(leaf.initial_h, plain.initial_h, rtol=1e-6)
    # Without check_vma nobody says that the weights are the same everywhere.
    assert ("z" in leaf) == check
    if check:
        np.testing.assert_allclose(leaf.z, plain.z, rtol=1e-5)
        assert leaf.attrs["max_error_h"] < 1e-6
