"""Inputs by name: which of them is the sequence."""

import numpy as np
import pytest

import everystate as es
from everystate.errors import InputError
from everystate.streaming.feeding import given
from everystate.testing import importorskip

x = np.zeros((9, 2, 3), "float32")


def test_one_input_needs_no_name():
    assert given((x,)).x is x
    assert given((x,)).name == ""


def test_the_largest_array_is_the_sequence():
    what = given(({"rate": 0.5, "x": x, "lengths": [9, 9], 7: x[:8]},))
    assert (what.name, list(what.others)) == ("x", ["rate", "lengths", "7"])


def test_what_is_not_in_memory_is_the_sequence(tmp_path):
    np.save(tmp_path / "short.npy", x[:2])
    mapped = np.load(tmp_path / "short.npy", mmap_mode="r")
    for lazy in (mapped, tmp_path / "short.npy", iter([x[:2]])):
        what = given(({"large": x, "lazy": lazy},))
        assert what.name == "lazy"
        assert what.x is lazy


def test_several_that_may_be():
    for inputs, said in [
        (({"a": x, "b": x},), "which of the inputs a, b is the sequence"),
        (({"a": iter([x]), "b": "x.npy"},), "which of the inputs a, b is the sequence"),
        (({},), "(there are none)"),
        ((x, x), "take one input, the sequence; got 2"),
    ]:
        with pytest.raises(InputError) as raised:
            given(inputs)
        assert said in str(raised.value)


def test_a_framework_whose_inputs_have_no_names(tmp_path):
    torch = importorskip("torch")
    with pytest.raises(InputError, match=r"inputs by name, x and 1 others: .*models of torch"):
        es.record(torch.nn.GRU(3, 4), {"x": x, "h": x[:1]}, store=tmp_path / "run.zarr")
