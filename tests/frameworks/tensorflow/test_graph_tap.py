"""The graph tap: graphs that exist already, from files of every kind, against NumPy."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import everystate as es
import mutations
import oracles
from cases import Case, case
from everystate.errors import InputError, InputTypeError, UnsupportedModelError
from everystate.testing import importorskip

tf = importorskip("tensorflow")

from everystate.frameworks.tensorflow import read_graph, rnn_cell, tap

v1 = tf.compat.v1
LENGTHS = np.array([3, 0, 6], np.int32)
SIZES = (7, 3, 4, 4)
LAYERS = [
    case("lstm", seed=1, sizes=SIZES, peephole=True, cell_clip=0.9),
    case("gru", seed=2, sizes=SIZES, reset="before"),
    case("lstm", seed=3, sizes=SIZES, forget_bias=0.5, projected=2),
    case("simple_rnn", seed=4, sizes=(7, 3, 2, 5)),
]
X = np.swapaxes(LAYERS[0].x, 0, 1)
PATHS = [f"rnn/multi_rnn_cell/cell_{k}" for k in range(4)]


def rows_first(a: np.ndarray) -> np.ndarray:
    return np.swapaxes(a, 0, 1)


def initial_state(given: Case) -> Any:
    state = {name: tf.constant(a) for name, a in given.initial.items()}
    return rnn_cell.LSTMStateTuple(state["c"], state["h"]) if "c" in state else state["h"]


@pytest.fixture(params=["v1", "v2"])
def control_flow(request: pytest.FixtureRequest) -> str:
    (v1.enable_control_flow_v2 if request.param == "v2" else v1.disable_control_flow_v2)()
    return str(request.param)


@pytest.fixture
def script(tf_cell: Any, load: Any) -> Any:
    """A model as TensorFlow 1 scripts wrote it; what it gives is called with its session."""

    def run(use: Any) -> Any:
        with tf.Graph().as_default() as graph, v1.Session() as session:
            x = v1.placeholder(tf.float64, [None, None, 4], name="x")
            n = v1.placeholder(tf.int32, [None], name="n")
            keep = v1.placeholder_with_default(tf.constant(1.0, tf.float64), [], name="keep")
            cells = [tf_cell(c) for c in LAYERS]
            wrapped = [
                cells[0],
                rnn_cell.DropoutWrapper(
                    rnn_cell.ResidualWrapper(cells[1]), keep, keep, keep, dtype=tf.float64
                ),
                *cells[2:],
            ]
            outputs, final = v1.nn.dynamic_rnn(
                rnn_cell.MultiRNNCell(wrapped), x, n, tuple(initial_state(c) for c in LAYERS)
            )
            tf.identity(outputs, name="y")
            session.run(v1.global_variables_initializer())
            load(cells, LAYERS, session)
            names = ["y:0", *(t.name for t in tf.nest.flatten(final))]
            return use(graph, session, names)

    return run


def freeze(graph: Any, session: Any, names: list[str]) -> tuple[Any, list[str]]:
    kept = [name.partition(":")[0] for name in names]
    definition = graph.as_graph_def()
    return v1.graph_util.convert_variables_to_constants(session, definition, kept), names


def run_graph(graph_def: Any, fetches: Any, feeds: dict[str, Any]) -> Any:
    with tf.Graph().as_default(), v1.Session() as session:
        tf.import_graph_def(graph_def, name="")
        return session.run(fetches, {f"{name}:0": a for name, a in feeds.items()})


FEEDS = {"x": X, "n": LENGTHS}


def expected() -> dict[str, oracles.Unrolled]:
    """Each layer, by hand: the second one's input is added to its output."""
    found, x = [], LAYERS[0].x
    for k, given in enumerate(LAYERS):
        layer = given.with_(x=x).expected(lengths=LENGTHS)
        found.append(layer)
        x = np.nan_to_num(layer.values["h"] + (x if k == 1 else 0))
    return dict(zip(PATHS, found, strict=True))


def assert_layers(values: dict[str, np.ndarray]) -> None:
    """Compare each value, (time, batch, units), up to each row's length."""
    valid = np.arange(max(LENGTHS))[:, None] < LENGTHS
    names = set()
    for path, layer in expected().items():
        wanted = {k: a[: max(LENGTHS)] for k, a in layer.values.items()}
        ours = {k: np.where(valid[..., None], values[f"{path}/{k}"], np.nan) for k in wanted}
        oracles.assert_close(ours, wanted)
        names |= {f"{path}/{name}" for name in wanted}
    assert set(values) == names


