"""Memory: large arrays begin where a huge page does, and hold what any array would."""

import numpy as np
import pytest

from everystate.recording import memory

SHAPES = [(), (0,), (3, 0, 2), (3, 4, 5), (300, 9, 130), (2_100_001,)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int64", "bool"])
def test_shape_and_dtype_are_as_asked_for(shape, dtype):
    a = memory.empty(shape, dtype)
    assert (a.shape, a.dtype) == (shape, np.dtype(dtype))
    assert a.flags.c_contiguous
    assert a.flags.writeable
    a[...] = 1
    assert (a == 1).all()


def test_large_ones_begin_with_a_page_and_small_ones_take_no_more_than_they_need():
    large = memory.empty((memory.LARGE // 4,), np.float32)
    assert large.ctypes.data % memory.PAGE == 0
    small = memory.empty((memory.LARGE // 4 - 1,), np.float32)
    assert small.base is None


@pytest.mark.parametrize("shape", [(7, 3, 5), (700, 30, 51)], ids=str)
@pytest.mark.parametrize("dtype", [None, "float16", "float64"])
def test_a_copy_holds_the_same_and_shares_nothing(shape, dtype):
    a = np.random.default_rng(0).normal(size=shape).astype("float32")[::2, :, ::3]
    own = memory.copy(a, dtype)
    np.testing.assert_array_equal(own, a.astype(dtype or "float32"))
    assert not np.shares_memory(own, a)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("steps", [3, 4000])
def test_parts_stand_one_after_the_other(axis, steps):
    rng = np.random.default_rng(1)
    sizes = [(2, steps, 51), (5, steps, 51)] if axis == 0 else [(steps, 2, 51), (steps, 5, 51)]
    parts = [rng.normal(size=size).astype(kind) for size, kind in zip(sizes, "fd", strict=True)]
    found = memory.concatenate(parts, axis)
    expected = np.concatenate(parts, axis)
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)
