"""Weights files that are not as they should be: each is refused, and the message helps."""

import pickle

import numpy as np
import pytest

import everystate as es
from everystate.errors import (
    ModelNotFoundError,
    UnknownLayerError,
    UnsupportedModelError,
    WeightsError,
)
from everystate.frameworks.numpy import load
from everystate.testing import importorskip


def without(tensors, *names):
    return {name: a for name, a in tensors.items() if name not in names}


def renamed(tensors, old, new):
    return {new if name == old else name: a for name, a in tensors.items()}


def refused(path, *parts, **options):
    with pytest.raises(WeightsError) as caught:
        load(path, **options)
    message = str(caught.value)
    assert isinstance(caught.value, ValueError)
    for part in (str(path), *parts):
        assert part in message


@pytest.fixture
def lstm(model):
    return model("lstm", layers=2, ways=2).tensors


def test_a_missing_tensor_is_named(write, lstm):
    path = write(without(lstm, "weight_hh_l1_reverse"), "encoder.")
    refused(path, "encoder.weight_hh_l1_reverse is missing", "encoder.bias_hh_l0", "state_dict")


def test_a_misspelt_tensor_is_recognised(write, lstm):
    path = write(renamed(lstm, "weight_hh_l0", "weigth_hh_l0"), "encoder.")
    refused(path, "encoder.weight_hh_l0 is missing", "Is it encoder.weigth_hh_l0? Rename that.")


@pytest.mark.parametrize("name", ["weight_ih_l0_rev", "weight_hh_l0_g", "bias_l0", "weight_ih_0"])
def test_a_stranger_among_the_tensors_is_not_left_out_in_silence(write, lstm, name):
    path = write({**lstm, name: np.ones(3)}, "encoder.")
    refused(path, f"encoder.{name} lies among", "PyTorch has none of that name", "Rename it")


def test_one_bias_without_the_other(write, lstm):
    path = write({n: a for n, a in lstm.items() if not n.startswith("bias_hh")})
    refused(path, "bias_hh_l0 is missing")


def test_a_bias_in_one_layer_only(write, lstm):
    refused(write(without(lstm, "bias_ih_l1", "bias_hh_l1")), "bias_hh_l1 is missing")


def test_layer_1_without_layer_0(write, model):
    tensors = model("gru", layers=2).tensors
    path = write({n: a for n, a in tensors.items() if n.endswith("_l1")})
    refused(path, "_l0 is missing", "layers count from 0")


def test_a_backward_direction_in_one_layer_only(write, lstm):
    path = write({n: a for n, a in lstm.items() if not n.endswith("_l1_reverse")})
    refused(path, "_l1_reverse is missing", "every layer and direction")


def test_a_projection_in_one_layer_only(write, model):
    tensors = model("lstm", layers=2, projected=True).tensors
    refused(write(without(tensors, "weight_hr_l1")), "weight_hr_l1 is missing")


def test_a_projection_that_is_missing_altogether(write, model):
    tensors = without(model("lstm", projected=True).tensors, "weight_hr_l0")
    refused(write(tensors), "weight_hh_l0 has shape (20, 2)", "also needs weight_hr_l0")


def test_rows_of_no_family(write):
    tensors = {"weight_ih_l0": np.ones((10, 4)), "weight_hh_l0": np.ones((10, 5))}
    refused(write(tensors), "10 rows for 5 units", "4 rows a unit (LSTM), 3 (GRU) or 1 (RNN)")


def test_a_gru_has_no_projection(write, model):
    tensors = {**model("gru").tensors, "weight_hr_l0": np.ones((5, 5))}
    refused(write(tensors), "with weight_hr_l0", "15 rows for 5 units")


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("weight_ih_l0", (19, 4), "(20, 4)"),
        ("bias_ih_l0", (19,), "(20,)"),
        ("bias_hh_l0", (5,), "(20,)"),
    ],
)
def test_a_misshapen_tensor(write, model, name, shape, expected):
    path = write({**model("lstm").tensors, name: np.ones(shape)}, "a.")
    refused(path, f"a.{name} has shape {shape}, expected {expected}", "a.weight_hh_l0 (20, 5)")


