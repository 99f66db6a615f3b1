"""One-pass figures against NumPy on the whole array, with a fault planted in each oracle."""

from itertools import pairwise

import numpy as np
import pytest
import xarray as xr

import mutations
from everystate.analysis.reducers import (
    Autocorrelation,
    Covariance,
    Histogram,
    Moments,
    Quantiles,
    Range,
    Saturation,
    TopSteps,
    reduced,
)
from everystate.analysis.saturation import saturation
from everystate.analysis.spread import spread
from everystate.errors import (
    InputError,
    InputTypeError,
    JoinError,
    NothingRecordedError,
    SelectionError,
    TraceFormatError,
)

STEPS, ROWS, UNITS = 211, 3, 5
LENGTHS = (211, 97, 160)
CUTS = (0, 1, 8, 64, 65, 200, STEPS)


@pytest.fixture
def values():
    """Return seeded values (time, batch, unit): skewed, correlated, ragged, and some not finite."""
    rng = np.random.default_rng(11)
    mixing = rng.normal(size=(UNITS, UNITS))
    noise = rng.gamma(2.0, size=(STEPS, ROWS, UNITS))
    a = np.cumsum(noise - 2.0, axis=0) * 0.1 @ mixing + [3.0, -1.0, 0.0, 0.5, 100.0]
    for row, length in enumerate(LENGTHS):
        a[length:, row] = np.nan
    a[20, 1, 3] = np.nan
    a[21, 0, 2] = -np.inf
    return a


def fed(reducer, values, cuts=CUTS):
    for start, stop in pairwise(cuts):
        reducer.update(values[start:stop], start)
    return reducer.result()


def finite_of(values, unit):
    flat = values[..., unit].ravel()
    return flat[np.isfinite(flat)]


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


def faults_of(values):
    """Yield values read wrongly; the last step matters to every figure."""
    yield "padding counted as zero", np.where(np.isnan(values), 0.0, values)
    yield "the last block forgotten", values[:200]
    yield "a step counted twice", np.concatenate([values, values[:1]])
    yield "units in another order", values[..., [1, 0, 2, 3, 4]]


def test_moments(values):
    found = fed(Moments(), values)

    def check(values):
        x = [finite_of(values, unit) for unit in range(UNITS)]
        z = [(each - each.mean()) / each.std() for each in x]
        close(found["count"], [len(each) for each in x])
        close(found["mean"], [each.mean() for each in x])
        close(found["std"], [each.std() for each in x])
        close(found["skewness"], [(each**3).mean() for each in z])
        close(found["kurtosis"], [(each**4).mean() - 3 for each in z])

    check(values)
    for fault, wrong in faults_of(values):
        with mutations.must_be_noticed(fault):
            check(wrong)


def test_moments_far_from_zero_do_not_cancel():
    rng = np.random.default_rng(2)
    x = rng.normal(size=(3000, 1, 2)) * 1e-3 + 1e3
    found = fed(Moments(), x, range(0, 3001, 100))

    def check(std):
        np.testing.assert_allclose(std, x.std((0, 1)), rtol=1e-8)

    check(found["std"])
    with mutations.must_be_noticed("sums of squares"):
        check(np.sqrt((x**2).mean((0, 1)) - x.mean((0, 1)) ** 2))


def test_range(values):
    found = fed(Range(), values)
    assert found["min"].values.tolist() == [finite_of(values, u).min() for u in range(UNITS)]
    assert found["max"].values.tolist() == [finite_of(values, u).max() for u in range(UNITS)]
    for fault, wrong in [*faults_of(values)][3:]:
        with mutations.must_be_noticed(fault):
            close(found["max"], [finite_of(wrong, u).max() for u in range(UNITS)])
    layer = xr.Dataset({"h": (("time", "batch", "unit"), values)})
    assert spread(layer)["max"].item() == found["max"].max().item()


def test_saturation(values):
    found = fed(Saturation(-0.5, 1.0), values)

    def check(values):
        x = [finite_of(values, unit) for unit in range(UNITS)]
        assert found["left_count"].values.tolist() == [(each < -0.5).sum() for each in x]
        assert found["right_count"].values.tolist() == [(each > 1.0).sum() for each in x]
        close(found["left"], [(each < -0.5).mean() for each in x])
        close(found["right"], [(each > 1.0).mean() for each in x])

    check(values)
    for fault, wrong in faults_of(values):
        with mutations.must_be_noticed(fault):
            check(wrong)


def test_saturation_is_that_of_the_whole_trace():
    gate = np.random.default_rng(5).beta(0.3, 0.4, size=(7, 40, 3))
    layer = xr.Dataset({"f": (("batch", "time", "unit"), gate)}, attrs={"cell": "LSTM"})
    (found,) = reduced(layer.f, Saturation())
    whole = saturation(layer).sel(variable="f")
    close(found.left, whole.left)
    close(found.right, whole.right)


