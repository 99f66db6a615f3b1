"""Every state and gate of the NumPy path against the oracle, and its outputs against PyTorch."""

import numpy as np
import pytest

import everystate as es
import mutations
import oracles
from everystate.frameworks.numpy import load
from everystate.testing import importorskip

T, B, D = 7, 3, 4
LENGTHS = [7, 2, 5]
SHAPES = [
    {"layers": 1, "ways": 1},
    {"layers": 3, "ways": 1},
    {"layers": 1, "ways": 2},
    {"layers": 2, "ways": 2},
]


def leaves(trace, name):
    return {node.path[1:].removeprefix(name).strip("/"): node for node in trace.leaves}


def time_major(leaf, name):
    return np.swapaxes(leaf[name].values, 0, 1)


def assert_trace(trace, name, expected, state, tolerance=1e-10):
    """Compare every leaf with the oracle, its initial states with what was given."""
    found = leaves(trace, name)
    assert set(found) == set(expected)
    for k, (path, one) in enumerate(expected.items()):
        leaf = found[path]
        ours = {variable: time_major(leaf, variable) for variable in one.values}
        oracles.assert_close(ours, one.values, tolerance)
        for variable, initial in zip("hc", state, strict=False):
            np.testing.assert_allclose(leaf[f"initial_{variable}"], initial[k], rtol=1e-7)