def test_a_misshapen_projection(write, model):
    tensors = {**model("lstm", projected=True).tensors, "weight_hr_l0": np.ones((3, 5))}
    refused(write(tensors), "weight_hr_l0 has shape (3, 5), expected (2, 5)")


@pytest.mark.parametrize(("name", "shape"), [("weight_ih_l0", (20,)), ("bias_ih_l0", (20, 1))])
def test_a_tensor_of_another_rank(write, model, name, shape):
    refused(write({**model("lstm").tensors, name: np.ones(shape)}), f"{name} has shape {shape}")


def test_an_empty_tensor(write):
    tensors = {"weight_ih_l0": np.ones((0, 4)), "weight_hh_l0": np.ones((0, 0))}
    refused(write(tensors), "none of them empty")


def test_a_layer_that_does_not_read_what_the_one_below_puts_out(write, model):
    tensors = {**model("lstm", layers=2).tensors, "weight_ih_l1": np.ones((20, 4))}
    refused(write(tensors), "weight_ih_l1 has shape (20, 4), expected 5", "layer 0 puts out")


def test_directions_that_read_different_features(write, model):
    tensors = {**model("lstm", ways=2).tensors, "weight_ih_l0_reverse": np.ones((20, 3))}
    refused(write(tensors), "weight_ih_l0_reverse has shape (20, 3), expected 4", "layer 0 reads")


def test_layers_of_two_sizes(write, model):
    other = {"weight_ih_l1": np.ones((24, 5)), "weight_hh_l1": np.ones((24, 6))}
    other |= {"bias_ih_l1": np.ones(24), "bias_hh_l1": np.ones(24)}
    tensors = {**model("lstm").tensors, **other}
    refused(write(tensors), "weight_hh_l1 has shape (24, 6)", "all layers of a stack to be alike")


def test_layers_of_two_families(write, model):
    gru = {n.replace("_l0", "_l1"): a for n, a in model("gru").tensors.items()}
    gru["weight_ih_l1"] = np.ones((15, 5))
    refused(write({**model("lstm").tensors, **gru}), "weight_hh_l1 is of GRU", "has one kind")


def test_a_cell_and_a_stack_under_one_name(write, model):
    cell = {n.removesuffix("_l0"): a for n, a in model("lstm").tensors.items()}
    refused(write({**model("lstm").tensors, **cell}, "a."), "a.weight_ih is a single cell's")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite(write, model, value):
    tensors = model("lstm").tensors
    tensors["weight_hh_l0"][3, 1] = value
    refused(write(tensors), "weight_hh_l0 holds 1 values that are NaN or infinite", "diverge")


def test_weights_of_whole_numbers(write, model):
    tensors = {**model("lstm").tensors}
    tensors["weight_hh_l0"] = tensors["weight_hh_l0"].astype("int8")
    refused(write(tensors), "weight_hh_l0 has dtype I8", "float32", "Quantised")


def test_a_file_without_recurrent_layers(write):
    refused(write({"head.weight": np.ones((2, 3))}), "holds no recurrent layer", "head.weight")


@pytest.mark.parametrize("nonlinearity", ["sigmoid", ""])
def test_an_unknown_nonlinearity(write, model, nonlinearity):
    path = write(model("rnn").tensors)
    refused(path, f"nonlinearity {nonlinearity!r}", "tanh or relu", nonlinearity=nonlinearity)


def test_a_nonlinearity_where_there_is_no_simple_rnn(write, model):
    path = write(model("gru").tensors)
    refused(path, "holds no simple RNN", "Leave it out", nonlinearity="relu")


