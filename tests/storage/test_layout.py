import numpy as np
import pytest
import xarray as xr
import zarr
from hypothesis import given
from hypothesis import strategies as st

from everystate.storage.layout import CHUNK_BYTES, MIN_STEPS, SHARD_BYTES, block_steps, grid
from everystate.storage.writer import CODECS, create_arrays, plain


def variable(batch, steps, units, dtype="float32", dims=("batch", "time", "unit")):
    # One number, seen at every place: no memory.
    sizes = {"batch": batch, "time": steps, "unit": units}
    shape = tuple(sizes[dim] for dim in dims)
    return xr.Variable(dims, np.broadcast_to(np.zeros((), dtype), shape))


@pytest.mark.parametrize(
    ("sizes", "block", "chunks", "shards"),
    [
        # One long sequence: 1 MiB in 8 MiB.
        ((1, 400_000, 256), 8192, (1, 1024, 256), (1, 8192, 256)),
        # Shorter than a block: one file, as long as the sequence needs.
        ((3, 17, 5), 131072, (3, 17, 5), (3, 17, 5)),
        # A step of all rows is 20 MB: the batch is cut as well.
        ((10_000, 100, 512), 16, (32, 16, 512), (256, 16, 512)),
    ],
)
def test_grids_of_typical_layers(sizes, block, chunks, shards):
    h = variable(*sizes)
    assert block_steps({"h": h}) == block
    assert grid(h, block).chunks == chunks
    assert grid(h, block).shards == shards


def test_the_widest_variable_decides_for_all_and_narrow_ones_get_longer_chunks():
    layer = {"h": variable(1, 10**6, 256), "inputs": variable(1, 10**6, 1)}
    block = block_steps(layer)
    assert block == block_steps({"h": layer["h"]}) == 8192
    assert grid(layer["inputs"], block).chunks == (1, 8192, 1)


def test_order_of_dimensions_does_not_matter():
    block = 8192
    turned = grid(variable(2, 50_000, 64, dims=("time", "unit", "batch")), block)
    usual = grid(variable(2, 50_000, 64), block)
    assert turned.chunks == tuple(usual.chunks[k] for k in (1, 2, 0))
    assert turned.shards == tuple(usual.shards[k] for k in (1, 2, 0))


@given(
    st.integers(0, 3000),
    st.integers(0, 10**6),
    st.integers(0, 3000),
    st.sampled_from(["float16", "float32", "float64"]),
)
def test_shards_hold_whole_chunks_and_blocks_hold_whole_shards(batch, steps, units, dtype):
    h = variable(batch, steps, units, dtype)
    block = block_steps({"h": h})
    cut = grid(h, block)
    assert all(s % c == 0 and c > 0 for c, s in zip(cut.chunks, cut.shards, strict=True))
    if steps > block:
        assert cut.shards[1] == block
    else:
        assert cut.shards[1] >= steps
    # No larger than meant, unless the fewest steps of one row are.
    least = MIN_STEPS * units * h.dtype.itemsize
    assert np.prod(cut.chunks) * h.dtype.itemsize <= max(CHUNK_BYTES, least)
    assert np.prod(cut.shards) * h.dtype.itemsize <= max(SHARD_BYTES, least)


@pytest.mark.parametrize("dtype", ["float16", "float32", "int8", "int64", "bool", "uint16"])
@pytest.mark.parametrize("steps", [40, 300_000])
def test_metadata_are_those_that_zarr_makes_of_one_array(tmp_path, dtype, steps):
    h = variable(3, steps, 5, dtype)
    h.attrs = {"long_name": "state", "scale": np.float32(0.5), "lags": np.arange(2)}
    layer = xr.Dataset({"h": h, "initial": variable(3, 1, 5, dtype, ("batch", "unit"))})
    made = create_arrays(tmp_path / "many", "/a/lstm", layer, dict(layer.variables), 1 << 14)
    for name, array in made.items():
        there = layer.variables[name]
        cut = grid(there, 1 << 14) if "time" in there.dims else None
        zarr.create_array(
            str(tmp_path / "one"),
            name=f"a/lstm/{name}",
            shape=there.shape,
            dtype=there.dtype,
            chunks=cut.chunks if cut else there.shape,
            shards=cut.shards if cut and cut.shards != cut.chunks else None,
            compressors=CODECS,
            fill_value=np.nan if there.dtype.kind == "f" else None,
            dimension_names=there.dims,
            attributes=plain(there.attrs),
        )
        files = [tmp_path / which / "a/lstm" / name / "zarr.json" for which in ("one", "many")]
        assert files[0].read_bytes() == files[1].read_bytes()
        assert array.path == f"a/lstm/{name}"
