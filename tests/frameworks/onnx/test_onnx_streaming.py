"""ONNX models in chunks of time: the state of each node and loop is carried on."""

from typing import Any

import numpy as np
import pytest

from everystate.testing import importorskip

onnx = importorskip("onnx")
importorskip("onnxruntime")

from onnx import helper, numpy_helper

import cases
import everystate as es
import onnx_models as models
import streamed
from everystate.errors import InputError, ResumeError, UncuttableError
from everystate.frameworks.onnx import call, streaming

T, B, D, U = 150, 2, cases.D, cases.U


@pytest.fixture
def x() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(T, B, D)).astype("float32")


def stored(layer: models.Node, prefix: str, but: tuple[str, ...] = ()) -> dict[str, np.ndarray]:
    return {f"{prefix}{role}": a for role, a in layer.arrays.items() if role not in ("X", *but)}


def stack(*, batch_first: bool, opened: bool = True) -> Any:
    """An LSTM without initial states, a GRU with constant ones, an RNN whose are computed."""
    none = ("initial_h", "initial_c")
    sizes = ((5, B, U, 4), (5, B, 4, 3))
    lstm = models.node("lstm", seed=1, left_out=none, name="enc.0", sizes=(5, B, D, U))
    gru = models.node("gru", seed=2, name="enc.1", sizes=sizes[0])
    rnn = models.node("simple_rnn", seed=3, name="dec", sizes=sizes[1])
    node = helper.make_node
    turned = [1, 0, 2] if batch_first else [0, 1, 2]
    nodes = [
        node("Transpose", ["x"], ["a_X"], perm=turned),
        lstm.proto("a_", ["a_Y"]),
        node("Squeeze", ["a_Y", "axis"], ["a_y"]),
        node("Relu", ["a_y"], ["b_X"]),
        gru.proto("b_", ["b_Y"]),
        node("Squeeze", ["b_Y", "axis"], ["c_X"]),
        node("Shape", ["a_X"], ["batch"], start=1, end=2),
        node("Concat", ["one", "batch", "units"], ["shape"], axis=0),
        node("ConstantOfShape", ["shape"], ["c_initial_h"], value=numpy_helper.from_array(HALF)),
        rnn.proto("c_", ["y", "last"]),
    ]
    axes = [None, None] if opened else [20, B]
    ints = {"axis": [1], "one": [1], "units": [3]}
    tensors = {
        **{name: np.array(value, np.int64) for name, value in ints.items()},
        **stored(lstm, "a_"),
        **stored(gru, "b_"),
        **stored(rnn, "c_", but=("initial_h",)),
    }
    inputs = [models.value("x", [*(axes[::-1] if batch_first else axes), D])]
    return models.model(nodes, inputs, [models.value(n, None) for n in ("y", "last")], tensors)


HALF = np.array([0.5], "float32")


@pytest.mark.parametrize("batch_first", [True, False])
def test_cutting_changes_no_value(x, tmp_path, batch_first):
    model = stack(batch_first=batch_first)
    streamed.check(model, x.swapaxes(0, 1) if batch_first else x, tmp_path)


def test_from_files_and_iterators_and_after_an_interruption(x, tmp_path):
    onnx.save(stack(batch_first=True), tmp_path / "model.onnx")
    x = x.swapaxes(0, 1)
    streamed.check_sources(tmp_path / "model.onnx", x, 1, tmp_path)
    streamed.check_command(tmp_path / "model.onnx", x, tmp_path)


def test_states_that_are_not_carried_show(x, tmp_path, monkeypatch):
    model = stack(batch_first=False)
    streamed.check_forgetful(model, x, call, tmp_path)
    step = streaming._Chunks.step

    def from_zeros(chunks: Any, x: Any, states: Any) -> Any:
        return step(chunks, x, states and {name: 0 * a for name, a in states.items()})

    monkeypatch.setattr(streaming._Chunks, "step", from_zeros)
    with pytest.raises(UncuttableError, match="do not go on where the last one stopped"):
        es.record(model, x, store=tmp_path / "refused.zarr", memory=20_000)


@pytest.mark.parametrize("op", ["Scan", "Loop"])
def test_loops_carry_on(op, tmp_path):
    model, x = minimal_gated(op)
    streamed.check(model, x, tmp_path)
    streamed.check_forgetful(model, x, call, tmp_path)