def test_a_file_that_is_not_there(tmp_path, write, model):
    write(model("gru").tensors)
    for read in (load, lambda path: es.record(path, np.zeros((2, 3)))):
        with pytest.raises(
            ModelNotFoundError, match=r"no such file or folder\. Beside it there is weights"
        ):
            read(tmp_path / "wieghts.safetensors")
        with pytest.raises(FileNotFoundError, match=r"no such file or folder\. Give the path"):
            read(tmp_path / "sub" / "w.safetensors")


def test_a_folder(tmp_path):
    path = tmp_path / "folder.safetensors"
    path.mkdir()
    refused(path, "cannot be read")


@pytest.mark.parametrize("content", [b"", b"abc", b"\xff" * 64])
def test_a_file_of_another_kind(tmp_path, content):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(content)
    refused(path, "no complete safetensors file", "safetensors.torch.save_file")


def test_a_file_cut_short(write, model):
    path = write(model("lstm").tensors)
    path.write_bytes(path.read_bytes()[:-100])
    refused(path, "no complete safetensors file")


class Bomb:
    def __reduce__(self):
        return pytest.fail, ("the file was unpickled",)


def test_nothing_is_unpickled(tmp_path):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(pickle.dumps(Bomb()))
    refused(path, "no complete safetensors file")


def test_a_file_of_torch_save_gets_a_way_out(tmp_path):
    torch = importorskip("torch")
    path = tmp_path / "weights.safetensors"
    torch.save(torch.nn.LSTM(2, 3).state_dict(), path)
    refused(path, "torch.load(old, weights_only=True)")


def test_other_tensors_are_shown_and_can_be_read(write, model):
    tensors = {f"encoder.{n}": a for n, a in model("lstm").tensors.items()}
    head = np.arange(6.0).reshape(2, 3)
    stacks = load(write({**tensors, "head.weight": head, "steps": np.array(184)}))
    assert list(stacks) == ["encoder"]
    assert stacks.others == {"head.weight": (2, 3), "steps": ()}
    assert stacks.tensor("head.weight").tolist() == head.tolist()
    assert int(stacks.tensor("steps")) == 184
    assert "encoder: LSTM(4, 5); other tensors: head.weight, steps" in repr(stacks)
    with pytest.raises(WeightsError, match=r"no tensor 'haed.weight'; it has .*head.weight"):
        stacks.tensor("haed.weight")
    with pytest.raises(UnknownLayerError, match=r"no stack 'decoder' .* it has encoder"):
        stacks["decoder"]


def test_a_dtype_that_numpy_lacks_matters_only_if_asked_for(tmp_path, model):
    torch = importorskip("torch")
    save_file = importorskip("safetensors.torch").save_file
    tensors = {f"a.{n}": torch.from_numpy(a) for n, a in model("gru").tensors.items()}
    path = tmp_path / "weights.safetensors"
    save_file({**tensors, "scale": torch.ones(2).to(torch.float8_e4m3fn)}, path)
    stacks = load(path)
    with pytest.raises(WeightsError, match="scale has dtype F8_E4M3, which NumPy cannot read"):
        stacks.tensor("scale")


def test_stacks_say_what_they_are(write, model):
    m = model("lstm", layers=2, ways=2, projected=True)
    [stack] = load(write(m.tensors, "encoder.")).values()
    described = "LSTM(4, 5, num_layers=2, bidirectional=True, proj_size=2)"
    assert repr(stack) == f"<Stack encoder: {described}>"


def test_unroll_and_record_of_other_things(write, model, tmp_path):
    path = write(model("gru").tensors)
    with pytest.raises(UnsupportedModelError, match="unroll takes one recurrent stack"):
        es.unroll(path, np.ones((5, 4)))
    for other in ({}, {"a": 1}, "weights.pt", tmp_path):
        with pytest.raises(UnsupportedModelError, match=r"path of a file .* \.safetensors"):
            es.record(other, np.ones((5, 4)))