def test_a_frozen_graph_gives_every_layers_states(script: Any, control_flow: str) -> None:
    frozen, names = script(freeze)
    before = frozen.SerializeToString(deterministic=True)
    tapped, taps = tap(frozen)
    assert frozen.SerializeToString(deterministic=True) == before
    values = run_graph(tapped, taps, FEEDS)
    assert_layers(values)
    # Past its own length a row's state is carried through to the end of the longest.
    final = run_graph(frozen, names, FEEDS)
    np.testing.assert_array_equal(values[f"{PATHS[0]}/c"][-1], final[1])
    np.testing.assert_array_equal(values[f"{PATHS[1]}/h"][-1], final[3])
    for fault, wrong in mutations.of_values(
        {f"{PATHS[2]}/{k}": values[f"{PATHS[2]}/{k}"] for k in "ifgo"}
    ):
        with mutations.must_be_noticed(fault):
            assert_layers({**values, **wrong})


def test_other_outputs_stay_bit_for_bit(script: Any, control_flow: str) -> None:
    frozen, names = script(freeze)
    tapped, taps = tap(frozen)
    plain = run_graph(frozen, names, FEEDS)
    alone = run_graph(tapped, names, FEEDS)
    beside = run_graph(tapped, [names, taps], FEEDS)[0]
    for a, b, c in zip(plain, alone, beside, strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a, c)


def test_record_a_frozen_graph(script: Any, control_flow: str, tmp_path: Path) -> None:
    frozen, _ = script(freeze)
    (tmp_path / "frozen.pb").write_bytes(frozen.SerializeToString())
    trace = es.record(str(tmp_path / "frozen.pb"), FEEDS)
    for path, layer in expected().items():
        leaf = trace[path]
        assert leaf.h.dims[:2] == ("batch", "time")
        inside = {leaf[k].dims[2] for k in leaf.data_vars if k in "cifgorzn"}
        assert inside in ({"unit"}, set())
        wanted = {k: a[: max(LENGTHS)] for k, a in layer.values.items()}
        oracles.assert_close({k: rows_first(leaf[k].values) for k in wanted}, wanted)
        assert leaf.h.attrs["origin"] == "observed"
        np.testing.assert_array_equal(leaf.length, LENGTHS)
    first = trace[PATHS[0]]
    np.testing.assert_array_equal(first.initial_c, LAYERS[0].initial["c"])
    assert first.attrs["cell"] == "LSTM"
    assert first.attrs["precision"] == "float64"
    some = es.record(
        tmp_path / "frozen.pb",
        FEEDS,
        select=es.Select(layers="*cell_1", variables="h", every=2),
    )
    assert [node.path for node in some.leaves] == [f"/{PATHS[1]}"]
    np.testing.assert_array_equal(some[PATHS[1]].h, trace[PATHS[1]].h[:, ::2])


def test_a_checkpoint_with_its_meta_graph(script: Any, tmp_path: Path) -> None:
    def save(graph: Any, session: Any, names: Any) -> None:
        v1.train.Saver().save(session, str(tmp_path / "model.ckpt"))

    script(save)
    tapped, taps = tap(read_graph(tmp_path / "model.ckpt.meta"))
    assert_layers(run_graph(tapped, taps, FEEDS))
    (tmp_path / "alone").mkdir()
    (tmp_path / "model.ckpt.meta").rename(tmp_path / "alone" / "model.ckpt.meta")
    with pytest.raises(InputError, match=r"model\.ckpt\.index is not beside it"):
        read_graph(tmp_path / "alone" / "model.ckpt.meta")


def test_a_saved_model_of_tensorflow_1(script: Any, tmp_path: Path) -> None:
    def save(graph: Any, session: Any, names: Any) -> None:
        inputs = {name: graph.get_tensor_by_name(f"{name}:0") for name in ("x", "n")}
        outputs = {"y": graph.get_tensor_by_name("y:0")}
        v1.saved_model.simple_save(session, str(tmp_path / "saved"), inputs, outputs)

    script(save)
    graph = read_graph(tmp_path / "saved" / "saved_model.pb")
    assert_layers(run_graph(*tap(graph), FEEDS))
    with pytest.raises(InputError, match="no signature 'predict'; there are: serving_default"):
        read_graph(tmp_path / "saved", signature="predict")


