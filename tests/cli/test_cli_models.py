"""MODEL from Python: what is imported, what is called, what is refused."""

import sys
from pathlib import Path

import numpy as np
import pytest

import everystate as es
from everystate.testing import importorskip

MODULE = """
import torch

print("on import")
torch.manual_seed(0)


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = torch.nn.LSTM(2, 3, batch_first=True)

    def forward(self, x):
        print("in forward")
        return self.encoder(x)[0][:, -1]


def build():
    print("while building")
    return Net().eval()


def needs(argument):
    return Net()


def fails():
    raise RuntimeError("no weights here")


net = Net()
parts = {"net": net}
number = 7
"""


@pytest.fixture
def module(folder, monkeypatch):
    importorskip("torch")
    monkeypatch.setattr(sys, "path", list(sys.path))
    (folder / "package").mkdir()
    (folder / "package" / "__init__.py").write_text("")
    (folder / "package" / "mine.py").write_text(MODULE)
    yield "package.mine"
    for name in ("package", "package.mine"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("attribute", ["net", "build", "Net", "net.encoder"])
def test_a_model_or_what_returns_one(run, module, data, attribute):
    batch = [] if attribute == "net.encoder" else ["--batch-first"]
    done = run("record", f"{module}:{attribute}", data, "-o", "run.zarr", *batch)
    assert done.code == 0, done.err
    trace = es.open_trace("run.zarr")
    [leaf] = trace.leaves
    assert leaf.path == ("/lstm" if attribute == "net.encoder" else "/encoder")
    assert dict(leaf.h.sizes) == {"batch": 1, "time": 30, "unit": 3}
    assert trace.attrs["model"] == f"{module}:{attribute}"


def test_what_the_users_code_prints_is_not_in_the_way(run, module, data):
    args = (f"{module}:build", data, "-o", "run.zarr", "--batch-first", "--json")
    done = run("record", *args)
    assert done.code == 0, done.err
    assert list(done.json["layers"]) == ["encoder"]
    assert [said in done.err for said in ("on import", "while building", "in forward")] == [
        True
    ] * 3


def test_numbers_equal_the_models_own(run, module, data, x):
    torch = importorskip("torch")
    assert run("record", f"{module}:net", data, "-o", "run.zarr", "--batch-first").code == 0
    net = sys.modules["package.mine"].net
    with torch.no_grad():
        h, _ = net.encoder(torch.from_numpy(x).float()[None])
    np.testing.assert_allclose(es.open_trace("run.zarr")["encoder"].h, h.numpy(), atol=1e-6)


def test_time_first_adds_a_batch_in_the_middle(run, folder, module, data):
    Path("more.py").write_text("import torch\nlstm = torch.nn.LSTM(2, 3)\n")
    assert run("record", "more:lstm", data, "-o", "run.zarr", "--time-first").code == 0
    assert dict(es.open_trace("run.zarr")["lstm"].h.sizes) == {"batch": 1, "time": 30, "unit": 3}
    sys.modules.pop("more", None)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("nosuch:model", "importing nosuch from"),
        ("nosuch:model", "No module named 'nosuch'"),
        ("package.mine.py:net", "Say module:attribute, without .py."),
        ("package.mine:nett", "package.mine has no attribute 'nett'. Did you mean net?"),
        ("package.mine:qqq", "package.mine has no attribute 'qqq'. It has Net, build"),
        (
            "package.mine:number",
            "package.mine:number is of type int: no loaded framework knows an object of type int",
        ),
        ("package.mine:needs", "calling it without arguments failed: TypeError"),
        ("package.mine:fails", "RuntimeError: no weights here"),
        ("package.mine:torch.tensor", "calling it without arguments failed"),
        (
            "package.mine:parts.copy",
            "package.mine:parts.copy() is of type dict: no loaded framework knows an object of ",
        ),
        ("package.mine:", "expected a model's file, or package.module:attribute"),
        ("package.mine", "Which attribute of it? Try package.mine:model."),
        ("weights.pt", "may run any code when it is opened. Convert it"),
    ],
)
def test_what_is_no_model(run, module, data, target, message):
    done = run("record", target, data, "-o", "run.zarr")
    assert (done.code, done.out) == (1, "")
    assert "everystate: error: " in done.err
    assert message in done.err
    assert "Traceback" not in done.err


def test_a_module_that_fails_on_import(run, folder, module, data):
    Path("broken.py").write_text("import torch\n1 / 0\n")
    done = run("record", "broken:model", data, "-o", "run.zarr")
    assert done.code == 1
    assert "importing broken from" in done.err
    assert "ZeroDivisionError: division by zero." in done.err


def test_a_model_without_recurrent_layers(run, folder, module, data):
    Path("linear.py").write_text("import torch\nmodel = torch.nn.Linear(2, 3)\n")
    done = run("record", "linear:model", data, "-o", "run.zarr")
    assert done.code == 1
    assert "Linear has no recurrent layer that everystate knows" in done.err


def test_an_error_of_the_model_is_a_message(run, folder, module, data):
    Path("odd.py").write_text(
        "import torch\n"
        "class Odd(torch.nn.LSTM):\n"
        "    def forward(self, x):\n"
        "        raise ValueError('the model has its reasons.')\n"
        "model = Odd(2, 3)\n"
    )
    done = run("record", "odd:model", data, "-o", "run.zarr")
    assert done.code == 1
    assert (
        "everystate: error: ValueError: the model has its reasons. (everystate --debug" in done.err
    )


def test_a_model_that_needs_more_than_the_series(run, folder, module, data):
    Path("two.py").write_text(
        "import torch\n"
        "class Two(torch.nn.LSTM):\n"
        "    def forward(self, x, targets):\n"
        "        return super().forward(x)\n"
        "model = Two(2, 3)\n"
    )
    done = run("record", "two:model", data, "-o", "run.zarr")
    assert done.code == 1
    assert "missing 1 required positional argument: 'targets'. The command line" in done.err
    assert "or call es.record(model, x, ...) in Python." in done.err


def test_options_of_weights_files_are_refused(run, module, data):
    done = run("record", f"{module}:net", data, "-o", "run.zarr", "--nonlinearity", "relu")
    assert done.code == 2
    assert "is for weights files only." in done.err


@pytest.mark.parametrize(
    ("typed", "there"),
    [("weights.safetensor", "weights.safetensors"), ("sub/net.kras", "net.keras")],
)
def test_a_mistyped_file_is_told_from_a_module(run, folder, data, typed, there):
    Path("sub").mkdir()
    for name in ("weights.safetensors", "weights.txt", "sub/net.keras"):
        Path(name).touch()
    done = run("record", typed, data, "-o", "run.zarr")
    assert done.code == 1
    assert f"There is no file {typed}. Beside it there is {there}." in done.err
    assert "Which attribute" not in done.err


def test_info_lists_the_layers(run, module):
    done = run("info", f"{module}:net", "--json")
    assert done.json == {
        "model": f"{module}:net",
        "layers": ["encoder"],
        "stacks": {},
        "other_tensors": {},
    }
