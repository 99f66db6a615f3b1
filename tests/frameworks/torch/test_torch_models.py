"""Models that are not plain: compiled, scripted, quantised, subclassed, wrapped, replicated."""

import subprocess
import sys

import numpy as np
import pytest

from everystate.testing import importorskip

torch = importorskip("torch")

from torch import nn

import everystate as es
import torch_reference as ref
from everystate.errors import (
    EverystateWarning,
    NothingRecordedError,
    ReplayMismatchError,
    UnsupportedModelError,
)

T, B, D, H = 6, 2, 3, 4


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(D, H, 2)
        self.cell = nn.GRUCell(H, H)
        self.head = nn.Linear(H, 2)

    def forward(self, x):
        y, _ = self.lstm(x)
        h = torch.zeros(x.shape[1], self.cell.hidden_size)
        for t in range(y.shape[0]):
            h = self.cell(y[t], h)
        return self.head(h)


@pytest.fixture
def model():
    torch._dynamo.reset()
    yield ref.randomise(Model(), seed=2)
    torch._dynamo.reset()


@pytest.fixture
def x():
    return ref.random(T, B, D, seed=1, dtype=torch.float32)


def compiled(function):
    return torch.compile(function, backend="eager")


def check(trace, model, x, root=""):
    """The states of the model's layers, against the oracle."""
    lower = ref.stack(model.lstm, ref.numpy(x))
    for path, leaf in lower.items():
        ref.assert_leaf(trace[f"{root}lstm/{path}"], leaf, 1e-4)
    start = {"h": np.zeros((B, H))}
    y = lower["layer_1"][0].values["h"]
    run = ref.UNROLL["GRU"](y, start, ref.gates(model.cell))
    ref.assert_leaf(trace[f"{root}cell"], (run, start), 1e-4)


COMPILED = {
    "the model": lambda m: compiled(m),
    "the model in place": lambda m: m.compile(backend="eager") or m,
    "a part": lambda m: setattr(m, "lstm", compiled(m.lstm)) or m,
    "a part in place": lambda m: m.cell.compile(backend="eager") or m,
    "a part of a part": lambda m: nn.Sequential(compiled(m)),
}


@pytest.mark.parametrize("what", COMPILED)
def test_a_compiled_model_is_refused(model, x, what):
    with pytest.raises(UnsupportedModelError, match=r"is compiled by torch\.compile.*same weights"):
        es.record(COMPILED[what](model), x)


def test_the_way_out_of_a_compiled_model_works(model, x):
    whole = compiled(model)
    with pytest.raises(UnsupportedModelError, match=r"Record OptimizedModule\._orig_mod"):
        es.record(whole, x)
    check(es.record(whole._orig_mod, x), model, x)
    model.lstm = compiled(model.lstm)
    with pytest.raises(UnsupportedModelError, match=r"Put back Model\.lstm\._orig_mod"):
        es.record(model, x)
    model.lstm = model.lstm._orig_mod
    check(es.record(model, x), model, x)


def test_a_compiled_part_without_recurrent_layers_is_let_be(model, x):
    model.head = compiled(model.head)
    check(es.record(model, x), model, x)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("warmed_up", [False, True])
def test_a_compiled_function_that_calls_the_model(model, x, warmed_up):
    function = compiled(lambda x: 2 * model(x))
    with torch.no_grad():
        outside = function(x) if warmed_up else 2 * model(x)
        with es.recording(model) as recorder:
            inside = function(x)
        check(recorder.trace, model, x)
        assert torch.equal(inside, outside)
        runs = recorder.trace["cell"].sizes["batch"]
        function(x)  # after the block nothing is recorded
        assert recorder.trace["cell"].sizes["batch"] == runs


def test_a_function_compiled_for_the_first_time_within_the_block():
    """The compiler is loaded after the hooks were set: only a fresh process shows it."""
    code = """if 1:
        import torch, everystate as es, numpy as np
        model, x = torch.nn.Sequential(torch.nn.LSTM(3, 4)), torch.randn(6, 2, 3)
        expected = es.record(model, x)
        with torch.no_grad(), es.recording(model) as recorder:
            torch.compile(lambda x: model(x)[0], backend="eager")(x)
        np.testing.assert_allclose(recorder.trace["0"].c, expected["0"].c, atol=1e-6)
    """
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("which", ["forward", "lstm.forward"])
def test_a_compiled_forward_method(model, x, which):
    owner = model.lstm if "lstm" in which else model
    owner.forward = compiled(owner.forward)
    check(es.record(model, x), model, x)
    assert "forward" in vars(owner)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("how", ["script", "trace", "a scripted part"])
def test_torchscript_is_refused(model, x, how):
    if how == "a scripted part":
        model.lstm = torch.jit.script(model.lstm)
    else:
        make = torch.jit.script if how == "script" else torch.jit.trace
        model = make(model, *([x] if how == "trace" else []))
    with pytest.raises(UnsupportedModelError, match=r"is TorchScript.*load its state_dict"):
        es.record(model, x)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_a_scripted_head_is_let_be_and_tracing_within_the_block_refused(model, x):
    model.head = torch.jit.script(model.head)
    check(es.record(model, x), model, x)
    with (
        pytest.raises(UnsupportedModelError, match="Trace the model outside the block"),
        es.recording(model),
    ):
        torch.jit.trace(model, x, check_trace=False)