def test_histogram(values):
    found = fed(Histogram(-2.0, 6.0, bins=13), values)

    def check(values, closed=True):
        for unit in range(UNITS):
            x = finite_of(values, unit)
            expected, edges = np.histogram(x, bins=13, range=(-2.0, 6.0))
            assert found.histogram.sel(unit=unit).values.tolist() == expected.tolist()
            assert found.edge.values.tolist() == edges.tolist()
            assert found.below.sel(unit=unit).item() == (x < -2.0).sum()
            assert found.above.sel(unit=unit).item() == (x > 6.0).sum()

    check(values)
    for fault, wrong in faults_of(values):
        with mutations.must_be_noticed(fault):
            check(wrong)


def test_values_on_the_edges_of_bins():
    edges = np.linspace(-1.0, 1.0, 11)
    found = fed(Histogram(-1.0, 1.0, bins=10), edges.reshape(11, 1, 1), (0, 11))
    expected, _ = np.histogram(edges, bins=10, range=(-1.0, 1.0))
    assert found.histogram.values.tolist() == [expected.tolist()]


def test_covariance(values):
    found = fed(Covariance(components=2), values)

    def check(values, ddof=0):
        x = values.reshape(-1, UNITS)
        x = x[np.isfinite(x).all(1)]
        expected = np.cov(x.T, ddof=ddof)
        np.testing.assert_allclose(found.covariance, expected, rtol=1e-9, atol=1e-9)
        close(found["mean"], x.mean(0))
        assert found["count"].item() == len(x)
        _, singular, directions = np.linalg.svd(x - x.mean(0), full_matrices=False)
        close(found.component_variance, singular[:2] ** 2 / len(x))
        close(abs((found.component.values * directions[:2]).sum(1)), 1.0)
        close(found.explained, (singular**2 / (singular**2).sum())[:2])

    check(values)
    assert (found.component.values[[0, 1], abs(found.component.values).argmax(1)] > 0).all()
    for fault, wrong in faults_of(values):
        with mutations.must_be_noticed(fault):
            check(wrong)
    with mutations.must_be_noticed("divided by n - 1"):
        check(values, ddof=1)


def lagged(values, lag, unit):
    """Autocorrelation by its definition, with plain loops over rows."""
    x = values[..., unit]
    x = np.where(np.isfinite(x), x, np.nan)
    d = x - np.nanmean(x)
    products = d[: len(d) - lag] * d[lag:]
    return np.nanmean(products) / np.nanmean(d**2), np.isfinite(products).sum()


@pytest.mark.parametrize("cuts", [CUTS, (0, STEPS), range(STEPS + 1)])
def test_autocorrelation(values, cuts):
    found = fed(Autocorrelation(lags=(1, 7, 90)), values, cuts)

    def check(values, shift=0):
        for k, lag in enumerate((1, 7, 90)):
            for unit in range(UNITS):
                r, pairs = lagged(values, lag + shift, unit)
                assert found.autocorrelation.values[k, unit] == pytest.approx(r, rel=1e-9)
                assert found.pairs.values[k, unit] == pairs

    check(values)
    with mutations.must_be_noticed("lag off by one"):
        check(values, shift=1)
    for fault, wrong in faults_of(values):
        with mutations.must_be_noticed(fault):
            check(wrong)


def extremes(values, count, context, score="max"):
    """The most extreme steps by sorting all of them."""
    size = np.abs(values).max(-1) if score == "max" else np.linalg.norm(values, axis=-1)
    steps, rows = np.nonzero(~np.isnan(size))
    order = sorted(range(len(steps)), key=lambda k: (-size[steps[k], rows[k]], rows[k], steps[k]))
    padded = np.pad(values, ((context, context), (0, 0), (0, 0)), constant_values=np.nan)
    return [
        (steps[k], rows[k], size[steps[k], rows[k]], padded[steps[k] :, rows[k]][: 2 * context + 1])
        for k in order[:count]
    ]


@pytest.mark.parametrize("cuts", [CUTS, (0, STEPS), range(STEPS + 1)])
@pytest.mark.parametrize(
    ("count", "context", "score"), [(4, 6, "max"), (9, 2, "norm"), (3, 0, "max")]
)
def test_top_steps(values, cuts, count, context, score):
    found = fed(TopSteps(count, context, score), values, cuts)

    def check(values):
        expected = extremes(values, count, context, score)
        assert found.step.values.tolist() == [step for step, *_ in expected]
        assert found.row.values.tolist() == [row for _, row, *_ in expected]
        close(found.score, [size for *_, size, _ in expected])
        np.testing.assert_array_equal(found.context, [around for *_, around in expected])

    check(values)
    assert np.isinf(found.score.values[0])
    for fault, wrong in mutations.of_values({"h": values}):
        with mutations.must_be_noticed(fault):
            check(wrong["h"])


