"""The contract of a framework module, held by TensorFlow's for a frozen graph."""

import numpy as np
import pytest

from everystate.testing import FrameworkContract, importorskip

tf = importorskip("tensorflow")

import everystate as es
from cases import case
from everystate.errors import NothingRecordedError
from everystate.frameworks import tensorflow as framework
from everystate.frameworks.tensorflow import rnn_cell

v1 = tf.compat.v1
LAYERS = [
    case("lstm", seed=1, sizes=(7, 3, 4, 5), forget_bias=0.5, peephole=True),
    case("gru", seed=2, sizes=(7, 3, 5, 6), reset="before"),
]
PATHS = [f"rnn/multi_rnn_cell/cell_{k}" for k in range(2)]


class TestFrozenGraph(FrameworkContract):
    framework = framework
    tolerance = 1e-10

    @pytest.fixture(autouse=True)
    def _graph(self, tf_cell, load):
        with tf.Graph().as_default() as graph, v1.Session() as session:
            x = v1.placeholder(tf.float64, [None, None, 4], name="x")
            cells = [tf_cell(given) for given in LAYERS]
            lstm, gru = (given.initial for given in LAYERS)
            start = (
                rnn_cell.LSTMStateTuple(tf.constant(lstm["c"]), tf.constant(lstm["h"])),
                tf.constant(gru["h"]),
            )
            outputs, _ = v1.nn.dynamic_rnn(rnn_cell.MultiRNNCell(cells), x, None, start)
            tf.identity(outputs, name="y")
            session.run(v1.global_variables_initializer())
            load(cells, LAYERS, session)
            definition = graph.as_graph_def()
            self.graph = v1.graph_util.convert_variables_to_constants(session, definition, ["y"])

    def model(self):
        return self.graph

    def inputs(self):
        return ({"x": LAYERS[0].x.swapaxes(0, 1)},)

    def expected(self):
        found, x = {}, LAYERS[0].x
        for path, given in zip(PATHS, LAYERS, strict=True):
            values = given.with_(x=x).expected().values
            arrays = {name: a.swapaxes(0, 1) for name, a in values.items()}
            found[path] = arrays | {f"initial_{name}": a for name, a in given.initial.items()}
            x = values["h"]
        return found

    def results(self, model):
        found = framework.call(model, self.inputs())
        return [np.asarray(a) for variables in found.values() for a in variables.values()]

    def state(self, model):
        return model.SerializeToString(deterministic=True)

    def test_each_of_two_blocks_records_its_own_graph(self):
        other = type(self.graph)()
        other.CopyFrom(self.graph)
        with es.recording(self.graph) as outer, es.recording(other) as inner:
            outer.run(*self.inputs())
        assert [leaf.path.strip("/") for leaf in outer.trace.leaves] == PATHS
        with pytest.raises(NothingRecordedError):
            _ = inner.trace