@pytest.mark.parametrize("family", ["lstm", "gru", "rnn"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_variable_of_every_layer_equals_the_oracle(model, write, rng, family, shape):
    m = model(family, **shape)
    x, state = rng.normal(size=(T, B, D)), m.state(rng)
    given = state if family == "lstm" else state[0]
    trace = es.record(write(m.tensors), x.swapaxes(0, 1), given)
    expected = m.expected(x, state)
    assert_trace(trace, family, expected, state)
    assert {leaf.attrs["cell"] for leaf in trace.leaves} == {
        {"lstm": "LSTM", "gru": "GRU", "rnn": "SimpleRNN"}[family]
    }


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_projected_lstm_equals_the_oracle(model, write, rng, shape):
    m = model("lstm", projected=True, **shape)
    x, state = rng.normal(size=(T, B, D)), m.state(rng)
    trace = es.record(write(m.tensors, "a.b."), x.swapaxes(0, 1), state)
    assert_trace(trace, "a/b", m.expected(x, state), state)
    assert trace.leaves[0].h.dims == ("batch", "time", "projected_unit")


@pytest.mark.parametrize("family", ["lstm", "gru", "rnn"])
@pytest.mark.parametrize("ways", [1, 2])
def test_rows_of_several_lengths_equal_the_oracle(model, write, rng, family, ways):
    m = model(family, layers=2, ways=ways)
    x, state = rng.normal(size=(T, B, D)), m.state(rng)
    past = np.arange(T)[:, None] >= LENGTHS
    x[past] = np.nan  # padding must not reach a state
    stack = load(write(m.tensors))[family]
    with es.recording(stack) as rec:
        outputs, final = stack(x.swapaxes(0, 1), state if family == "lstm" else state[0], LENGTHS)
    expected = m.expected(x, state, lengths=LENGTHS)
    assert_trace(rec.trace, family, expected, state)
    assert rec.trace.leaves[0].length.values.tolist() == LENGTHS
    finals = final if family == "lstm" else (final,)
    for name, ours in zip("hc", finals, strict=False):
        np.testing.assert_allclose(ours, [one.final[name] for one in expected.values()], atol=1e-10)
    last = list(expected.values())[-ways:]
    theirs = np.nan_to_num(np.concatenate([one.values["h"] for one in last], axis=-1))
    np.testing.assert_allclose(outputs.swapaxes(0, 1), theirs, atol=1e-10)


@pytest.mark.parametrize("family", ["lstm", "gru", "rnn"])
def test_the_comparison_notices_faults(model, write, rng, family):
    m = model(family)
    x, state = rng.normal(size=(T, B, D)), m.state(rng)
    trace = es.record(write(m.tensors), x.swapaxes(0, 1), state if family == "lstm" else state[0])
    for fault, wrong in mutations.of_gates(m.gates(0, False)):
        with mutations.must_be_noticed(fault):
            assert_trace(trace, family, m.expected(x, state, gates=wrong), state)
    [one] = m.expected(x, state).values()
    for fault, values in mutations.of_values(one.values):
        with mutations.must_be_noticed(fault):
            assert_trace(trace, family, {"": oracles.Unrolled(values, one.final)}, state)


def test_float32_weights_are_computed_in_float32(model, write, rng):
    m = model("lstm", layers=2, ways=2)
    x, state = rng.normal(size=(T, B, D)), m.state(rng)
    trace = es.record(write(m.tensors, dtype="float32"), x.swapaxes(0, 1), state)
    assert_trace(trace, "lstm", m.expected(x, state), state, tolerance=1e-4)
    assert {a.dtype.name for leaf in trace.leaves for a in leaf.data_vars.values()} == {"float32"}
    assert {leaf.attrs["precision"] for leaf in trace.leaves} == {"float32"}


def test_relu_is_taken_from_the_argument_or_the_metadata(model, write, rng):
    m = model("rnn")
    m = m.with_(tensors={name: 0.3 * a for name, a in m.tensors.items()})
    x, state = rng.normal(size=(T, B, D)), m.state(rng)
    expected = m.expected(x, state, activation="relu")
    path = write(m.tensors)
    by_argument = es.record(load(path, nonlinearity="relu")["rnn"], x.swapaxes(0, 1), state[0])
    assert_trace(by_argument, "rnn", expected, state)
    for key in ("nonlinearity", "rnn.nonlinearity"):
        by_metadata = es.record(
            write(m.tensors, metadata={key: "relu"}), x.swapaxes(0, 1), state[0]
        )
        assert_trace(by_metadata, "rnn", expected, state)
    with mutations.must_be_noticed("tanh in place of relu"):
        assert_trace(
            es.record(write(m.tensors), x.swapaxes(0, 1), state[0]), "rnn", expected, state
        )


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("ways", [1, 2])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("kind", ["LSTM", "LSTM projected", "GRU", "RNN tanh", "RNN relu"])
def test_outputs_equal_pytorch(write, rng, kind, layers, ways, bias, dtype):
    torch = importorskip("torch")
    name, _, variant = kind.partition(" ")
    options = {"num_layers": layers, "bidirectional": ways == 2, "bias": bias, "batch_first": True}
    if variant:
        options |= {"proj_size": 2} if variant == "projected" else {"nonlinearity": variant}
    torch.manual_seed(0)
    layer = getattr(torch.nn, name)(D, 5, **options, dtype=getattr(torch, dtype))
    x = rng.normal(size=(B, T, D)).astype(dtype)
    sizes = (2 if variant == "projected" else 5, 5) if name == "LSTM" else (5,)
    state = tuple(rng.normal(size=(layers * ways, B, n)).astype(dtype) for n in sizes)
    state = state if len(sizes) > 1 else state[0]
    with torch.no_grad():
        hx = torch.utils._pytree.tree_map(torch.from_numpy, state)
        theirs, their_final = layer(torch.from_numpy(x), hx)
    path = write({k: v.numpy() for k, v in layer.state_dict().items()}, "deep.er.")
    nonlinearity = variant if name == "RNN" else None
    outputs, final = load(path, nonlinearity=nonlinearity)["deep.er"](x, state)
    tolerance = {"float64": 1e-10, "float32": 1e-4}[dtype]
    finals = zip(final, their_final, strict=True) if name == "LSTM" else [(final, their_final)]
    for ours, expected in ((outputs, theirs), *finals):
        assert ours.dtype == dtype
        oracles.assert_close({"a": ours}, {"a": expected.numpy()}, tolerance)


def test_packed_sequences_of_pytorch_are_rows_of_several_lengths(model, write, rng):
    torch = importorskip("torch")
    m = model("lstm", layers=2, ways=2)
    x = rng.normal(size=(B, T, D))
    layer = torch.nn.LSTM(D, 5, 2, bidirectional=True, batch_first=True, dtype=torch.float64)
    layer.load_state_dict({k: torch.from_numpy(a) for k, a in m.tensors.items()})
    packed = torch.nn.utils.rnn.pack_padded_sequence(
        torch.from_numpy(x), LENGTHS, batch_first=True, enforce_sorted=False
    )
    with torch.no_grad():
        theirs, (h, c) = layer(packed)
    theirs, _ = torch.nn.utils.rnn.pad_packed_sequence(theirs, batch_first=True)
    outputs, final = load(write(m.tensors))["lstm"](x, None, LENGTHS)
    for ours, expected in zip((outputs, *final), (theirs, h, c), strict=True):
        np.testing.assert_allclose(ours, expected.numpy(), atol=1e-10)


@pytest.mark.parametrize("kind", ["LSTMCell", "GRUCell", "RNNCell"])
def test_the_weights_of_a_cell_are_a_stack_of_one_layer(write, rng, kind):
    torch = importorskip("torch")
    cell = getattr(torch.nn, kind)(D, 5, dtype=torch.float64)
    x = torch.from_numpy(rng.normal(size=(T, B, D)))
    state, steps = None, []
    with torch.no_grad():
        for x_t in x:
            state = cell(x_t, state)
            steps.append(state[0] if kind == "LSTMCell" else state)
    path = write({k: v.numpy() for k, v in cell.state_dict().items()})
    trace = es.record(path, x.numpy().swapaxes(0, 1))
    assert [leaf.path for leaf in trace.leaves] == [f"/{kind.lower()}"]
    np.testing.assert_allclose(
        time_major(trace.leaves[0], "h"), torch.stack(steps).numpy(), atol=1e-10
    )


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_weights_are_widened_exactly(write, rng, tmp_path, dtype):
    torch = importorskip("torch")
    save_file = importorskip("safetensors.torch").save_file
    layer = torch.nn.LSTM(D, 5).to(getattr(torch, dtype))
    path = tmp_path / "half.safetensors"
    save_file(layer.state_dict(), path)
    x = rng.normal(size=(T, B, D)).astype("float32")
    with torch.no_grad():
        theirs, _ = layer.float()(torch.from_numpy(x))
    trace = es.record(path, x.swapaxes(0, 1))
    oracles.assert_close({"h": time_major(trace["lstm"], "h")}, {"h": theirs.numpy()}, 1e-5)
    assert trace["lstm"].attrs["weights_dtype"] == dtype
    assert trace["lstm"].attrs["precision"] == "float32"
