"""Laws of one-pass figures: neither the blocks nor the order of merges change a result."""

import itertools

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from everystate.analysis.reducers import (
    Autocorrelation,
    Covariance,
    Histogram,
    Moments,
    Quantiles,
    Range,
    Saturation,
    TopSteps,
)

MAKERS = {
    "Moments": Moments,
    "Range": Range,
    "Saturation": lambda: Saturation(-0.4, 0.4),
    "Histogram": lambda: Histogram(-1.0, 1.0, bins=7),
    "Covariance": Covariance,
    "Autocorrelation": lambda: Autocorrelation(lags=(1, 2, 5)),
    "TopSteps": lambda: TopSteps(count=5, context=3),
    "Quantiles": lambda: Quantiles(q=(0.1, 0.5, 0.9)),
}

all_reducers = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
few = settings(max_examples=12, deadline=None)


@st.composite
def streams(draw, most=4):
    """Draw seeded values (time, batch, unit) with gaps and short rows, cut into blocks."""
    steps = draw(st.lists(st.integers(1, 9), min_size=1, max_size=most))
    rows, units = draw(st.integers(1, 3)), 2
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    values = rng.normal(size=(sum(steps), rows, units)) + 0.3
    values[rng.random(values.shape[:2]) < 0.1] = np.nan
    values[draw(st.integers(0, len(values))) :, 0] = np.nan
    return values, [0, *np.cumsum(steps).tolist()]


def alike(a, b):
    xr.testing.assert_allclose(_fixed(a.result()), _fixed(b.result()), rtol=1e-9, atol=1e-11)


def _fixed(found):
    """Leave out directions of no variance, which rounding turns."""
    return found.drop_vars(["component", "explained"], errors="ignore")


def fed(make, values, start=0):
    reducer = make()
    reducer.update(values, start)
    return reducer


@all_reducers
@given(stream=streams())
@few
def test_blocks_do_not_matter(make, stream):
    values, cuts = stream
    pieces = make()
    for start, stop in itertools.pairwise(cuts):
        pieces.update(values[start:stop], start)
    alike(pieces, fed(make, values))


@all_reducers
@given(stream=streams())
@few
def test_merging_along_time_is_feeding_on(make, stream):
    values, cuts = stream
    merged = make()
    for start, stop in itertools.pairwise(cuts):
        merged.merge(fed(make, values[start:stop], start), along="time")
    alike(merged, fed(make, values))


@all_reducers
@given(rows=st.lists(streams(), min_size=2, max_size=3))
@few
def test_merging_along_batch_is_feeding_other_rows(make, rows):
    merged, other = make(), make()
    longest = max(len(values) for values, _ in rows)
    padded = [
        np.pad(v, ((0, longest - len(v)), (0, 0), (0, 0)), constant_values=np.nan) for v, _ in rows
    ]
    for values, cuts in rows:
        one = make()
        for start, stop in itertools.pairwise(cuts):
            one.update(values[start:stop], start)
        merged.merge(one)
    for values in padded:
        other.update(values, 0)
    alike(merged, other)
    alike(merged, fed(make, np.concatenate(padded, axis=1)))


@all_reducers
@given(
    parts=st.lists(st.tuples(st.integers(1, 6), st.booleans()), min_size=3, max_size=3),
    seed=st.integers(0, 10**6),
)
@few
def test_merges_are_associative(make, parts, seed):
    """(a b) c = a (b c), whether b goes on with a's rows or is of others, and c with b's."""
    rng = np.random.default_rng(seed)
    reducers, start = [], 0
    for steps, goes_on in parts:
        start = start if goes_on else 0
        reducers.append(fed(make, rng.normal(size=(steps, 2, 2)), start))
        start += steps
    (_, _), (_, b_goes_on), (_, c_goes_on) = parts
    b_along, c_along = ("time" if goes_on else "batch" for goes_on in (b_goes_on, c_goes_on))
    a, b, c = reducers

    left = copied(make, a)
    left.merge(b, b_along)
    left.merge(c, c_along)

    bc = copied(make, b)
    bc.merge(c, c_along)
    right = copied(make, a)
    right.merge(bc, b_along)

    alike(left, right)
    assert left.state()["span"].tolist() == right.state()["span"].tolist()


def copied(make, reducer):
    copy = make()
    copy.restore(reducer.state())
    return copy


@all_reducers
def test_merging_leaves_the_other_as_it_is(make):
    rng = np.random.default_rng(0)
    a, b = fed(make, rng.normal(size=(6, 2, 2))), fed(make, rng.normal(size=(4, 2, 2)), 6)
    before = {name: array.copy() for name, array in b.state().items()}
    a.merge(b, along="time")
    a.merge(make())
    a.update(rng.normal(size=(3, 2, 2)), 10)
    after = b.state()
    assert before.keys() == after.keys()
    assert all(
        np.array_equal(before[n], after[n], equal_nan=before[n].dtype.kind == "f") for n in before
    )


@all_reducers
def test_a_block_written_to_afterwards_changes_nothing(make):
    block = np.random.default_rng(0).normal(size=(6, 2, 2))
    kept = fed(make, block.copy())
    reducer = fed(make, block)
    block[:] = 7.0
    alike(reducer, kept)


@all_reducers
def test_the_state_does_not_grow_with_the_steps(make):
    rng = np.random.default_rng(1)
    reducer, sizes = make(), []
    for start in range(0, 60_000, 3_000):
        reducer.update(rng.normal(size=(3_000, 2, 3)), start)
        sizes.append(sum(array.nbytes for array in reducer.state().values()))
    assert max(sizes[10:]) <= 1.3 * max(sizes[:10])