def test_equal_scores_are_ranked_by_row_and_step():
    ones = np.ones((6, 2, 3))
    found = fed(TopSteps(count=4, context=1), ones, (0, 2, 3, 6))
    assert found.row.values.tolist() == [0, 0, 0, 0]
    assert found.step.values.tolist() == [0, 1, 2, 3]


def test_quantiles_of_few_values_are_exact(values):
    found = fed(Quantiles(q=(0.0, 0.25, 0.5, 1.0)), values)

    def check(values):
        for unit in range(UNITS):
            x = np.sort(finite_of(values, unit))
            ranks = [max(int(np.ceil(q * len(x))) - 1, 0) for q in (0.0, 0.25, 0.5, 1.0)]
            assert found.quantiles.sel(unit=unit).values.tolist() == x[ranks].tolist()

    check(values)
    for fault, wrong in faults_of(values):
        with mutations.must_be_noticed(fault):
            check(wrong)


def test_quantiles_of_many_values_are_within_the_bound():
    x = np.random.default_rng(3).normal(size=(40000, 1, 2)) ** 3
    reducer = Quantiles(q=(0.05, 0.5, 0.9), k=200)
    found = fed(reducer, x, range(0, 40001, 5000))
    bound = found.rank_error.item()
    assert bound == pytest.approx(0.0133, abs=1e-4)

    def check(x, bound):
        for unit in range(2):
            for q in (0.05, 0.5, 0.9):
                rank = (x[..., unit] <= found.quantiles.sel(q=q, unit=unit).item()).mean()
                assert abs(rank - q) <= bound

    check(x, 2 * bound)  # the bound holds in 99 of 100 cases, twice the bound in all but 1e-6
    with mutations.must_be_noticed("values shifted"):
        check(x + 0.1, 2 * bound)
    assert sum(a.nbytes for a in reducer.state().values()) < x.nbytes / 30


ALL = [
    Moments(),
    Range(),
    Saturation(),
    Histogram(),
    Covariance(),
    Autocorrelation((1, 2)),
    TopSteps(2, 1),
    Quantiles(),
]


@pytest.mark.parametrize("reducer", ALL, ids=lambda r: type(r).__name__)
def test_each_result_says_what_it_is(reducer):
    found = fed(type(reducer)(), np.random.default_rng(0).normal(size=(9, 2, 3)), (0, 4, 9))
    labels = {"rank", "unit", "other_unit", "component"}
    for name, array in {**found.data_vars, **found.coords}.items():
        assert name in labels or array.attrs["long_name"], name
        assert name in labels or array.attrs["units"] in ("1", "step"), name
    assert "unit" in found.coords


@pytest.mark.parametrize("reducer", ALL, ids=lambda r: type(r).__name__)
def test_a_unit_without_values_is_nan_and_warns_of_nothing(reducer):
    reducer = type(reducer)()
    x = np.random.default_rng(0).normal(size=(9, 2, 3))
    x[..., 1] = np.nan
    with np.errstate(all="raise"):
        found = fed(reducer, x, (0, 4, 9))
    for name in ("mean", "std", "min", "left", "quantiles", "autocorrelation"):
        if name in found and not isinstance(reducer, Covariance):
            assert np.isnan(found[name].sel(unit=1)).all(), name
            assert np.isfinite(found[name].sel(unit=0)).any(), name


@pytest.mark.parametrize("reducer", ALL, ids=lambda r: type(r).__name__)
def test_a_state_of_plain_arrays_goes_on(reducer, values, tmp_path):
    make, *_ = {type(reducer)}
    whole, begun, resumed = make(), make(), make()
    begun.update(values[:50])
    np.savez(tmp_path / "state.npz", **begun.state())
    with np.load(tmp_path / "state.npz", allow_pickle=False) as stored:
        resumed.restore(dict(stored))
    resumed.update(values[50:], 50)
    whole.update(values[:50])
    whole.update(values[50:], 50)
    if make is Quantiles:
        xr.testing.assert_identical(resumed.result()["count"], whole.result()["count"])
    else:
        xr.testing.assert_identical(resumed.result(), whole.result())
    resumed.restore({})
    with pytest.raises(NothingRecordedError, match="has seen no step yet"):
        resumed.result()


