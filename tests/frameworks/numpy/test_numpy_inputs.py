"""What a stack may be called with, and what it says of anything else."""

import numpy as np
import pytest

import everystate as es
from everystate.errors import EverystateWarning, InputError, InputTypeError
from everystate.frameworks.numpy import load
from everystate.testing import importorskip

T, B, D, U = 7, 3, 4, 5


@pytest.fixture
def stack(write, model):
    return load(write(model("lstm", layers=2).tensors, "encoder."))["encoder"]


@pytest.fixture
def one_feature(write, model):
    tensors = model("gru").tensors
    return load(write({**tensors, "weight_ih_l0": tensors["weight_ih_l0"][:, :1]}))["gru"]


def test_a_sequence_without_a_batch(stack, rng):
    x = rng.normal(size=(T, D))
    state = tuple(rng.normal(size=(2, U)) for _ in "hc")
    outputs, (h, c) = stack(x, state)
    expected, (h_b, c_b) = stack(x[None], tuple(s[:, None] for s in state))
    assert np.array_equal(outputs, expected[0])
    assert np.array_equal(h, h_b[:, 0])
    assert np.array_equal(c, c_b[:, 0])
    assert es.record(stack, x)["encoder/layer_1"].h.sizes == {"batch": 1, "time": T, "unit": U}


def test_a_series_of_one_feature(one_feature, rng):
    x = rng.normal(size=T)
    outputs, final = one_feature(x)
    assert np.array_equal(outputs, one_feature(x[None, :, None])[0][0])
    assert final.shape == (1, U)


def test_time_may_come_first(write, model, rng):
    path = write(model("lstm").tensors)
    x = rng.normal(size=(T, B, D))
    outputs, _ = load(path, batch_first=False)["lstm"](x)
    assert np.array_equal(outputs.swapaxes(0, 1), load(path)["lstm"](x.swapaxes(0, 1))[0])


@pytest.mark.parametrize("dtype", ["int64", "uint8", "bool", "float16", "float32"])
def test_numbers_of_any_kind_are_cast(stack, dtype):
    x = (np.arange(T * D).reshape(T, D) % 3).astype(dtype)
    outputs, _ = stack(x)
    assert outputs.dtype == "float64"
    assert np.array_equal(outputs, stack(x.astype("float64"))[0])


def test_lists_and_tensors_are_arrays_too(stack, rng):
    torch = importorskip("torch")
    x = rng.normal(size=(T, D))
    expected, _ = stack(x)
    assert np.array_equal(stack(x.tolist())[0], expected)
    assert np.array_equal(stack(torch.from_numpy(x).requires_grad_())[0], expected)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((D,), r"\(4,\), expected \(batch, time, 4\) or \(time, 4\)\. Add or drop a dimension"),
        ((2, B, T, D), r"\(2, 3, 7, 4\), expected \(batch, time, 4\)"),
        ((B, T, 6), r"\(3, 7, 6\), .* reads 4 features a step\. Choose the features"),
        ((B, D, T), r"\(3, 4, 7\), .* Axis 1 has 4: try np\.moveaxis\(x, 1, -1\)"),
        ((0, T, D), r"\(0, 7, 4\), .* It is empty"),
        ((B, 0, D), r"\(3, 0, 4\), .* It is empty"),
        ((0, D), r"\(0, 4\), .* It is empty"),
    ],
)
def test_shapes_that_do_not_fit(stack, shape, message):
    with pytest.raises(InputError, match=f"^encoder: got an input of shape {message}"):
        stack(np.zeros(shape))


def test_the_message_knows_the_layout_and_a_single_feature(write, model, one_feature):
    stack = load(write(model("lstm").tensors), batch_first=False)["lstm"]
    with pytest.raises(InputError, match=r"expected \(time, batch, 4\)"):
        stack(np.zeros(3))
    with pytest.raises(InputError, match=r"or \(time, 1\) or \(time,\)"):
        one_feature(np.zeros((T, 2)))


