"""Which axis is time: the one that all layers take as many steps of."""

import numpy as np
import pytest

from everystate.errors import InputError
from everystate.recording.time_axis import MUCH, time_axis_of

X = np.zeros((4, 4, 3), "float32")  # batch and time are as long: only a run tells


def steps_along(axis: int, *, stride: int = 1, batch: int | None = None):
    """A model that steps along an axis, of a fixed batch if need be."""
    ran: list[tuple[int, ...]] = []

    def steps_of(ones: np.ndarray) -> set[int]:
        ran.append(ones.shape)
        assert ones.all()
        if batch is not None and ones.shape[1 - axis] != batch:
            raise InputError("another batch")
        return {ones.shape[axis] // stride}

    steps_of.ran = ran
    return steps_of


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("batch", [None, 4])
def test_the_axis_that_is_stepped_along(axis, batch):
    assert time_axis_of(X, [None, None, 3], steps_along(axis, batch=batch), "m") == axis
    assert time_axis_of(X, None, steps_along(axis, batch=batch), "m") == axis


def test_a_long_sequence_is_not_run():
    x = np.broadcast_to(np.float32(0), (10**9, 2, 3))
    steps_of = steps_along(0)
    assert time_axis_of(x, None, steps_of, "m") == 0
    assert max(map(np.prod, steps_of.ran)) < MUCH


def test_an_axis_of_a_fixed_size():
    assert time_axis_of(X, [4, None, 3], steps_along(0), "m") == 0
    with pytest.raises(InputError, match="m takes 9 steps at once, neither more nor fewer: axis 0"):
        time_axis_of(X, [9, None, 3], steps_along(0), "m")


def test_what_does_not_tell():
    with pytest.raises(
        InputError, match=r"which axis of .*\(4, 4, 3\) is time\? m does not tell\."
    ):
        time_axis_of(X, None, steps_along(0, stride=2), "m")
    with pytest.raises(InputError, match="m does not tell: another batch Say time_axis=0"):
        time_axis_of(X, None, steps_along(0, batch=9), "m")
    with pytest.raises(
        InputError, match=r"shape \(4, 4\), expected \(\?, \?, 3\)\. A missing axis"
    ):
        time_axis_of(X[..., 0], [None, None, 3], steps_along(0), "m")
