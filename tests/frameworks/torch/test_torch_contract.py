"""The contract of a framework module, held by PyTorch's; and that each of its tests can fail."""

from types import SimpleNamespace

import numpy as np
import pytest

from everystate.testing import FrameworkContract, importorskip

torch = importorskip("torch")

from torch import nn

import everystate as es
import torch_reference as ref
from everystate.errors import UnknownLayerError
from everystate.frameworks import torch as framework

T, B, D, H = 7, 3, 4, 5


class Model(nn.Module):
    """Every family; one way and both ways; stacked; a cell in a loop."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.ModuleDict({"lstm": nn.LSTM(D, H, 2, bidirectional=True)})
        self.gru = nn.GRU(2 * H, H)
        self.rnn = nn.RNN(H, H, nonlinearity="relu")
        self.cell = nn.LSTMCell(H, H)

    def forward(self, x):
        y, _ = self.rnn(self.gru(self.encoder["lstm"](x)[0])[0])
        state, found = None, []
        for y_t in y:
            state = self.cell(y_t, state)
            found.append(state[0])
        return torch.stack(found), state


class TestTorch(FrameworkContract):
    framework = framework

    def model(self):
        return ref.randomise(Model(), seed=3, scale=0.4)

    def inputs(self):
        return (ref.random(T, B, D, seed=2, dtype=torch.float32),)

    def expected(self):
        model, found = self.model(), {}
        x = ref.numpy(self.inputs()[0])
        for root, stack in (
            ("encoder/lstm", model.encoder["lstm"]),
            ("gru", model.gru),
            ("rnn", model.rnn),
        ):
            runs = ref.stack(stack, x)
            found |= {f"{root}/{path}".strip("/"): run for path, run in runs.items()}
            last = [run.values["h"] for run, _ in list(runs.values())[-1 - stack.bidirectional :]]
            x = np.concatenate(last, -1)
        start = {n: np.zeros((B, H)) for n in "hc"}
        found["cell"] = (ref.UNROLL["LSTM"](x, start, ref.gates(model.cell)), start)
        return {
            path: {n: a.swapaxes(0, 1) for n, a in run.values.items()}
            | {f"initial_{n}": a for n, a in start.items()}
            for path, (run, start) in found.items()
        }

    def results(self, model):
        outputs, state = model(*self.inputs())
        return [a.detach().numpy() for a in (outputs, *state)]

    def state(self, model):
        return [
            (name, sorted(vars(part)), list(part._forward_hooks), list(part._forward_pre_hooks))
            for name, part in model.named_modules()
        ]


TESTS = sorted(name for name in vars(FrameworkContract) if name.startswith("test_"))


def swapped(expected):
    lstm = expected["cell"]
    return {**expected, "cell": {**lstm, "i": lstm["f"], "f": lstm["i"]}}


class Wrong(TestTorch):
    """A framework module with one fault, told by the test that must find it."""

    __test__ = False

    def __init__(self, test):
        self.test = test
        changes = {
            "test_the_module_has_every_function_and_knows_its_models": {
                "matches": lambda model: not isinstance(model, int)
            },
            "test_layers_are_those_of_the_trace": {"layers": lambda model: ["gru", "rnn"]},
        }
        own = {name: getattr(framework, name) for name in framework.__all__}
        self.framework = SimpleNamespace(**own | changes.get(test, {}))

    def expected(self):
        states = "test_states_and_gates_are_the_oracles"
        return swapped(super().expected()) if self.test == states else super().expected()

    def results(self, model):
        found = super().results(model)
        hooked = any(part._forward_hooks for part in model.modules())
        if self.test == "test_results_are_bitwise_the_same_within_and_after" and hooked:
            found[1] = np.nextafter(found[1], 9)
        return found

    def state(self, model):
        if self.test == "test_the_model_is_left_as_it_was":
            return object()
        return super().state(model)

    def _record(self, model, **options):
        if self.test == "test_an_unknown_layer_is_refused" and options:
            raise UnknownLayerError("no such layer")
        if self.test == "test_a_selection_is_a_part_of_the_whole" and options:
            options = {"select": es.Select(options["select"].layers, variables="h", every=2)}
        trace = super()._record(model, **options)
        if self.test == "test_the_trace_follows_the_schema":
            del trace["gru"].h.attrs["origin"]
        if self.test == "test_what_was_replayed_was_verified":
            trace["gru"].attrs["max_error_h"] = 0.1
        return trace


@pytest.mark.parametrize("test", TESTS)
def test_each_test_of_the_contract_can_fail(test):
    wrong = Wrong(test)
    with pytest.raises((AssertionError, KeyError)):
        getattr(wrong, test)()


def test_a_contract_that_is_not_filled_in_says_so():
    for method in ("model", "inputs", "expected"):
        with pytest.raises(NotImplementedError):
            getattr(FrameworkContract(), method)()
