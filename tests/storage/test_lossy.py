"""Smaller numbers: what they are rounded to, and the error that is stated."""

import numpy as np
import pytest
import xarray as xr

import everystate as es
from everystate.errors import SelectionError
from everystate.storage.lossy import decoded, encoded
from everystate.testing import importorskip

DIMS = ("batch", "time", "unit")


@pytest.fixture
def steps() -> xr.Dataset:
    rng = np.random.default_rng(0)
    c = (rng.normal(size=(2, 30, 5)) * np.exp(rng.normal(0, 3, (2, 30, 1)))).astype(np.float32)
    h = np.tanh(c)
    c[1, 4, 2], c[0, 9], h[1, 20:] = np.nan, 0.0, np.nan
    initial = rng.normal(size=(2, 5)).astype(np.float32)
    coords = {"time": np.arange(30) * 0.5}
    variables = {"h": (DIMS, h), "c": (DIMS, c), "initial_h": (("batch", "unit"), initial)}
    return xr.Dataset(variables, coords, {"cell": "LSTM"})


def stated(kept: xr.Dataset, steps: xr.Dataset, back: xr.Dataset) -> None:
    for name in ("h", "c"):
        error = float(abs(steps[name] - back[name].astype("float32")).max())
        assert kept.attrs[f"storage_error_{name}"] == pytest.approx(error, rel=1e-5)
        assert error > 0
        np.testing.assert_array_equal(np.isnan(back[name]), np.isnan(steps[name]))
    xr.testing.assert_identical(kept.initial_h, steps.initial_h)
    assert kept.attrs["cell"] == "LSTM"


def test_float16(steps):
    kept = encoded(steps, "float16")
    stated(kept, steps, kept)
    np.testing.assert_array_equal(kept.c, steps.c.values.astype(np.float16))


def test_bfloat16_is_what_others_round_to(steps):
    ml_dtypes = importorskip("ml_dtypes")
    kept = encoded(steps, "bfloat16")
    stated(kept, steps, kept)
    ties = np.array([[[1.00390625, 1.01171875, -0.0, np.inf, 3e38]]])
    for values in (steps.c.values, ties):
        own = xr.Dataset({"c": (DIMS, values.astype(np.float32))})
        got = encoded(own, "bfloat16").c.values
        expected = values.astype(np.float32).astype(ml_dtypes.bfloat16).astype(np.float32)
        np.testing.assert_array_equal(got, expected)
    assert not (kept.c.values.view(np.uint32) & 0xFFFF).any()


def test_int8_with_a_scale_for_each_step(steps):
    kept = encoded(steps, "int8")
    assert kept.c.dtype == np.int8
    assert kept.c_scale.dims == ("batch", "time")
    back = decoded(kept)
    stated(kept, steps, back)
    assert set(back.variables) == set(steps.variables)
    assert back.c.attrs == steps.c.attrs
    largest = abs(steps.c).max("unit")
    assert (abs(back.c - steps.c).max("unit") <= largest / 254 * 1.0001).all()
    for place in [(0, 3, 2), (slice(None), 3), (1, slice(2, 9), [4, 0]), (..., -1), ([1, 0], 4)]:
        np.testing.assert_array_equal(back.c[place], back.c.copy(data=back.c.values)[place])


def test_a_wrong_scale_would_be_seen(steps):
    kept = encoded(steps, "int8")
    kept["c_scale"] = kept.c_scale.shift(time=1)
    with pytest.raises(AssertionError):
        stated(kept, steps, decoded(kept))


@pytest.mark.parametrize("kind", ["float16", "bfloat16", "int8"])
def test_a_recording_states_its_error(kind, tmp_path):
    torch = importorskip("torch")
    torch.manual_seed(0)
    lstm, x = torch.nn.LSTM(3, 5), torch.randn(300, 2, 3)
    whole = es.record(lstm, x)["lstm"]
    got = es.record(lstm, x, store=tmp_path / "run.zarr", stored_as=kind, chunk=64)["lstm"]
    assert got.attrs["stored_as"] == kind
    assert list(got.data_vars) == list(whole.data_vars)
    for name in "hcifgo":
        error = float(abs(got[name].astype("float32") - whole[name]).max())
        assert error == pytest.approx(got.attrs[f"storage_error_{name}"], abs=1e-6)
        assert 1e-6 < error < 0.02
    with pytest.raises(SelectionError, match="stored_as='int4': expected one of float16"):
        es.record(lstm, x, store=tmp_path / "other.zarr", stored_as="int4")
