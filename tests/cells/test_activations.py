import numpy as np
import pytest

import oracles
from everystate.cells.activations import (
    ACTIVATIONS,
    PARAMETRIC,
    activation,
    hard_sigmoid,
    hard_sigmoid_keras2,
    sigmoid,
)
from everystate.errors import WeightsError
from everystate.testing import importorskip

WITH_PARAMETERS = [
    "affine(0.7, -0.2)",
    "elu(0.6)",
    "hard_sigmoid_onnx(0.3, 0.4)",
    "leaky_relu(0.3)",
    "scaled_tanh(1.7, 0.6)",
    "thresholded_relu(0.37)",
]

X = np.concatenate([np.linspace(-8, 8, 161), [-2.5, 2.5, -3.0, 3.0, -1000.0, 1000.0, 0.0, -0.0]])


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_equals_the_oracle(library, name):
    ours = np.asarray(ACTIVATIONS[name](library.asarray(X)))
    oracles.assert_close({"y": ours}, {"y": oracles.ACTIVATIONS[name](X)}, library.tolerance)


@pytest.mark.parametrize("name", WITH_PARAMETERS)
def test_with_parameters_equals_the_oracle(library, name):
    ours = np.asarray(activation(name)(library.asarray(X)))
    oracles.assert_close({"y": ours}, {"y": oracles.activation(name)(X)}, library.tolerance)


@pytest.mark.parametrize("name", WITH_PARAMETERS)
def test_each_parameter_matters(name):
    family, _, numbers = name.rstrip(")").partition("(")
    numbers = [float(number) for number in numbers.split(",")]
    for k in range(len(numbers)):
        other = [number + 0.3 * (j == k) for j, number in enumerate(numbers)]
        changed = activation(f"{family}({', '.join(map(str, other))})")
        assert np.abs(changed(X) - oracles.activation(name)(X)).max() > 0.1


@pytest.mark.parametrize("name", ["affine(1.0)", "affine(1, 2, 3)", "elu(x)", "elu()"])
def test_other_parameters_are_refused(name):
    with pytest.raises(WeightsError, match=r"expected (affine\(alpha, beta\)|elu\(alpha\))"):
        activation(name)


@pytest.mark.parametrize("name", ["swish", "swish(1.0)", "elu(1.0", "relu(1.0)"])
def test_an_unknown_name_is_refused_with_those_there_are(name):
    with pytest.raises(WeightsError, match=r"unknown activation .* there are tanh, sigmoid"):
        activation(name)


def test_oracle_and_everystate_know_the_same_names():
    assert set(ACTIVATIONS) == set(oracles.ACTIVATIONS)
    assert set(PARAMETRIC) == set(oracles.PARAMETRIC)
    assert {name.partition("(")[0] for name in WITH_PARAMETERS} == set(PARAMETRIC)


def test_every_two_activations_differ():
    found = {
        name: f(np.array([-2.7, -0.4, 0.3, 2.7])).round(6).tobytes()
        for name, f in ACTIVATIONS.items()
    }
    assert len(set(found.values())) == len(ACTIVATIONS)


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_keeps_dtype_and_nan_without_a_warning(name, dtype):
    with np.errstate(all="raise", under="ignore"):
        y = ACTIVATIONS[name](np.array([np.nan, 0.0, 1.0], dtype))
    assert y.dtype == dtype
    assert np.isnan(y).tolist() == [True, False, False]


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_half_precision_in_torch(name):
    torch = importorskip("torch")
    y = ACTIVATIONS[name](torch.tensor([-0.5, 0.5], dtype=torch.bfloat16))
    assert y.dtype == torch.bfloat16
    np.testing.assert_allclose(
        y.float(), oracles.ACTIVATIONS[name](np.array([-0.5, 0.5])), atol=4e-3
    )


@pytest.mark.parametrize("name", ["tanh", "sigmoid", "hard_sigmoid", "hard_sigmoid_keras2"])
def test_infinity_saturates_and_nothing_overflows(name):
    with np.errstate(all="raise", under="ignore"):
        y = ACTIVATIONS[name](np.array([-np.inf, np.inf]))
    assert y.tolist() == [-1.0 if name == "tanh" else 0.0, 1.0]


def test_sigmoid_has_full_relative_accuracy_far_below_zero():
    np.testing.assert_allclose(sigmoid(np.array([-40.0])), np.exp(-40.0), rtol=1e-15)


def test_the_two_hard_sigmoids_differ_where_a_gate_works():
    x = np.array([1.0])
    assert hard_sigmoid(x)[0] == pytest.approx(4 / 6)
    assert hard_sigmoid_keras2(x)[0] == pytest.approx(0.7)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [("sigmoid", "sigmoid"), ("relu", "relu"), ("hard_sigmoid", "hardsigmoid"), ("tanh", "tanh")],
)
def test_derivatives_are_those_of_torch_at_zero_and_elsewhere(ours, theirs):
    torch = importorskip("torch")
    grads = []
    for f in (ACTIVATIONS[ours], getattr(torch.nn.functional, theirs)):
        x = torch.tensor([-4.0, -0.7, 0.0, 0.7, 4.0], dtype=torch.float64, requires_grad=True)
        f(x).sum().backward()
        grads.append(x.grad.numpy())
    np.testing.assert_allclose(*grads, rtol=1e-7)  # PyTorch's 1/6 is a float32


@pytest.mark.parametrize("name", ["sigmoid", "relu", "hard_sigmoid"])
def test_derivatives_are_those_of_jax_at_zero_and_elsewhere(name):
    jax = importorskip("jax")
    with jax.enable_x64(True):
        x = jax.numpy.array([-4.0, -0.7, 0.0, 0.7, 4.0])
        ours = jax.vmap(jax.grad(ACTIVATIONS[name]))(x)
        theirs = jax.vmap(jax.grad(getattr(jax.nn, name)))(x)
    np.testing.assert_allclose(ours, theirs, rtol=1e-12)
