"""Bad input, odd input, and faults of the replay: what the messages say."""

import re

import numpy as np
import pytest

from everystate.testing import importorskip

torch = importorskip("torch")

from torch import nn

import everystate as es
import torch_reference as ref
from everystate.errors import (
    EverystateWarning,
    InputError,
    InputTypeError,
    NothingRecordedError,
    ReplayMismatchError,
    UnknownLayerError,
    UnsupportedModelError,
)
from everystate.frameworks.torch import observations

T, B, D, H = 7, 3, 4, 5


def lstm(**options):
    return ref.randomise(nn.LSTM(D, H, **options), seed=1)


def x(*shape, dtype=torch.float32):
    return ref.random(*(shape or (T, B, D)), seed=2, dtype=dtype)


def run(how, model, given):
    if how == "record":
        return es.record(model, given)
    with es.recording(model) as recorder:
        model(given)
    return recorder.trace


MODELS = {
    "lstm": lambda: nn.Sequential(lstm()),
    "first": lambda: nn.Sequential(lstm(batch_first=True)),
    "cell": lambda: nn.Sequential(nn.GRUCell(D, H)),
    "meta": lambda: nn.Sequential(nn.LSTM(D, H, device="meta")),
}
BAD = [
    ("lstm", lambda: x(D), InputError, r"0: got an input of shape \(4,\), expected \(time, batch"),
    ("first", lambda: x(1, 2, 3, D), InputError, r"\(1, 2, 3, 4\), expected \(batch, time, feat"),
    ("cell", lambda: x(), InputError, r"shape \(7, 3, 4\), expected \(batch, features\)"),
    ("lstm", lambda: x(T, B, 9), InputError, r"got 9 features \(shape \(7, 3, 9\)\), expected 4"),
    ("cell", lambda: x(B, 9), InputError, "got 9 features"),
    ("lstm", lambda: x(0, B, D), InputError, r"\(0, 3, 4\) is empty; there is nothing to record"),
    ("first", lambda: x(T, 0, D), InputError, "is empty"),
    ("lstm", lambda: x(dtype=torch.float64), InputTypeError, r"is float64, .* Try x\.to\(torch\.f"),
    ("lstm", lambda: x().long(), InputTypeError, "the input is int64, the weights are float32"),
    ("lstm", lambda: x().to("meta"), InputTypeError, r"input is on meta, .* Try x\.to\('cpu'\)"),
    ("meta", lambda: x(), InputTypeError, r"'meta', which holds no numbers.*load_state_dict"),
    (
        "lstm",
        lambda: [x()],
        InputTypeError,
        r"got a list, .* or NumPy array\. Try torch\.as_tensor",
    ),
    ("lstm", lambda: None, InputTypeError, "got no input, expected a tensor"),
    ("lstm", lambda: "text", InputTypeError, "got a str, expected a tensor"),
    ("lstm", lambda: np.array(["a"]), InputTypeError, r"dtype <U1, expected real numbers"),
    ("lstm", lambda: np.ones((T, B, D), int), InputTypeError, "the input is int64"),
    ("lstm", lambda: np.ones((T, B, 9)), InputError, "got 9 features"),
]


@pytest.mark.parametrize("how", ["record", "recording"])
@pytest.mark.parametrize(("model", "given", "error", "message"), BAD)
def test_bad_input(how, model, given, error, message):
    model, given = MODELS[model](), given()
    hooks = [len(part._forward_hooks) for part in model.modules()]
    how = "record" if isinstance(given, np.ndarray) else how
    with pytest.raises(error, match=message) as caught:
        run(how, model, given)
    assert isinstance(caught.value, (ValueError, TypeError))
    assert [len(part._forward_hooks) for part in model.modules()] == hooks


def test_packed_input_with_wrong_features():
    with pytest.raises(InputError, match="got 3 features"):
        es.record(lstm(), ref.packed(x(T, 2, 3), (4, 2)))


def test_what_pytorch_refuses_stays_pytorchs():
    with pytest.raises(RuntimeError, match="batch"):
        es.record(nn.GRUCell(D, H), x(B, D), torch.zeros(2, H))


