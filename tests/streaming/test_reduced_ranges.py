"""`Saturation` of a recording: each gate within its own range, as in the whole trace."""

import numpy as np
import pytest

import everystate as es
import mutations
from everystate.analysis.reducers import Moments, Saturation
from everystate.analysis.saturation import saturation
from everystate.errors import EverystateWarning, SelectionError
from everystate.testing import importorskip

torch = importorskip("torch")

T, B, D, U = 210, 2, 3, 5


class StopError(Exception):
    pass


def stop_at_128(done, total):
    if done >= 128:
        raise StopError


def model_of(kind):
    torch.manual_seed(3)
    model = getattr(torch.nn, kind)(D, U)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4.0)
    return model


@pytest.fixture
def x():
    return np.random.default_rng(8).normal(size=(T, B, D)).astype(np.float32)


def check(found, layer):
    """Compare with the shares counted by hand, and with those of the whole trace."""
    whole = saturation(layer)
    assert set(found) == set(whole.variable.values)
    for name, group in found.items():
        low = -0.9 if name in "gn" else 0.1
        got = group["saturation"].to_dataset()
        values = layer[name].values
        np.testing.assert_allclose(got.left, (values < low).mean(axis=(0, 1)), atol=1e-12)
        np.testing.assert_allclose(got.right, (values > 0.9).mean(axis=(0, 1)), atol=1e-12)
        np.testing.assert_allclose(got.left, whole.left.sel(variable=name), atol=1e-12)
        np.testing.assert_allclose(got.right, whole.right.sel(variable=name), atol=1e-12)


@pytest.mark.parametrize(("kind", "gates"), [("LSTM", "ifgo"), ("GRU", "rzn")])
def test_of_each_gate_in_its_own_range(kind, gates, x, tmp_path):
    model = model_of(kind)
    layer = es.record(model, x)[kind.lower()].to_dataset()
    made = es.record(model, x, reduce=[Saturation()], chunk=64)[kind.lower()]
    assert set(made.children) == set(gates)
    candidate = "g" if kind == "LSTM" else "n"
    assert 0.02 < made[candidate]["saturation"]["left"].mean() < 0.98
    check(made.children, layer)
    with mutations.must_be_noticed("the range of the other gates"):
        wrong = layer.assign({candidate: layer[candidate] - 0.3})
        check(made.children, wrong)
    options = {"store": tmp_path / "run.zarr", "reduce": [Saturation()], "chunk": 64}
    with pytest.raises(StopError):
        es.record(model, x, progress=stop_at_128, **options)
    check(es.record(model, x, resume=True, **options)[kind.lower()].children, layer)


def test_names_are_no_reducers(x):
    for names in ("moments", ["moments"]):
        with pytest.raises(SelectionError, match=r"reduce='moments': .* reduce=\[Moments\(\)\]"):
            es.record(model_of("RNN"), x, reduce=names)


def test_states_have_none_unless_it_is_given(x):
    model = model_of("RNN")
    layer = es.record(model, x)["rnn"]
    assert not saturation(layer)
    kinds = {"ends": Saturation(), "given": Saturation(-0.8, 0.7), "moments": Moments()}
    with pytest.warns(EverystateWarning, match=r"reduce: ends has no result.* of rnn/h\.") as told:
        made = es.record(model, x, reduce=kinds)["rnn/h"]
    assert len(told) == 1
    assert set(made.children) == {"given", "moments"}
    expected = (layer.h.values < -0.8).mean(axis=(0, 1))
    np.testing.assert_allclose(made["given"]["left"], expected, atol=1e-12)
    assert expected.mean() > 0.05