def minimal_gated(op: str) -> tuple[Any, np.ndarray]:
    """A Scan, or a Loop that counts its steps itself, that carries a minimal gated unit's h."""
    rng = np.random.default_rng(3)
    node = helper.make_node
    step = [
        node("MatMul", ["x_t", "W"], ["a"]),
        node("MatMul", ["h_in", "R"], ["b"]),
        node("Add", ["a", "b"], ["ab"]),
        node("Sigmoid", ["ab"], ["f"]),
        node("Tanh", ["a"], ["g"]),
        node("Sub", ["g", "h_in"], ["d"]),
        node("Mul", ["f", "d"], ["fd"]),
        node("Add", ["h_in", "fd"], ["h_out"]),
    ]
    carried, x_t = models.value("h_in", [B, U]), models.value("x_t", [B, D])
    h_out = models.value("h_out", [B, U])
    if op == "Scan":
        body = helper.make_graph(step, "body", [carried, x_t], [h_out])
        loop = node("Scan", ["h_0", "x"], ["h"], body=body, num_scan_inputs=1)
        before = []
    else:
        step = [
            node("Gather", ["x", "k"], ["x_t"], axis=0),
            *step,
            node("Add", ["k", "1"], ["k_out"]),
            node("Identity", ["go_in"], ["go"]),
        ]
        counter, go = models.value("k", [], "l"), models.value("go_in", [], "?")
        number = models.value("number", [], "l")
        outputs = [models.value("go", [], "?"), h_out, models.value("k_out", [], "l")]
        body = helper.make_graph(step, "body", [number, go, carried, counter], outputs)
        before = [
            node("Shape", ["x"], ["sizes"], start=0, end=1),
            node("Squeeze", ["sizes"], ["steps"]),
        ]
        loop = node("Loop", ["steps", "", "h_0", "0"], ["h", "k_end"], body=body)
    tensors = {
        "W": rng.normal(0, 0.8, (D, U)).astype("f"),
        "R": rng.normal(0, 0.8, (U, U)).astype("f"),
        "h_0": rng.normal(0, 0.5, (B, U)).astype("f"),
        "0": np.array(0),
        "1": np.array(1),
    }
    inputs, outputs = [models.value("x", [None, B, D])], [models.value("h", None)]
    proto = models.model([*before, loop], inputs, outputs, tensors)
    return proto, rng.normal(size=(T, B, D)).astype("f")


def test_states_alone_which_the_kernel_shows_step_by_step(x, tmp_path):
    lstm = models.node("lstm", left_out=("initial_h", "initial_c"), sizes=(5, B, D, 192))
    inputs, outputs = [models.value("X", [None, None, D])], [models.value("Y", None)]
    model = models.model([lstm.proto(outputs=["Y"])], inputs, outputs, stored(lstm, ""))
    states = es.Select(variables=("h", "c"))
    whole = es.record(model, x, select=states)
    assert whole["lstm"].c.attrs["origin"] == "observed"
    got = es.record(model, x, select=states, store=tmp_path / "run.zarr", chunk=37)
    assert got["lstm"].c.attrs["origin"] == "observed"
    assert streamed.compare(got, whole) < 1e-5
    assert "state_resets" not in got["lstm"].attrs


def test_an_input_of_any_shape(x, tmp_path):
    gru = models.node("gru", sizes=(5, B, D, U))
    inputs, outputs = [models.value("X", None)], [models.value("Y", None)]
    streamed.check(
        models.model([gru.proto(outputs=["Y"])], inputs, outputs, stored(gru, "")), x, tmp_path
    )


def stepped(layer: models.Node) -> Any:
    """A Scan whose body runs a layer over one step: the state is handed on by the loop."""
    node, state = helper.make_node, [1, B, U]
    body = helper.make_graph(
        [
            node("Unsqueeze", ["x_t", "first"], ["in.X"]),
            layer.proto("in.", ["", "h_out", "c_out"]),
        ],
        "body",
        [*(models.value(f"in.initial_{s}", state) for s in "hc"), models.value("x_t", [B, D])],
        [models.value(f"{s}_out", state) for s in "hc"],
    )
    scan = node("Scan", ["h_0", "c_0", "x"], ["h", "c"], body=body, num_scan_inputs=1, name="loop")
    tensors = {f"in.{role}": layer.arrays[role] for role in ("W", "R", "B")}
    tensors |= {f"{s}_0": layer.arrays[f"initial_{s}"] for s in "hc"} | {"first": np.array([0])}
    inputs, outputs = [models.value("x", [None, B, D])], [models.value("h", None)]
    return models.model([scan], inputs, outputs, tensors)


