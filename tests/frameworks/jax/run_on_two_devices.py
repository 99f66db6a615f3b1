"""Scans within ``shard_map`` on two devices of this CPU, beside the same function on one."""

import numpy as np

from everystate.testing import importorskip

eqx = importorskip("equinox")
jax = importorskip("jax")
jnp = importorskip("jax.numpy")

from jax.sharding import AxisType, PartitionSpec

import everystate as es
from everystate.frameworks.jax import tap_scans

T, B, D, H = 5, 4, 2, 3


def check(cell, x, mesh):
    def final(x):
        start = jnp.zeros((x.shape[1], H)) + 0.1 * x[0, :, :1]
        return jax.lax.scan(lambda h, x: (jax.vmap(cell)(x, h), None), start, x)[0]

    plain = es.record(final, x)["grucell"]
    for told in (True, False):
        rows = {"in_specs": PartitionSpec(None, "rows"), "out_specs": PartitionSpec("rows")}
        fn = jax.shard_map(final, mesh=mesh, check_vma=told, **rows)
        result, scans = jax.jit(tap_scans(fn))(x)
        np.testing.assert_array_equal(result, jax.jit(fn)(x))
        (scan,) = scans.values()
        assert scan["h"].shape == (T, 2, B // 2, H), scan["h"].shape
        np.testing.assert_allclose(scan["h"].reshape(T, B, H).swapaxes(0, 1), plain.h, rtol=1e-6)
        leaf = es.record(fn, x)["grucell"]
        np.testing.assert_allclose(leaf.h, plain.h, rtol=1e-6)
        np.testing.assert_allclose(leaf.initial_h, plain.initial_h, rtol=1e-6)
        # Without check_vma nobody says that the weights are the same everywhere.
        assert ("z" in leaf) == told
        if told:
            np.testing.assert_allclose(leaf.z, plain.z, rtol=1e-5)
            assert leaf.attrs["max_error_h"] < 1e-6


if __name__ == "__main__":
    assert len(jax.devices()) == 2
    check(
        eqx.nn.GRUCell(D, H, key=jax.random.key(1)),
        jax.random.normal(jax.random.key(0), (T, B, D)),
        jax.make_mesh((2,), ("rows",), axis_types=(AxisType.Auto,)),
    )