def test_steps_that_are_apart(values):
    """Each fifth step, as a recording with ``every=5`` hands them over."""
    thin = values[3::5]
    whole, top = fed(TopSteps(4, 3), thin, (0, len(thin))), TopSteps(4, 3)
    for a, b in pairwise((0, 4, 5, 20, len(thin))):
        top.update(thin[a:b], 3 + 5 * a, every=5)
    found = top.result()
    assert found.step.values.tolist() == [3 + 5 * step for step in whole.step.values]
    np.testing.assert_array_equal(found.context, whole.context)
    with pytest.raises(JoinError, match="got each 2-th step, but each 5-th so far"):
        top.update(thin, 3 + 5 * len(thin), every=2)


def test_what_cannot_be_fed():
    reducer = Moments()
    reducer.update(np.zeros((4, 2, 3)))
    with pytest.raises(JoinError, match="steps up to 4 were seen, the next begin at 5"):
        reducer.update(np.zeros((4, 2, 3)), 5)
    with pytest.raises(JoinError, match="got 1 rows that go on from 2"):
        reducer.update(np.zeros((4, 1, 3)), 4)
    with pytest.raises(JoinError, match="got 7 units, but 3 so far"):
        reducer.update(np.zeros((4, 2, 7)), 4)
    with pytest.raises(InputError, match=r"shape \(4, 3\), expected \(time, batch, unit\)"):
        reducer.update(np.zeros((4, 3)))
    with pytest.raises(InputTypeError, match="complex128, expected real"):
        reducer.update(np.zeros((4, 2, 3), complex), 4)
    reducer.update(np.zeros((0, 2, 3)), 99)
    reducer.update(np.zeros((5, 1, 3)), 0)
    assert reducer.result()["count"].values.tolist() == [13, 13, 13]


def test_what_cannot_be_merged():
    with pytest.raises(JoinError, match="their options differ"):
        Saturation(0.1, 0.9).merge(Saturation(0.2, 0.9))
    with pytest.raises(JoinError, match="their options differ"):
        Moments().merge(Range())
    with pytest.raises(JoinError, match="expected 'batch' or 'time'"):
        Range().merge(Range(), along="unit")
    seen = Histogram()
    seen.update(np.zeros((2, 1, 1)))
    with pytest.raises(JoinError, match=r"Histogram\(low=-1.0, high=1.0, bins=100\)"):
        Histogram(bins=3).restore(seen.state())


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Histogram(1.0, 1.0), "low=1.0, high=1.0: expected low < high"),
        (lambda: Histogram(0.0, np.inf), "high=inf"),
        (lambda: Histogram(bins=0), "bins=0"),
        (lambda: Autocorrelation(lags=()), "expected steps, each 1 or more"),
        (lambda: Autocorrelation(lags=(0,)), r"lags=\(0,\)"),
        (lambda: TopSteps(count=0), "count=0"),
        (lambda: TopSteps(score="median"), "expected 'max' or 'norm'"),
        (lambda: Quantiles(q=(1.5,)), "expected numbers from 0 to 1"),
        (lambda: Quantiles(k=7), "k=7"),
        (lambda: Covariance(components=-1), "components=-1"),
    ],
)
def test_options_that_cannot_mean_anything(make, said):
    with pytest.raises(SelectionError, match=said):
        make()


def test_reduced_labels_by_the_variables_units(values):
    units = [7, 3, 9, 1, 4]
    h = xr.DataArray(
        values, dims=("time", "batch", "projected_unit"), coords={"projected_unit": units}, name="h"
    )
    moments, top = reduced(h, Moments(), TopSteps(3, 2))
    assert moments["projected_unit"].values.tolist() == units
    assert moments.attrs["variable"] == "h"
    close(moments["mean"], [finite_of(values, u).mean() for u in range(UNITS)])
    assert top.step.values.tolist() == [step for step, *_ in extremes(values, 3, 2)]
    (one,) = reduced(h.isel(batch=2), Range())
    assert one["max"].values.tolist() == [finite_of(values[:, 2], u).max() for u in range(UNITS)]
    with pytest.raises(TraceFormatError, match="expected steps of a state or gate"):
        reduced(h.isel(time=0), Moments())


def test_reduced_reads_rows_and_steps_in_blocks(values, monkeypatch):
    monkeypatch.setattr("everystate.analysis.reducers.run.BLOCK_BYTES", 8 * UNITS * 32)
    read = []
    h = xr.DataArray(values, dims=("time", "batch", "unit"))
    reducer = Moments()
    update = reducer.update
    reducer.update = lambda block, start: (read.append(block.shape), update(block, start))
    (found,) = reduced(h, reducer)
    assert max(steps * rows for steps, rows, _ in read) <= 32
    assert sum(steps * rows for steps, rows, _ in read) == STEPS * ROWS
    close(found["mean"], [finite_of(values, u).mean() for u in range(UNITS)])