@pytest.mark.parametrize("pattern", ["decoder", "lstm.layer_3", ""])
def test_an_unknown_layer_lists_those_that_there_are(pattern):
    said = rf"'{re.escape(pattern)}'; the model has: lstm/layer_0, lstm/layer_1\."
    with pytest.raises(UnknownLayerError, match=said):
        es.record(lstm(num_layers=2), x(), select=es.Select(layers=pattern))


@pytest.mark.parametrize("model", [nn.Linear(2, 3), nn.Identity(), nn.MultiheadAttention(4, 2)])
def test_models_without_recurrent_layers(model):
    with pytest.raises(UnsupportedModelError, match=type(model).__name__):
        es.record(model, x())


ODD = {"nan": float("nan"), "inf": float("inf"), "-inf": -float("inf")}


@pytest.mark.parametrize("how", ["record", "recording"])
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("value", ODD)
def test_nan_and_infinity_are_recorded_as_they_are(value, kind, how):
    """With a warning; other rows, and the steps before, stay verified and right."""
    model, given = ref.randomise(kind(D, H, 2, bidirectional=kind is nn.GRU)), x()
    clean = ref.stack(model, ref.numpy(given))
    given[3, 1, 2] = ODD[value]
    with torch.no_grad():
        outputs, _ = model(given)
    with pytest.warns(EverystateWarning, match="NaN or infinite values in its input"):
        trace = run(how, model, given)
    root = kind.__name__.lower()
    last = [leaf.h.values for leaf in trace.leaves if "layer_1" in leaf.path]
    ours = np.concatenate(last, -1).swapaxes(0, 1)
    assert np.array_equal(np.isnan(ours), outputs.isnan().numpy())
    for path, (truth, _) in clean.items():
        leaf = trace[f"{root}/{path}"]
        for name, a in ref.values(leaf).items():
            b = truth.values[name]
            assert np.max(np.abs(a - b)[:, [0, 2]] / (1 + np.abs(b[:, [0, 2]]))) <= 1e-4
            if kind is not nn.GRU:
                assert np.allclose(a[:3], b[:3], atol=1e-4)


def test_nan_in_the_initial_state_and_in_a_cell_loop():
    model, state = nn.Sequential(nn.LSTMCell(D, H)), (x(B, H), x(B, H))
    state[1][2, 0] = torch.nan
    with torch.no_grad(), es.recording(model) as recorder:
        for x_t in x():
            state = model[0](x_t, state)
    with pytest.warns(EverystateWarning, match="NaN or infinite values"):
        leaf = recorder.trace["0"]
    assert np.isnan(leaf.c.values[2]).any()
    assert not np.isnan(leaf.c.values[:2]).any()


def test_states_that_overflow():
    """Large weights drive an unbounded state out of range: recorded, with a warning."""
    model = nn.RNN(D, H, nonlinearity="relu")
    with torch.no_grad():
        for p in model.parameters():
            p.fill_(1e9)
    with pytest.warns(EverystateWarning, match="NaN or infinite values in h"):
        trace = es.record(model, x().abs())
    assert np.isinf(trace["rnn"].h.values).any()