def test_a_saved_model_of_keras(tmp_path: Path) -> None:
    keras = importorskip("keras")
    if keras.backend.backend() != "tensorflow":
        pytest.skip("Keras runs on another back end")
    given = [case("lstm", seed=1), case("gru", seed=2, sizes=(7, 3, 5, 6))]
    inputs = keras.Input((None, 4))
    first = keras.layers.LSTM(5, return_sequences=True)(inputs)
    model = keras.Model(inputs, keras.layers.GRU(6, return_sequences=True)(first))
    lstm, gru = (
        oracles.stacked(c.gates, order) for c, order in zip(given, ("ifgo", "zrn"), strict=True)
    )
    model.layers[1].set_weights([lstm["W"].T, lstm["R"].T, lstm["b"] + lstm["b_R"]])
    model.layers[2].set_weights([gru["W"].T, gru["R"].T, np.stack([gru["b"], gru["b_R"]])])
    model.export(str(tmp_path / "keras"))
    x = X.astype(np.float32)
    values = es.record(tmp_path / "keras", x)
    (a, b) = (node.dataset for node in values.leaves)
    first, second = (node.path for node in values.leaves)
    assert "lstm" in first
    assert "gru" in second
    zero = [{k: np.zeros_like(v) for k, v in c.initial.items()} for c in given]
    one = given[0].with_(initial=zero[0], x=rows_first(X)).expected().values
    two = given[1].with_(initial=zero[1], x=one["h"]).expected().values
    oracles.assert_close({k: rows_first(a[k].values) for k in one}, one, 3e-6)
    oracles.assert_close({k: rows_first(b[k].values) for k in two}, two, 3e-6)


def test_loops_of_ones_own_and_raw_rnn(tf_cell: Any, load: Any, control_flow: str) -> None:
    given = LAYERS[0]
    with tf.Graph().as_default() as graph, v1.Session() as session:
        x = v1.placeholder(tf.float64, [7, 3, 4], name="x")
        cell = tf_cell(given)

        def step(t: Any, state: Any, written: Any) -> Any:
            y, after = cell(tf.gather(x, t), state)
            return t + 1, after, written.write(t, y)

        written = tf.TensorArray(tf.float64, 7)
        loop_vars = (0, initial_state(given), written)
        own = tf.while_loop(lambda t, *_: t < 7, step, loop_vars, name="own")

        def loop_fn(t: Any, output: Any, state: Any, _: Any) -> Any:
            state = initial_state(given) if state is None else state
            here = tf.gather(x, tf.minimum(t, 6))
            return tf.fill([3], t >= 7), here, state, output, None

        emitted, _, _ = v1.nn.raw_rnn(cell, loop_fn)
        # No sequence: its own iteration, fifty times.
        power = tf.while_loop(
            lambda k, v: k < 50, lambda k, v: (k + 1, v / tf.norm(v)), (0, x[0]), name="power"
        )
        kept = [
            tf.identity(t, name=f"kept_{k}")
            for k, t in enumerate((own[2].stack(), emitted.stack(), power[1]))
        ]
        session.run(v1.global_variables_initializer())
        load([cell], [given], session)
        frozen = freeze(graph, session, [t.name for t in kept])[0]
    tapped, taps = tap(frozen)
    scopes = {name.rpartition("/")[0] for name in taps}
    assert not [scope for scope in scopes if scope.startswith("power")]
    values = run_graph(tapped, taps, {"x": given.x})
    wanted = given.expected().values
    found = [s for s in scopes if {f"{s}/{k}" for k in wanted} <= set(taps)]
    assert len(found) == 2
    for scope in found:
        oracles.assert_close({k: values[f"{scope}/{k}"] for k in wanted}, wanted)


def test_both_directions_and_the_fused_op() -> None:
    with tf.Graph().as_default() as graph:
        x = v1.placeholder(tf.float32, [7, 3, 4], name="x")
        cells = rnn_cell.LSTMCell(5), rnn_cell.GRUCell(6)
        v1.nn.bidirectional_dynamic_rnn(*cells, x, dtype=tf.float32, time_major=True)
        with tf.name_scope("fused"):
            zeros, ones = tf.zeros([3, 5]), tf.ones([5])
            tf.raw_ops.BlockLSTMV2(
                seq_len_max=tf.constant(7, tf.int64),
                x=x,
                cs_prev=zeros,
                h_prev=zeros,
                w=tf.ones([9, 20]) / 9,
                wci=ones,
                wcf=ones,
                wco=ones,
                b=tf.zeros([20]),
            )
        _, taps = tap(graph.as_graph_def())
    assert sorted(taps) == sorted(
        [
            *(f"bidirectional_rnn/fw/lstm_cell/{k}" for k in "chifgo"),
            *(f"bidirectional_rnn/bw/gru_cell/{k}" for k in "hrzn"),
            *(f"fused/{k}" for k in "chifgo"),
        ]
    )


