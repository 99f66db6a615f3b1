"""`linear_scan` against a loop over Python floats, in every memory layout and autodiff mode."""

import numpy as np
import pytest

import oracles
from everystate.cells.scan import linear_scan
from everystate.testing import importorskip

SHAPE = (6, 3, 4)


def data(shape=SHAPE, seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform(0.2, 1.0, shape), rng.normal(0, 1, shape), rng.normal(0, 1, shape[1:])


def expected(f, u, c, bound=None):
    """The scan, one float at a time."""
    f, u, c = (np.asarray(a, np.float64) for a in (f, u, c))
    states = np.empty(f.shape)
    for place in np.ndindex(f.shape[1:]):
        value = float(c[place])
        for t in range(f.shape[0]):
            value = float(f[t][place]) * value + float(u[t][place])
            value = value if bound is None else max(-bound, min(bound, value))
            states[(t, *place)] = value
    return states


@pytest.mark.parametrize("bound", [None, 0.5])
@pytest.mark.parametrize("shape", [SHAPE, (1, 3, 4), (5, 1), (5,), (5, 2, 3, 4)])
def test_equals_the_loop_over_floats(library, shape, bound):
    f, u, c = data(shape)
    ours = linear_scan(*(library.asarray(a) for a in (f, u, c)), bound)
    oracles.assert_close({"c": ours}, {"c": expected(f, u, c, bound)}, library.tolerance)


def test_the_comparison_notices_faults():
    f, u, c = data()
    ours = linear_scan(f, u, c, 0.5)
    for wrong in (expected(f, u, c), expected(f, u, -c, 0.5), expected(f[::-1], u, c, 0.5)):
        with pytest.raises(AssertionError):
            oracles.assert_close({"c": ours}, {"c": wrong}, 1e-3)


LAYOUTS = {
    "fortran": np.asfortranarray,
    "every other unit": lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
    "batch-major": lambda a: np.ascontiguousarray(np.moveaxis(a, 0, -1)).transpose(2, 0, 1),
    "backwards": lambda a: np.ascontiguousarray(a[::-1])[::-1],
    "read-only": lambda a: np.broadcast_to(a, a.shape),
}
OF_NUMPY_ONLY = ("backwards", "read-only")


@pytest.mark.parametrize(
    ("library_name", "layout"),
    [("numpy", layout) for layout in LAYOUTS]
    + [("torch", layout) for layout in LAYOUTS if layout not in OF_NUMPY_ONLY],
)
def test_memory_layout_does_not_matter_and_nothing_is_overwritten(library_name, layout):
    f, u, c = data()
    odd = [LAYOUTS[layout](f), LAYOUTS[layout](u), c]
    if library_name == "torch":
        odd = [importorskip("torch").from_numpy(a) for a in odd]
    ours = linear_scan(*odd)
    np.testing.assert_allclose(ours, expected(f, u, c), rtol=1e-13)
    for after, before in zip(odd, (f, u, c), strict=True):
        np.testing.assert_array_equal(after, before)


@pytest.mark.parametrize("bound", [None, 0.5])
def test_the_states_may_take_the_place_of_what_is_added(bound):
    f, u, c = data()
    wanted = expected(f, u, c, bound)
    ours = linear_scan(f, u, c, bound, out=u)
    assert ours is u
    np.testing.assert_allclose(u, wanted, rtol=1e-13)


def test_the_result_is_no_view_of_an_argument():
    f, u, c = data()
    ours = linear_scan(f, u, c)
    assert not any(np.shares_memory(ours, a) for a in (f, u, c))


@pytest.mark.parametrize(
    "dtypes", [("f4", "f8", "f8"), ("f8", "f4", "f4"), ("f4", "f4", "f8"), ("f2", "f4", "f4")]
)
@pytest.mark.parametrize("library_name", ["numpy", "torch"])
def test_mixed_precision_gives_the_widest(dtypes, library_name):
    arrays = [a.astype(dtype) for a, dtype in zip(data(), dtypes, strict=True)]
    loop = expected(*arrays)
    if library_name == "torch":
        arrays = [importorskip("torch").from_numpy(a) for a in arrays]
    ours = np.asarray(linear_scan(*arrays))
    assert ours.dtype == max(dtypes)
    np.testing.assert_allclose(ours, loop, rtol=1e-13 if max(dtypes) == "f8" else 1e-5)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float16", 5e-3), ("bfloat16", 4e-2)])
def test_half_precision_in_torch(dtype, tolerance):
    torch = importorskip("torch")
    f, u, c = (torch.from_numpy(a).to(getattr(torch, dtype)) for a in data())
    ours = linear_scan(f, u, c)
    assert ours.dtype == f.dtype
    loop = expected(*(a.double() for a in (f, u, c)))
    oracles.assert_close({"c": ours.double()}, {"c": loop}, tolerance)


@pytest.mark.parametrize("which", [0, 1, 2])
def test_gradient_in_torch_where_one_argument_has_it(which):
    torch = importorskip("torch")
    arrays = [torch.from_numpy(a) for a in data((4, 2))]
    arrays[which].requires_grad_()
    assert torch.autograd.gradcheck(lambda *a: linear_scan(*a), arrays, check_forward_ad=True)


def test_transforms_of_torch():
    torch = importorskip("torch")
    f, u, c = (torch.from_numpy(a) for a in data((4, 2)))

    def total(f):
        return linear_scan(f, u, c).sum()

    slope = torch.func.grad(total)(f)
    assert slope.abs().min() > 0
    value, tangent = torch.func.jvp(total, (f,), (torch.ones_like(f),))
    assert tangent == pytest.approx(float(slope.sum()))
    both = torch.func.vmap(total)(torch.stack([f, f / 2]))
    assert both.tolist() == pytest.approx([float(value), float(total(f / 2))])


def test_under_jit_of_jax():
    jax = importorskip("jax")
    f, u, c = data()
    ours = jax.jit(linear_scan)(*(jax.numpy.asarray(a) for a in (f, u, c)))
    oracles.assert_close({"c": ours}, {"c": expected(f, u, c)}, 5e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_and_infinity_go_through_and_stay_in_their_row(bad):
    f, u, c = data()
    u[2, 1, 0] = bad
    ours = linear_scan(f, u, c)
    wrong = ~np.isfinite(ours)
    assert wrong[2:, 1, 0].all()
    assert wrong.sum() == 4