def fault(right, change):
    """Return `weights_of` with a fault planted."""

    def wrong(module, suffix=""):
        w = right(module, suffix)
        arrays = dict(w.items())
        change(arrays, w.W.shape[0] // (3 if isinstance(module, (nn.GRU, nn.GRUCell)) else 4))
        return type(w)(**arrays)

    return wrong


def exchange(a, b):
    def change(arrays, units):
        for name in arrays:
            blocks = list(arrays[name].reshape(-1, units, *arrays[name].shape[1:]))
            blocks[a], blocks[b] = blocks[b], blocks[a]
            arrays[name] = torch.cat(blocks)

    return change


FAULTS = {
    "lstm i f": (nn.LSTM, exchange(0, 1), "the gates stored in the order f i g o"),
    "lstm g o": (nn.LSTM, exchange(2, 3), "the gates stored in the order i f o g"),
    "gru r z": (nn.GRU, exchange(0, 1), "the gates stored in the order z r n"),
    "lstm bias": (nn.LSTM, lambda w, _: w.pop("b"), "None of the usual suspects"),
    "gru bias": (nn.GRU, lambda w, _: w.pop("b_R"), "None of the usual suspects"),
    "gru bias side": (
        nn.GRU,
        lambda w, _: w.update(b=w["b"] + w.pop("b_R")),
        "None of the usual suspects",
    ),
    "one weight": (nn.LSTM, lambda w, _: w.update(R=w["R"] + one(w["R"])), "None of the usual"),
}


def one(a):
    b = torch.zeros_like(a)
    b[3, 2] = 0.05
    return b


def in_steps(layer, given):
    state = None
    for x_t in given:
        if isinstance(layer, nn.RNNBase):
            _, state = layer(x_t[None], state)
        else:
            state = layer(x_t, state)


WHERE = {
    "stack": ("layer", lambda layer: layer(x())),
    "inner layer": ("layer/layer_0", lambda layer: layer(x())),
    "packed": ("layer", lambda layer: layer(ref.packed(x(6, 3, D), (4, 6, 1)))),
    "steps": ("layer", lambda layer: in_steps(layer, x())),
    "cell": ("layer", lambda layer: in_steps(layer, x())),
}


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("what", FAULTS)
def test_a_wrong_reading_of_the_weights_is_never_stored(what, where, monkeypatch):
    kind, change, cause = FAULTS[what]
    path, call = WHERE[where]
    monkeypatch.setattr(observations, "weights_of", fault(observations.weights_of, change))
    if where == "cell":
        layer = {nn.LSTM: nn.LSTMCell, nn.GRU: nn.GRUCell}[kind](D, H)
    else:
        layer = kind(D, H, 2 if where == "inner layer" else 1)
    model = nn.ModuleDict({"layer": ref.randomise(layer, seed=4)})
    message = rf"^{path}: the replayed h differs from the framework's, first at step \d.*{cause}"
    recording = es.recording(model)
    recorder = recording.__enter__()
    with pytest.raises(ReplayMismatchError, match=message):
        finish(recording, call, layer)
    with pytest.raises(NothingRecordedError):
        _ = recorder.trace


def finish(recording, call, layer):
    """Call the layer within the block, then leave it as a `with` statement does."""
    try:
        call(layer)
    except BaseException as error:
        recording.__exit__(type(error), error, error.__traceback__)
        raise
    recording.__exit__(None, None, None)


def nudged(y):
    y = y.clone()
    y[0, 1, 4] += 0.01
    return y


@pytest.mark.parametrize(
    ("what", "tamper"),
    [
        ("a step shifted", lambda y, h, c: (y.roll(1, 0), (h, c))),
        ("the last c of another row", lambda y, h, c: (y, (h, c.roll(1, 1)))),
        ("the last h of another row", lambda y, h, c: (y, (h.roll(1, 1), c))),
        (
            "one value",
            lambda y, h, c: (y + 1e-2 * (torch.arange(y.numel()).view(y.shape) == 9), (h, c)),
        ),
    ],
)
def test_results_that_the_equations_do_not_give_are_refused(what, tamper):
    """As another kernel, or a forward changed by somebody, might give them."""

    class Tampered(nn.LSTM):
        def forward(self, *args):
            y, (h, c) = super().forward(*args)
            return tamper(y, h, c)

    model = ref.randomise(Tampered(D, H), seed=1)
    with pytest.raises(
        ReplayMismatchError, match=r"^tampered: the replayed [hc] differs"
    ) as caught:
        es.record(model, x())
    assert isinstance(caught.value, RuntimeError)
    if "one value" in what:
        assert "first at step 0 (row 1, unit 4): scaled error" in str(caught.value)


def test_dropout_is_named_as_the_probable_cause(monkeypatch):
    """If the masks cannot be drawn again, as on a device with random numbers of its own."""
    monkeypatch.setattr(torch, "set_rng_state", lambda state: None)
    model = lstm(num_layers=2, dropout=0.5)
    with pytest.raises(ReplayMismatchError, match=r"dropout was active between the layers"):
        es.record(model, x())
    assert model.eval()
    es.record(model, x())
