"""`record` on the kernel that shows its gates: the workspace is read right, or not at all."""

import numpy as np
import pytest

from everystate.testing import importorskip

torch = importorskip("torch")

from torch import nn

import everystate as es
import mutations
import torch_reference as ref
from everystate.errors import InputError
from everystate.frameworks.torch import onednn

T, B, D = 53, 2, 3


@pytest.fixture
def runs(monkeypatch):
    """Have layers run on it in many chunks; the list tells how each run went."""
    found, right = [], onednn.run
    monkeypatch.setattr(onednn, "CHUNK_BYTES", 1)
    monkeypatch.setattr(onednn, "run", lambda *a, **k: found.append(right(*a, **k)) or found[-1])
    return found


def lstm(units=5, layers=2, **options):
    return ref.randomise(nn.LSTM(D, units, layers, **options), scale=1.5 / units**0.5)


def series(steps=T, batch=B):
    return ref.random(steps, batch, D, seed=2, dtype=torch.float32)


def ran_there(runs, count=1):
    if not torch.backends.mkldnn.is_available():
        pytest.skip("this PyTorch has no oneDNN")
    return len(runs) == count and all(run is not None for run in runs)


@pytest.mark.parametrize("units", [1, 4, 7, 16, 64, 100, 128])
@pytest.mark.parametrize(("steps", "batch"), [(8, 1), (9, 3), (50, 5)])
def test_gates_are_right_at_every_padding_of_rows(runs, units, steps, batch):
    module, x = lstm(units), series(steps, batch)
    trace = es.record(module, x)
    for path, expected in ref.stack(module, ref.numpy(x)).items():
        ref.assert_leaf(trace[f"lstm/{path}"], expected, 1e-4)
        assert trace[f"lstm/{path}"].i.attrs["origin"] == "observed"
    assert ran_there(runs)


def test_the_comparison_sees_wrong_gates(runs):
    module, x = lstm(layers=1), series(9)
    leaf = es.record(module, x)["lstm"]
    for fault, wrong in mutations.of_gates(ref.gates(module, "_l0")):
        expected = ref.stack(module, ref.numpy(x), wrong={"": wrong})[""]
        with mutations.must_be_noticed(fault):
            ref.assert_leaf(leaf, expected, 1e-4)
    assert ran_there(runs)


@pytest.mark.parametrize(
    "select", [{}, {"every": 7}, {"window": (9, 40), "units": [2]}, {"variables": ("c", "inputs")}]
)
@pytest.mark.parametrize("first", [False, True])
def test_no_seam_between_chunks(runs, select, first):
    module, x = lstm(batch_first=first), series()
    state = tuple(s.float() for s in ref.initial(module, B))
    expected = ref.stack(module, ref.numpy(x), [ref.numpy(s) for s in state])
    given = x.transpose(0, 1) if first else x
    trace = es.record(module, given, state, select=es.Select(**select))
    for path, (run, start) in expected.items():
        leaf = trace[f"lstm/{path}"]
        wanted = {**run.values, "inputs": ref.numpy(x)}
        for name, a in ref.values(leaf).items():
            if name == "inputs" and path != "layer_0":
                continue
            units = leaf.unit.values if name != "inputs" else slice(None)
            b = wanted[name][leaf.time.values][..., units]
            assert np.max(np.abs(a - b) / (1 + np.abs(b))) <= 1e-4, f"{path}: {name}"
        if not select:
            assert np.allclose(leaf.initial_c, start["c"])
    assert ran_there(runs)


def test_without_a_batch(runs):
    module, x = lstm(), series(batch=1)
    state = tuple(s.float() for s in ref.initial(module, 1))
    trace = es.record(module, x[:, 0], tuple(s[:, 0] for s in state))
    for path, leaf in ref.stack(module, ref.numpy(x), [ref.numpy(s) for s in state]).items():
        ref.assert_leaf(trace[f"lstm/{path}"], leaf, 1e-4)
    assert ran_there(runs)


def test_the_model_sees_results_of_the_same_kind_within(runs):
    """Output and states go on through the model: shapes, layout, and values to rounding."""
    seen = []

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = lstm(batch_first=True)

        def forward(self, x):
            seen.append(self.lstm(input=x))

    model, x = Model(), series().transpose(0, 1)
    es.record(model, x)
    with torch.no_grad():
        model(x)
    (ours, (h, c)), (theirs, (h_n, c_n)) = seen
    for a, b in ((ours, theirs), (h, h_n), (c, c_n)):
        assert a.shape == b.shape
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    assert ran_there(runs)


@pytest.mark.parametrize(
    "options", [{"bidirectional": True}, {"bias": False}, {"proj_size": 2}, {"dropout": 0.5}]
)
@pytest.mark.filterwarnings("ignore:LSTM with projections")
def test_what_it_cannot_run_is_replayed(runs, options):
    module, x = lstm(**options), series(10)
    if "dropout" not in options:
        expected = ref.stack(module, ref.numpy(x))
        trace = es.record(module, x)
        for path, leaf in expected.items():
            ref.assert_leaf(trace[f"lstm/{path}"], leaf, 1e-4)
    else:
        es.record(module, x)
    es.record(lstm(), ref.packed(x[:6, [0, 1, 0]], (4, 6, 1)))
    es.record(lstm().double(), x.double())
    with torch.autocast("cpu"):
        es.record(lstm(), x)
    assert runs == []


def test_a_workspace_that_reads_otherwise_is_replayed(runs, monkeypatch):
    """As another version of oneDNN might lay it out: the columns turned round."""
    right = onednn._gates
    monkeypatch.setattr(onednn, "_gates", lambda *a: right(*a)[::-1])
    module, x = lstm(), series()
    trace = es.record(module, x)
    for path, leaf in ref.stack(module, ref.numpy(x)).items():
        ref.assert_leaf(trace[f"lstm/{path}"], leaf, 1e-4)
        assert trace[f"lstm/{path}"].i.attrs["origin"] == "replayed"
    assert runs == [None] or not torch.backends.mkldnn.is_available()


def test_a_state_edited_in_place_is_not_the_one_that_the_call_ended_with(runs):
    class Reset(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = lstm()

        def forward(self, x):
            _, state = self.lstm(x)
            for s in state:
                s.zero_()
            return self.lstm(x.flip(0), state)

    model, x = Reset(), series()
    trace = es.record(model, x)
    expected = [ref.stack(model.lstm, ref.numpy(a)) for a in (x, x.flip(0))]
    for k, leaves in enumerate(expected):
        for path, leaf in leaves.items():
            ref.assert_leaf(trace[f"lstm/{path}/call_{k}"], leaf, 1e-4)
    assert ran_there(runs, 2)


STATES = {
    "batch": (torch.zeros(2, 3, 5), torch.zeros(2, 3, 5)),
    "layers": (torch.zeros(1, 2, 5), torch.zeros(1, 2, 5)),
    "units": (torch.zeros(2, 2, 4), torch.zeros(2, 2, 5)),
    "one": torch.zeros(2, 2, 5),
    "rank": (torch.zeros(2, 5), torch.zeros(2, 5)),
    "None": (torch.zeros(2, 2, 5), None),
}


@pytest.mark.parametrize("what", STATES)
@pytest.mark.parametrize("run", [es.record, es.unroll])
def test_an_initial_state_that_does_not_fit(runs, run, what):
    with pytest.raises(
        InputError, match=r"got an initial state of h_0 .* expected h_0 \(2, 2, 5\)"
    ):
        run(lstm(), series(), STATES[what])
    with pytest.raises((RuntimeError, IndexError, AttributeError)):
        lstm()(series(), STATES[what])