@pytest.mark.parametrize(
    "x",
    [
        np.zeros((T, D), complex),
        np.full((T, D), "1.0"),
        np.full((T, D), None),
        np.zeros((T, D), "datetime64[s]"),
    ],
    ids=lambda x: x.dtype.name,
)
def test_what_are_no_numbers(stack, x):
    with pytest.raises(InputTypeError, match=r"encoder: the input has dtype .*expected real num"):
        stack(x)


def test_what_is_no_array(stack):
    with pytest.raises(InputTypeError, match="encoder: the input is a list that NumPy cannot read"):
        stack([[1.0, 2.0], [3.0]])


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (np.zeros((2, B, U)), r"the state has 1 parts, expected 2: \(h_0, c_0\)"),
        ((np.zeros((2, B, U)),) * 3, "the state has 3 parts, expected 2"),
        ((np.zeros((1, B, U)),) * 2, r"h_0 has shape \(1, 3, 5\), expected \(2, 3, 5\): \(layers"),
        ((np.zeros((2, B, U)), np.zeros((2, U))), r"c_0 has shape \(2, 5\), expected \(2, 3, 5\)"),
    ],
)
def test_states_that_do_not_fit(stack, state, message):
    with pytest.raises(InputError, match=f"encoder: {message}"):
        stack(np.zeros((B, T, D)), state)


def test_a_state_that_is_no_number(stack):
    with pytest.raises(InputTypeError, match="the initial state h_0 has dtype"):
        stack(np.zeros((B, T, D)), (np.full((2, B, U), "a"), np.zeros((2, B, U))))


def test_a_state_without_a_batch_for_a_sequence_without_one(stack):
    with pytest.raises(InputError, match=r"expected \(2, 5\): \(layers \* directions, units\)"):
        stack(np.zeros((T, D)), (np.zeros((2, 1, U)),) * 2)


@pytest.mark.parametrize("lengths", [[7, 2], [7, 0, 2], [8, 1, 1], [1.5, 2, 3], 7])
def test_lengths_that_do_not_fit(stack, lengths):
    with pytest.raises(InputError, match=r"encoder: lengths=.*3 whole numbers.*from 1 to 7"):
        stack(np.zeros((B, T, D)), None, lengths)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_odd_values_are_recorded_as_they_are_and_said(stack, rng, value):
    x = rng.normal(size=(B, T, D))
    x[1, 3, 2] = value
    select = es.Select(variables=("states", "inputs"))
    with pytest.warns(EverystateWarning) as caught:
        trace = es.record(stack, x, select=select)
    message = str(caught[0].message)
    assert message.startswith("encoder: 1 values of the input are NaN or infinite, the first at")
    assert "step 3 (row 1, feature 2)" in message
    layer = trace["encoder/layer_0"]
    assert np.array_equal(layer.inputs.values, x, equal_nan=True)
    clean = np.isfinite(layer.h.values).all(axis=2)
    assert clean[[0, 2]].all()
    assert clean[1, :3].all()
    if np.isnan(value):
        assert not clean[1, 3:].any()


def test_odd_values_in_padding_are_nobodys_business(stack, rng, recwarn):
    x = rng.normal(size=(B, T, D))
    x[1, 4:] = np.nan
    with es.recording(stack) as rec:
        stack(x, None, [7, 4, 7])
    assert np.isfinite(rec.trace["encoder/layer_1"].h.values[1, :4]).all()
    assert not recwarn.list


def test_the_caller_may_change_arrays_afterwards(stack, rng):
    x, state = rng.normal(size=(B, T, D)), tuple(rng.normal(size=(2, 2, B, U)))
    before = [s.copy() for s in state]
    with es.recording(stack) as rec:
        outputs, final = stack(x, state)
    kept = rec.trace.map_over_datasets(lambda ds: ds.copy(deep=True))
    for a in (x, outputs, *state, *final):
        a[...] = 99.0
    assert rec.trace.equals(kept)
    assert np.array_equal(rec.trace["encoder/layer_1"].initial_c.values, before[1][1])
