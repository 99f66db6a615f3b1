"""A carried state as arrays and JSON, and back."""

import json
from typing import NamedTuple

import numpy as np
import pytest

from everystate.errors import ResumeError
from everystate.streaming import state
from everystate.testing import importorskip


def there_and_back(value):
    arrays: state.Arrays = []
    said = json.loads(json.dumps(state.dump(value, arrays)))
    return state.load(said, arrays)


def test_nestings_come_back():
    value = {"a": (np.arange(3.0), [1, 2.5, None, "x", True]), "b": {"c": np.float32(2)}}
    got = there_and_back(value)
    assert isinstance(got["a"], tuple)
    assert got["a"][1] == [1, 2.5, None, "x", True]
    np.testing.assert_array_equal(got["a"][0], [0, 1, 2])
    assert got["b"]["c"].dtype == np.float32


class Pair(NamedTuple):
    c: np.ndarray
    h: tuple[float, int]


def test_named_tuples_keep_their_names():
    """Whose they are is not looked up: what is read from a file loads no code."""
    got = there_and_back([Pair(np.arange(3.0), (1.5, 2))])[0]
    assert type(got).__name__ == "Pair"
    assert got._fields == Pair._fields
    np.testing.assert_array_equal(got.c, [0, 1, 2])
    assert got.h == (1.5, 2)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16", "int64"])
def test_tensors_come_back_exactly(dtype):
    torch = importorskip("torch")
    value = (torch.randn(2, 3, generator=torch.Generator().manual_seed(0)) * 9).to(
        getattr(torch, dtype)
    )
    got = there_and_back([value])[0]
    assert got.dtype == value.dtype
    assert torch.equal(got, value)


def test_arrays_of_jax_come_back():
    jnp = importorskip("jax").numpy
    got = there_and_back((jnp.arange(3),))[0]
    assert type(got) is type(jnp.arange(3))
    assert got.tolist() == [0, 1, 2]


def test_what_cannot_be_stored_is_refused():
    with pytest.raises(ResumeError, match="holds a object, which cannot be stored"):
        there_and_back([object()])
    with pytest.raises(ResumeError, match="holds a dict"):
        there_and_back({1: np.zeros(2)})
