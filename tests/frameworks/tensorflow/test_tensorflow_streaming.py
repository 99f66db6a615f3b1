"""TensorFlow graphs in chunks of time: the state of each loop over time is carried on."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import everystate as es
import mutations
import streamed
from everystate.errors import InputError, UncuttableError
from everystate.testing import importorskip

tf = importorskip("tensorflow")

from everystate.frameworks.tensorflow import call, rnn_cell, streaming

v1 = tf.compat.v1
T, B, D = 150, 2, 3


@pytest.fixture
def x() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(B, T, D)).astype("float32")


@pytest.fixture(params=["v1", "v2"])
def control_flow(request: pytest.FixtureRequest) -> Iterator[None]:
    (v1.enable_control_flow_v2 if request.param == "v2" else v1.disable_control_flow_v2)()
    yield
    v1.enable_control_flow_v2()


def frozen(build: Any, shape: Any = (None, None, D)) -> Any:
    """Freeze what is built of a placeholder; all variables get seeded values."""
    with tf.Graph().as_default() as graph, v1.Session() as session:
        x = v1.placeholder(tf.float32, shape, name="x")
        y = tf.identity(build(x), name="y")
        session.run(v1.global_variables_initializer())
        rng = np.random.default_rng(1)
        for variable in v1.global_variables():
            variable.load(rng.normal(0, 0.5, variable.shape), session)
        definition = graph.as_graph_def()
        return v1.graph_util.convert_variables_to_constants(session, definition, [y.op.name])


def stack(x: Any) -> Any:
    """Two layers that begin with zeros, one time-major above with a state of its own."""
    lower = rnn_cell.MultiRNNCell([rnn_cell.LSTMCell(5, use_peepholes=True), rnn_cell.GRUCell(4)])
    outputs, _ = v1.nn.dynamic_rnn(lower, x, dtype=tf.float32, scope="lower")
    turned = tf.transpose(tf.nn.relu(outputs), [1, 0, 2])
    begins = tf.random.stateless_normal([tf.shape(x)[0], 6], [1, 2])
    upper = rnn_cell.BasicRNNCell(6)
    return v1.nn.dynamic_rnn(upper, turned, initial_state=begins, time_major=True, scope="upper")[0]


def test_cutting_changes_no_value(x, tmp_path, control_flow):
    streamed.check(frozen(stack), x, tmp_path)


def test_from_files_and_iterators_and_after_an_interruption(x, tmp_path):
    (tmp_path / "frozen.pb").write_bytes(frozen(stack).SerializeToString())
    streamed.check_sources(tmp_path / "frozen.pb", x, 1, tmp_path)
    streamed.check_command(tmp_path / "frozen.pb", x, tmp_path)


def test_states_that_are_not_carried_show(x, tmp_path, monkeypatch):
    graph = frozen(stack)
    streamed.check_forgetful(graph, x, call, tmp_path)
    step = streaming._Chunks.step

    def from_zeros(chunks: Any, x: Any, state: Any) -> Any:
        return step(chunks, x, tf.nest.map_structure(np.zeros_like, state))

    monkeypatch.setattr(streaming._Chunks, "step", from_zeros)
    with pytest.raises(UncuttableError, match="do not go on where the last one stopped"):
        es.record(graph, x, store=tmp_path / "refused.zarr", memory=20_000)


def test_a_saved_model(x, tmp_path):
    keras = importorskip("keras")
    layers = [keras.layers.LSTM(4, return_sequences=True), keras.layers.GRU(3)]
    model = keras.Sequential([keras.Input((None, D)), *layers])
    model.export(str(tmp_path / "saved"), verbose=False)
    streamed.check(tmp_path / "saved", x, tmp_path)


def test_a_checkpoint(x, tmp_path):
    with tf.Graph().as_default(), v1.Session() as session:
        stack(v1.placeholder(tf.float32, [None, None, D], name="x"))
        session.run(v1.global_variables_initializer())
        v1.train.Saver().save(session, str(tmp_path / "model.ckpt"))
    streamed.check(tmp_path / "model.ckpt.meta", x, tmp_path)


def fused(x: Any) -> Any:
    weights = [tf.random.stateless_normal(n, [3, 4]) * 0.5 for n in ([D + 4, 16], [4], [16])]
    W, peephole, bias = weights
    zeros = tf.zeros([B, 4])
    op = tf.raw_ops.BlockLSTM(
        seq_len_max=tf.shape(x, out_type=tf.int64)[0],
        x=x,
        cs_prev=zeros,
        h_prev=zeros,  # the very tensor that c begins with
        w=W,
        wci=peephole,
        wcf=peephole,
        wco=peephole,
        b=bias,
        forget_bias=0.5,
    )
    return op.h


def test_a_fused_layer_time_first(x, tmp_path):
    streamed.check(frozen(fused), x.swapaxes(0, 1), tmp_path)


def counted(x: Any) -> Any:
    """Lengths that are the number of steps at hand, as scripts compute them."""
    lengths = tf.fill([tf.shape(x)[0]], tf.shape(x)[1])
    return v1.nn.dynamic_rnn(rnn_cell.GRUCell(4), x, lengths, dtype=tf.float32)[0]


def test_lengths_that_are_those_of_the_input(x, tmp_path):
    streamed.check(frozen(counted), x, tmp_path)


def fed(x: Any) -> Any:
    """What scripts feed beside the sequence: a dropout rate, lengths, a state to begin with."""
    keep = v1.placeholder(tf.float32, [], name="keep")
    lengths = v1.placeholder(tf.int32, [None], name="lengths")
    begins = v1.placeholder(tf.float32, [None, 4], name="begins")
    cell = rnn_cell.GRUCell(4)
    return v1.nn.dynamic_rnn(cell, keep * x, lengths, begins, scope="rnn")[0]


def test_what_else_is_fed(x, tmp_path):
    graph = frozen(fed)
    others = {"keep": 0.5, "lengths": [T, T], "begins:0": np.full((B, 4), 0.3, "float32")}
    whole = es.record(graph, {"x": x, **others})
    pieces = np.array_split(x, 4, axis=1)
    for k, given in enumerate((x, iter(pieces))):
        store = tmp_path / f"run_{k}.zarr"
        got = es.record(graph, {"x:0": given, **others}, store=store, chunk=37)
        assert streamed.compare(got, whole) < 1e-5
        assert "state_resets" not in got["rnn/gru_cell"].attrs
    with pytest.raises(InputError, match=r"lengths: got lengths \[150, 149\].*at least 150 steps"):
        es.record(graph, {"x": x, **others, "lengths": [T, T - 1]}, store=tmp_path / "run.zarr")
    with pytest.raises(InputError, match=r"(lengths|keep|begins).* missing"):
        es.record(graph, x, store=tmp_path / "run.zarr")
    with pytest.raises(InputError, match="the graph has no placeholder input; it reads: "):
        es.record(graph, {"input": x, **others}, store=tmp_path / "run.zarr")


def test_a_session_and_a_concrete_function(x, tmp_path):
    """With its weights of the moment; what is fed goes by the placeholder itself, too."""
    with tf.Graph().as_default(), v1.Session() as session:
        given = v1.placeholder(tf.float32, [None, None, D])
        stack(given)
        session.run(v1.global_variables_initializer())
        whole = es.record(session, x)
        got = es.record(session, {given: x}, store=tmp_path / "session.zarr", chunk=37)
    assert streamed.compare(got, whole) < 1e-5
    graph = tf.function(lambda x: tf.import_graph_def(frozen(stack), {"x": x}, ["y:0"]))
    concrete = graph.get_concrete_function(tf.TensorSpec([None, None, D]))
    streamed.check_resumed(concrete, x, tmp_path)


def test_what_lengths_depend_on_is_found_out_once(x, tmp_path, monkeypatch):
    asked: list[str] = []

    def walk(graph: Any, layer: Any, real: Any = streaming._fed) -> Any:
        asked.append(layer.path)
        return real(graph, layer)

    monkeypatch.setattr(streaming, "_fed", walk)
    others = {"keep": 0.5, "lengths": [T, T], "begins": np.zeros((B, 4), "float32")}
    es.record(frozen(fed), {"x": x, **others}, store=tmp_path / "run.zarr", chunk=16)
    assert asked == ["rnn/gru_cell"]


def both_ways(x: Any) -> Any:
    cells = rnn_cell.GRUCell(4), rnn_cell.GRUCell(4)
    return v1.nn.bidirectional_dynamic_rnn(*cells, x, dtype=tf.float32)[0][1]


def until_zeros(x: Any) -> Any:
    lengths = tf.reduce_sum(tf.cast(tf.reduce_any(tf.not_equal(x, 0), 2), tf.int32), 1)
    return v1.nn.dynamic_rnn(rnn_cell.GRUCell(4), x, lengths, dtype=tf.float32)[0]


def normalised(x: Any) -> Any:
    x -= tf.reduce_mean(x, 1, keepdims=True)
    return v1.nn.dynamic_rnn(rnn_cell.GRUCell(4), x, dtype=tf.float32)[0]


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (both_ways, "reads backwards"),
        (until_zeros, "ends each row at a length of its own"),
        (normalised, "it sees other steps"),
    ],
)
def test_what_cannot_be_cut(build, said, x, tmp_path):
    with pytest.raises(UncuttableError, match=said):
        es.record(frozen(build), x, store=tmp_path / "run.zarr", memory=20_000)


def test_a_fixed_number_of_steps(x, tmp_path):
    graph = frozen(counted, shape=(None, 20, D))
    with pytest.raises(InputError, match="takes 20 steps at once, neither more nor fewer: axis 1"):
        es.record(graph, x, store=tmp_path / "run.zarr")
    got = es.record(graph, x[:, :20], store=tmp_path / "run.zarr")  # which is all there is
    assert streamed.compare(got, es.record(graph, x[:, :20])) == 0


def every_other(x: Any) -> Any:
    return v1.nn.dynamic_rnn(rnn_cell.GRUCell(4), x[:, ::2], dtype=tf.float32)[0]


def test_an_axis_that_nobody_can_tell(x, tmp_path):
    graph = frozen(every_other)
    with pytest.raises(InputError, match=r"which axis .* is time\?"):
        es.record(graph, x, store=tmp_path / "run.zarr")
    with pytest.raises(UncuttableError, match="runs other steps in pieces"):
        es.record(graph, x, store=tmp_path / "run.zarr", time_axis=1, memory=10_000)


def test_a_fixed_number_of_steps_as_the_chunk(x, tmp_path):
    """It cannot be tried, so it takes somebody to say that it may be cut there."""
    graph, x = frozen(stack, shape=(None, 20, D)), x[:, :100]
    options = {"step": streaming.stream(graph).step, "time_axis": 1, "chunk": 20}
    got = es.record(graph, x, store=tmp_path / "run.zarr", **options)
    assert streamed.compare(got, es.record(frozen(stack), x)) < 1e-5


def test_a_graph_whose_states_are_fed(x, tmp_path):
    """Whoever made it knows how its state is handed on, and says it by step=."""

    def build(x: Any) -> Any:
        c, h = (v1.placeholder(tf.float32, [None, 4], name=name) for name in "ch")
        cell = rnn_cell.LSTMCell(4)
        return v1.nn.dynamic_rnn(cell, x, initial_state=rnn_cell.LSTMStateTuple(c, h))[0]

    def step(chunk: Any, state: Any) -> Any:
        states = call(graph, ({"x": chunk, **(state or begin)},))["rnn/lstm_cell"]
        return states["h"], {name: states[name][-1] for name in "ch"}

    graph = frozen(build)
    begin = {name: np.full((B, 4), 0.3, "float32") for name in "ch"}
    whole = es.record(graph, {"x": x, **begin})
    got = es.record(graph, x, store=tmp_path / "run.zarr", step=step, time_axis=1, chunk=37)
    assert streamed.compare(got, whole) < 1e-5


class WritingCell:
    """A GRU whose z is the share of the state that it writes."""

    state_size = output_size = 4

    def __init__(self) -> None:
        rng = np.random.default_rng(4)
        shapes = {"r": (D + 4, 4), "z": (D + 4, 4), "n": (D + 4, 4)}
        self.weights = {k: tf.constant(rng.normal(size=s), tf.float32) for k, s in shapes.items()}

    def zero_state(self, batch: Any, dtype: Any) -> Any:
        return tf.zeros([batch, 4], dtype)

    def __call__(self, x: Any, h: Any) -> Any:
        r, z = (tf.sigmoid(tf.concat([x, h], 1) @ self.weights[k] + 0.3) for k in "rz")
        n = tf.tanh(tf.concat([x, r * h], 1) @ self.weights["n"] - 0.2)
        h = z * n + (1 - z) * h
        return h, h


def loop_of(cell: Any, x: Any) -> Any:
    def step(t: Any, h: Any, written: Any) -> Any:
        y, h = cell(x[:, t], h)
        return t + 1, h, written.write(t, y)

    begin = (
        0,
        cell.zero_state(tf.shape(x)[0], tf.float32),
        tf.TensorArray(tf.float32, tf.shape(x)[1]),
    )
    return tf.while_loop(lambda t, *_: t < tf.shape(x)[1], step, begin, name="own")[2].stack()


@pytest.mark.parametrize("update", ["keeps", "writes"])
def test_which_share_of_a_gru_z_is(x, update):
    cell = {"keeps": lambda: rnn_cell.GRUCell(4), "writes": WritingCell}[update]
    trace = es.record(frozen(lambda x: loop_of(cell(), x)), x)
    (leaf,) = trace.leaves
    assert leaf.attrs["cell"] == "GRU"
    before = np.concatenate([leaf.initial_h.values[:, None], leaf.h.values[:, :-1]], axis=1)
    assert abs(before).max() > 0.05

    def check(update: str) -> None:
        z = leaf.z.values if update == "keeps" else 1 - leaf.z.values
        np.testing.assert_allclose(leaf.h, z * before + (1 - z) * leaf.n, atol=1e-6)

    assert leaf.attrs["update"] == update
    check(update)
    with mutations.must_be_noticed("the other convention"):
        check({"keeps": "writes", "writes": "keeps"}[update])