@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["full", "lengths"])
def test_a_backward_layer_is_recorded_in_the_order_of_the_input(
    tf_cell: Any, load: Any, control_flow: str, lengths: Any
) -> None:
    ahead, back = LAYERS[0], case("lstm", seed=9, sizes=(7, 3, 4, 6)).with_(x=LAYERS[0].x)
    with tf.Graph().as_default() as graph, v1.Session() as session:
        x = v1.placeholder(tf.float64, [None, None, 4], name="x")
        cells = tf_cell(ahead), tf_cell(back)
        states = initial_state(ahead), initial_state(back)
        outputs, _ = v1.nn.bidirectional_dynamic_rnn(*cells, x, lengths, *states)
        kept = [tf.identity(y, name=f"y{k}") for k, y in enumerate(outputs)]
        session.run(v1.global_variables_initializer())
        load(cells, [ahead, back], session)
        frozen, _ = freeze(graph, session, [t.name for t in kept])
    trace = es.record(frozen, X)
    steps = 7 if lengths is None else max(lengths)
    for way, given, reverse in (("fw", ahead, False), ("bw", back, True)):
        leaf = trace[f"bidirectional_rnn/{way}/lstm_cell"]
        assert leaf.attrs["direction"] == ("backward" if reverse else "forward")
        wanted = given.expected(lengths=lengths, reverse=reverse).values
        ours = {k: rows_first(leaf[k].values) for k in wanted}
        oracles.assert_close(ours, {k: a[:steps] for k, a in wanted.items()})


def test_what_cannot_be_tapped_says_why(script: Any, tmp_path: Path) -> None:
    frozen, _ = script(freeze)
    with pytest.raises(InputError, match="tapped before"):
        tap(tap(frozen)[0])
    with pytest.raises(InputTypeError, match=r"got a str, expected a .*GraphDef"):
        tap("frozen.pb")
    with pytest.raises(UnsupportedModelError, match="none of the graph's 0 loops goes over time"):
        tap(v1.GraphDef())
    (tmp_path / "text.pb").write_text("no graph at all")
    with pytest.raises(InputError, match=r"text\.pb: cannot be read as a frozen GraphDef"):
        read_graph(tmp_path / "text.pb")
    (tmp_path / "empty.pb").write_bytes(b"")
    with pytest.raises(InputError, match="it is none, or damaged"):
        read_graph(tmp_path / "empty.pb")
    module = tf.Module()
    module.v = tf.Variable(1.0)
    tf.saved_model.save(module, str(tmp_path / "saved"))
    with pytest.raises(InputError, match="no signature 'serving_default'; there are: none"):
        read_graph(tmp_path / "saved")
    (tmp_path / "saved" / "saved_model.pb").rename(tmp_path / "moved.pb")
    with pytest.raises(InputError, match="it is a SavedModel; give its folder"):
        read_graph(tmp_path / "moved.pb")
    with pytest.raises(InputError, match="no such file"):
        es.record(tmp_path / "missing.pb", X)


def test_feeds_are_checked(script: Any) -> None:
    frozen, _ = script(freeze)
    graph = v1.GraphDef()
    graph.CopyFrom(frozen)
    with pytest.raises(InputError, match=r"n missing\. .*there are: .*x \(None, None, 4\)"):
        es.record(graph, {"x": X})
    with pytest.raises(InputError, match="no placeholder z; there are"):
        es.record(graph, {**FEEDS, "z": X})
    with pytest.raises(InputError, match=r"x has shape \(3, 7, 3\), expected \(None, None, 4\)"):
        es.record(graph, {"x": X[..., :3], "n": LENGTHS})
    with pytest.raises(InputError, match="x holds <U1, expected float64"):
        es.record(graph, {"x": np.full(X.shape, "a"), "n": LENGTHS})
    with pytest.raises(InputError, match="got 4 arrays for the placeholders"):
        es.record(graph, X, LENGTHS, 1.0, 2.0)


@pytest.mark.parametrize("wrong", [[7, 4, 9], [7, -1, 3]])
def test_lengths_that_cannot_be_are_refused(script: Any, tmp_path: Path, wrong: list[int]) -> None:
    frozen, _ = script(freeze)
    (tmp_path / "frozen.pb").write_bytes(frozen.SerializeToString())
    got = re.escape(f"{PATHS[0]}: got sequence lengths {wrong}, expected each between 0 and")
    with pytest.raises(InputError, match=f"{got} the 7 steps"):
        es.record(tmp_path / "frozen.pb", {**FEEDS, "n": np.array(wrong)})


def test_unroll_a_cell(tf_cell: Any, load: Any) -> None:
    given = LAYERS[0]
    cell = tf_cell(given)
    es.unroll(cell, tf.constant(X))
    load([cell], [given])
    out = es.unroll(cell, tf.constant(X), initial_state(given))
    wanted = given.expected()
    found = {k: rows_first(np.asarray(getattr(out.states, k))) for k in "ch"}
    oracles.assert_close(found, {k: wanted.values[k] for k in "ch"})
    oracles.assert_close({"c": np.asarray(out.final_state.c)}, {"c": wanted.final["c"]})
    with pytest.raises(UnsupportedModelError, match="got a GraphDef, expected a cell"):
        es.unroll(v1.GraphDef(), X)
