"""The cells of TensorFlow 1 under Keras 3, each looked up when it is asked for."""

import subprocess
import sys

import pytest

from everystate.testing import importorskip

tf = importorskip("tensorflow")

from everystate.frameworks.tensorflow import rnn_cell


@pytest.mark.parametrize("name", rnn_cell.__all__)
def test_every_cell_is_there(name: str) -> None:
    found = getattr(rnn_cell, name)
    assert isinstance(found, type)
    assert found.__name__ == name
    assert getattr(rnn_cell, name) is found
    assert name in dir(rnn_cell)


def test_an_unknown_cell_is_an_attribute_error_that_lists_the_known() -> None:
    with pytest.raises(AttributeError, match="no attribute 'LSTM'; there are BasicLSTMCell, "):
        rnn_cell.LSTM  # noqa: B018


def test_variables_have_their_old_names() -> None:
    v1 = tf.compat.v1
    with tf.Graph().as_default():
        cell = rnn_cell.MultiRNNCell(
            [
                rnn_cell.LSTMCell(4, use_peepholes=True, num_proj=3),
                rnn_cell.DropoutWrapper(rnn_cell.GRUCell(5)),
                rnn_cell.ResidualWrapper(rnn_cell.BasicLSTMCell(5)),
                rnn_cell.BasicRNNCell(6),
            ]
        )
        v1.nn.dynamic_rnn(cell, tf.zeros([2, 3, 4]), dtype=tf.float32)
        names = sorted(v.name.removeprefix("rnn/multi_rnn_cell/") for v in v1.global_variables())
    # As a TensorFlow 1.15 checkpoint of this model has them.
    assert names == [
        "cell_0/lstm_cell/bias:0",
        "cell_0/lstm_cell/kernel:0",
        "cell_0/lstm_cell/projection/kernel:0",
        "cell_0/lstm_cell/w_f_diag:0",
        "cell_0/lstm_cell/w_i_diag:0",
        "cell_0/lstm_cell/w_o_diag:0",
        "cell_1/gru_cell/candidate/bias:0",
        "cell_1/gru_cell/candidate/kernel:0",
        "cell_1/gru_cell/gates/bias:0",
        "cell_1/gru_cell/gates/kernel:0",
        "cell_2/basic_lstm_cell/bias:0",
        "cell_2/basic_lstm_cell/kernel:0",
        "cell_3/basic_rnn_cell/bias:0",
        "cell_3/basic_rnn_cell/kernel:0",
    ]


def test_no_cell_is_looked_up_before_it_is_asked_for() -> None:
    """What TensorFlow's own import loads is its affair; ours adds nothing to it."""
    code = (
        "import sys, tensorflow; own = set(sys.modules);"
        "from everystate.frameworks.tensorflow import rnn_cell;"
        "print([m for m in sys.modules if m not in own and 'keras' in m]);"
        "print('LSTMCell' in vars(rnn_cell));"
        "rnn_cell.LSTMCell; print('LSTMCell' in vars(rnn_cell))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-3:] == ["[]", "False", "True"]