def test_a_node_inside_of_a_loop_goes_on_with_it(x, tmp_path):
    model = stepped(models.node("lstm", seed=6, sizes=(1, B, D, U), name="/lstm/LSTM"))
    streamed.check(model, x, tmp_path)
    assert "lstm" in {leaf.name for leaf in es.record(model, x).leaves}


def test_a_model_whose_states_are_inputs(x, tmp_path):
    """They begin with what is given; then they are carried on, what is given with them or not."""
    lstm = models.node("lstm", seed=5, sizes=(5, B, D, U))
    proto = lstm.proto(outputs=["Y", "h_out", "c_out"])
    inputs = [models.value("X", [None, B, D])]
    inputs += [models.value(f"initial_{s}", [1, None, U]) for s in "hc"]
    tensors = stored(lstm, "", but=("initial_h", "initial_c"))
    outputs = [models.value(name, None) for name in ("Y", "h_out", "c_out")]
    model = models.model([proto], inputs, outputs, tensors)
    begin = {f"initial_{s}": lstm.arrays[f"initial_{s}"] for s in "hc"}
    whole = es.record(model, {"X": x, **begin})
    np.save(tmp_path / "x.npy", x)
    for k, given in enumerate((x, tmp_path / "x.npy", iter(np.array_split(x, 4)))):
        store = tmp_path / f"run_{k}.zarr"
        got = es.record(model, {**begin, "X": given}, store=store, chunk=37)
        assert streamed.compare(got, whole) < 1e-5
        assert "state_resets" not in got["lstm"].attrs
    with pytest.raises(InputError, match="inputs initial_h, initial_c are missing"):
        es.record(model, x, store=tmp_path / "run.zarr")
    with pytest.raises(InputError, match="has no input x; it takes: X, initial_h, initial_c"):
        es.record(model, {"x": x, **begin}, store=tmp_path / "run.zarr")
    other = {"X": x, **begin, "initial_h": 2 * begin["initial_h"]}
    with pytest.raises(ResumeError, match="differs in the first steps of the input, or another"):
        es.record(model, other, store=tmp_path / "run_0.zarr", resume=True)


def refused() -> dict[str, tuple[Any, str]]:
    def alone(family: str, **options: Any) -> Any:
        layer = models.node(family, sizes=(5, B, D, U), **options)
        inputs, outputs = [models.value("X", [None, None, D])], [models.value("Y", None)]
        proto = layer.proto(outputs=["Y"])
        return models.model([proto], inputs, outputs, stored(layer, ""))

    def branch(name: str, nodes: list[Any]) -> Any:
        return helper.make_graph(nodes, name, [], [models.value(name, None)])

    gru = models.node("gru", sizes=(5, B, D, U))
    then = branch("then", [gru.proto(outputs=["then"])])
    other = branch("other", [helper.make_node("Unsqueeze", ["X", "one"], ["other"])])
    choice = helper.make_node("If", ["yes"], ["Y"], then_branch=then, else_branch=other)
    inputs, outputs = [models.value("X", [None, None, D])], [models.value("Y", None)]
    tensors = {"yes": np.array(True), "one": np.array([1]), **stored(gru, "")}
    lengths = np.array([5, 5])
    return {
        "a branch": (models.model([choice], inputs, outputs, tensors), "gru is in a branch of If"),
        "bidirectional": (alone("gru", direction="bidirectional"), "gru reads backwards"),
        "reverse": (alone("lstm", direction="reverse"), "lstm reads backwards"),
        "lengths": (alone("gru", lengths=lengths), "gru is given sequence_lens"),
    }


@pytest.mark.parametrize("kind", sorted(refused()))
def test_what_cannot_be_cut(kind, x, tmp_path):
    model, said = refused()[kind]
    with pytest.raises(UncuttableError, match=said):
        es.record(model, x, store=tmp_path / "run.zarr", memory=20_000, time_axis=0)


def test_a_fixed_number_of_steps(x, tmp_path):
    model = stack(batch_first=False, opened=False)
    with pytest.raises(InputError, match="takes 20 steps at once, neither more nor fewer: axis 0"):
        es.record(model, x, store=tmp_path / "run.zarr")
    got = es.record(model, x[:20], store=tmp_path / "run.zarr")  # which is all there is: whole
    assert streamed.compare(got, es.record(model, x[:20])) == 0
    options = {"step": streaming.stream(model).step, "time_axis": 0, "chunk": 20}
    got = es.record(model, x[:100], store=tmp_path / "five.zarr", **options)
    assert streamed.compare(got, es.record(stack(batch_first=False), x[:100])) < 1e-5