@pytest.mark.filterwarnings("ignore:The tensor attributes")
def test_an_exported_model_has_no_layers_any_more(model, x):
    exported = torch.export.export(model, (x,)).module()
    with pytest.raises(UnsupportedModelError, match="has no recurrent layer that everystate knows"):
        es.record(exported, x)


def test_a_symbolically_traced_model(x):
    class Straight(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = ref.randomise(nn.LSTM(D, H))

        def forward(self, x):
            return self.lstm(x)[0].relu()

    traced = torch.fx.symbolic_trace(Straight())
    for path, leaf in ref.stack(traced.lstm, ref.numpy(x)).items():
        ref.assert_leaf(es.record(traced, x)[f"lstm/{path}"], leaf, 1e-4)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_quantised_layers_are_refused_also_beside_others(model, x):
    quantised = torch.ao.quantization.quantize_dynamic(model, {nn.LSTM}, dtype=torch.qint8)
    assert isinstance(quantised.cell, nn.GRUCell)
    with pytest.raises(UnsupportedModelError, match=r"Model\.lstm is quantised.*made from"):
        es.record(quantised, x)


def test_data_parallel(model, x):
    check(es.record(nn.DataParallel(model), x), model, x, root="module/")


def test_a_subclass_that_only_adds_is_a_plain_layer(x):
    class Named(nn.LSTM):
        def forward(self, input, hx=None):  # noqa: A002
            return super().forward(input, hx)

    module = ref.randomise(Named(D, H, 2))
    module.__class__.__name__ = "LSTMNamed"
    for path, leaf in ref.stack(module, ref.numpy(x)).items():
        ref.assert_leaf(es.record(module, x)[f"lstmnamed/{path}"], leaf, 1e-4)


class Doubled(nn.LSTM):
    def forward(self, input, hx=None):  # noqa: A002
        return super().forward(2 * input, hx)


@pytest.mark.parametrize("variables", [("states", "gates"), "c", "f"])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("how", ["record", "recording"])
def test_a_subclass_that_computes_otherwise_is_never_recorded_wrong(how, layers, variables, x):
    module = ref.randomise(Doubled(D, H, layers))
    x = torch.cat([x, x])
    with pytest.raises(ReplayMismatchError, match="was the layer's forward changed"):
        run(how, module, x, es.Select(variables=variables))


def run(how, module, x, select):
    if how == "record":
        return es.record(module, x, select=select)
    with es.recording(module, select=select) as recorder:
        module(x)
    return recorder.trace


@pytest.mark.parametrize("how", ["record", "recording"])
def test_its_output_alone_is_recorded_but_no_inner_layer(how, x):
    alone = ref.randomise(Doubled(D, H))
    trace = run(how, alone, x, es.Select(variables="h"))
    assert np.array_equal(np.swapaxes(trace["doubled"].h.values, 0, 1), ref.numpy(alone(x)[0]))
    with pytest.raises(ReplayMismatchError, match="layer_0: its h was brought out by running"):
        run(how, ref.randomise(Doubled(D, H, 2)), x, es.Select(variables="h"))


@pytest.mark.parametrize("how", ["record", "recording"])
@pytest.mark.parametrize(
    "change",
    [
        lambda y, s: y,
        lambda y, s: (y, s, s),
        lambda y, s: (y, s[0]),
        lambda y, s: (y[..., :1], s),
        lambda y, s: {"output": y},
    ],
)
def test_a_subclass_that_returns_something_else_is_refused(how, change, x):
    class Other(nn.LSTM):
        def forward(self, input, hx=None):  # noqa: A002
            return change(*super().forward(input, hx))

    with pytest.raises(UnsupportedModelError, match=r"Other returned another.*hold the nn\.LSTM"):
        run(how, nn.Sequential(Other(D, H)), x, es.Select())


def test_a_forward_called_directly_is_reported(model, x):
    direct = type("Direct", (Model,), {"forward": lambda self, x: self.lstm.forward(x)})
    one = ref.randomise(direct())
    with (
        pytest.warns(EverystateWarning, match="never called while recording.*forward method"),
        pytest.raises(NothingRecordedError, match="a forward method called directly is not seen"),
    ):
        es.record(one, x)


def test_a_model_without_recurrent_layers_says_what_it_is_made_of(x):
    with pytest.raises(UnsupportedModelError, match=r"Linear.*everystate_states"):
        es.record(nn.Sequential(nn.Linear(D, H)), x)


@pytest.mark.parametrize("thing", [3, "model", lambda x: x, nn.LSTM, None])
def test_what_is_no_model(thing, x):
    # Where JAX is loaded a function is a model of JAX, if one without a scan.
    function = (UnsupportedModelError, NothingRecordedError)
    with pytest.raises(function if callable(thing) else UnsupportedModelError):
        es.record(thing, x)
