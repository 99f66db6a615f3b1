"""bfloat16, float16 and autocast: recorded, verified as closely as rounding allows, never wrong."""

import numpy as np
import pytest

from everystate.testing import importorskip

torch = importorskip("torch")

from torch import nn

import everystate as es
import torch_reference as ref
from everystate.errors import ReplayMismatchError
from everystate.frameworks.torch import observations
from everystate.recording.rounding import LIMIT
from everystate.recording.verify import TOLERANCE

D = 8
PRECISIONS = ("bfloat16", "float16", "autocast")
KINDS = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}


def module(kind, precision, units, scale=1.0, layers=1, **options):
    """Weights as at the start, `scale` times as large; an LSTM's forget gates mostly open."""
    torch.manual_seed(units)
    made = KINDS[kind](D, units, layers, **options)
    with torch.no_grad():
        for p in made.parameters():
            p.mul_(scale)
        if kind == "lstm":
            made.bias_ih_l0[units : 2 * units] += 2.0
    return made if precision == "autocast" else made.to(getattr(torch, precision))


def series(precision, steps, batch=2):
    dtype = torch.float32 if precision == "autocast" else getattr(torch, precision)
    return ref.random(steps, batch, D, seed=1, dtype=dtype)


def recorded(made, x, precision):
    """Record without gradients: on the kernels that a user's inference runs on."""
    with (
        torch.no_grad(),
        es.recording(made) as recorder,
        torch.autocast("cpu", enabled=precision == "autocast"),
    ):
        made(x)
    return recorder.trace


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("kind", ["lstm", "gru"])
@pytest.mark.parametrize(
    ("units", "scale", "steps"), [(16, 1.0, 40), (5, 4.0, 3), (256, 1.0, 20), (128, 4.0, 1000)]
)
def test_short_and_long_runs_small_and_large_weights(kind, precision, units, scale, steps):
    made = module(kind, precision, units, scale)
    leaf = recorded(made, series(precision, steps), precision)[kind]
    name = "bfloat16" if precision == "autocast" else precision
    assert leaf.attrs["precision"] == name
    assert leaf.attrs["error_over_rounding"] <= 0.8 * LIMIT
    assert 0.0 < leaf.attrs["max_error_h"] <= TOLERANCE[name]
    assert leaf.h.dtype == np.float32


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("units", [16, 256])
@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_a_wrong_order_of_gates_is_refused(kind, units, precision, monkeypatch):
    """Also of a fresh layer, where all gates are near 1/2 and exchanging two changes h by 0.02."""
    right = observations.weights_of

    def swapped(made, suffix=""):
        w = right(made, suffix)
        rows = torch.arange(w.W.shape[0]).reshape(-1, units)
        rows = torch.cat([rows[1], rows[0], *rows[2:]])
        b_R = None if w.b_R is None else w.b_R[rows]
        return type(w)(W=w.W[rows], R=w.R[rows], b=w.b[rows], b_R=b_R)

    made = module(kind, precision, units)
    monkeypatch.setattr(observations, "weights_of", swapped)
    order = {"lstm": "f i g o", "gru": "z r n"}[kind]
    with pytest.raises(ReplayMismatchError, match=f"the gates stored in the order {order}"):
        recorded(made, series(precision, 40), precision)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_c_is_as_near_to_the_kernels_as_it_says(precision):
    """The kernel's own c at some steps, from runs that end there."""
    made, x = module("lstm", precision, 64, 2.0), series(precision, 400)
    leaf = recorded(made, x, precision)["lstm"]
    for steps in (1, 7, 100, 399):
        with torch.no_grad():
            h, (_, c) = made(x[:steps])
        assert np.array_equal(ref.values(leaf)["h"][:steps], h.float().numpy())
        theirs = ref.numpy(c[0])
        error = np.abs(leaf.c.values[:, steps - 1] - theirs) / (1 + np.abs(theirs))
        assert error.max() <= {"bfloat16": 0.05, "float16": 0.01}[precision]
        mean = np.sqrt(np.mean(error**2))
        assert mean <= {"bfloat16": 6e-3, "float16": 8e-4}[precision]


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("options", [{"bidirectional": True}, {"dropout": 0.3}], ids=str)
@pytest.mark.filterwarnings("ignore:LSTM with projections")
def test_stacks_and_directions(kind, precision, options):
    made = module(kind, precision, 12, layers=2, **options)
    trace = recorded(made, series(precision, 30), precision)
    torch.manual_seed(2)
    with torch.no_grad(), torch.autocast("cpu", enabled=precision == "autocast"):
        outputs, _ = made(series(precision, 30)[:, :1])
    assert len(trace.leaves) == 2 * (1 + made.bidirectional)
    for leaf in trace.leaves:
        assert np.isfinite(leaf.h.values).all()
        assert kind == "rnn" or leaf.attrs["error_over_rounding"] <= 0.8 * LIMIT
    assert outputs.shape[0] == trace.leaves[0].sizes["time"]


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_steps_of_a_loop(kind, precision):
    """Cells, and stacks called once per step; autocast may end before they are handed over."""
    cell = {"lstm": nn.LSTMCell, "gru": nn.GRUCell}[kind](D, 24)
    cell = cell if precision == "autocast" else cell.to(getattr(torch, precision))
    model = nn.ModuleDict({"cell": cell, "stack": module(kind, precision, 24, layers=2)})
    with torch.no_grad(), es.recording(model) as recorder:
        walk(model, precision)
    assert len(recorder.trace.leaves) == 3
    for leaf in recorder.trace.leaves:
        assert leaf.attrs["precision"] == ("bfloat16" if precision == "autocast" else precision)
        assert leaf.attrs["error_over_rounding"] <= 0.8 * LIMIT
        assert leaf.sizes["time"] == 60


def walk(model, precision):
    with torch.autocast("cpu", enabled=precision == "autocast"):
        states = dict.fromkeys(model)
        for x_t in series(precision, 60):
            states["cell"] = model["cell"](x_t, states["cell"])
            _, states["stack"] = model["stack"](x_t[None], states["stack"])


def test_another_kind_of_autocast():
    made = module("gru", "autocast", 16)
    with torch.no_grad(), es.recording(made) as recorder, torch.autocast("cpu", torch.float16):
        made(series("autocast", 40))
    assert recorder.trace["gru"].attrs["precision"] == "float16"
    assert recorder.trace["gru"].attrs["error_over_rounding"] <= 0.8 * LIMIT
