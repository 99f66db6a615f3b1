import numpy as np
import pytest

import cases
from everystate.recording.observation import as_numpy, turn
from everystate.testing import importorskip
from observed import observed

LENGTHS = np.array([5, 0, 3])


@pytest.mark.parametrize("shape", [(5, 3), (5, 3, 2), (5, 3, 2, 2)])
def test_turn_reverses_each_row_within_its_length(asarray, shape):
    a = np.random.default_rng(0).normal(size=shape)
    turned = np.asarray(turn(asarray(a), LENGTHS))
    for row, length in enumerate(LENGTHS):
        np.testing.assert_array_equal(turned[:length, row], a[:length, row][::-1])
        np.testing.assert_array_equal(turned[length:, row], a[length:, row])


@pytest.mark.parametrize("lengths", [None, LENGTHS])
def test_turning_twice_gives_the_same(asarray, lengths):
    a = np.random.default_rng(0).normal(size=(5, 3, 2))
    np.testing.assert_array_equal(np.asarray(turn(turn(asarray(a), lengths), lengths)), a)
    assert not np.array_equal(np.asarray(turn(asarray(a), lengths)), a)


def test_turn_keeps_the_gradient_of_torch():
    torch = importorskip("torch")
    a = torch.arange(30.0).reshape(5, 3, 2).requires_grad_()
    (turn(a, LENGTHS) * torch.arange(5.0)[:, None, None]).sum().backward()
    assert a.grad[:, 0, 0].tolist() == [4.0, 3.0, 2.0, 1.0, 0.0]
    assert a.grad[:, 2, 0].tolist() == [2.0, 1.0, 0.0, 3.0, 4.0]


def test_as_numpy_shares_memory_where_it_can():
    torch = importorskip("torch")
    a = torch.ones(3, requires_grad=True)
    assert np.shares_memory(as_numpy(a), a.detach().numpy())
    b = np.ones(3)
    assert as_numpy(b) is b


def test_sizes_and_dimensions():
    seen = observed(cases.case("lstm", projected=cases.P))
    assert (seen.steps, seen.batch, seen.width) == (cases.T, cases.B, cases.U)
    assert [seen.units(name) for name in ("h", "c", "f")] == [cases.P, cases.U, cases.U]
    assert [seen.dim(name) for name in ("h", "c", "inputs")] == [
        "projected_unit",
        "unit",
        "feature",
    ]


def test_a_projection_as_large_as_the_cell_is_still_a_projection():
    seen = observed(cases.case("lstm", projected=cases.U))
    assert [seen.dim(name) for name in ("h", "c", "o")] == ["projected_unit", "unit", "unit"]


@pytest.mark.parametrize(
    ("missing", "variables"),
    [
        ((), ("h", "c", "i", "f", "g", "o")),
        (("inputs",), ("h",)),
        (("cell",), ("h",)),
        (("weights",), ("h",)),
    ],
)
def test_variables_are_those_that_can_be_had(missing, variables):
    seen = observed(cases.case("lstm"), **dict.fromkeys(missing))
    assert seen.variables == variables
    assert seen.replayable == (not missing)
