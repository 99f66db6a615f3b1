"""`record`, `recording`, `unroll` and discovery, with a framework made for the test."""

import sys
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

import cases
import everystate as es
import oracles
from everystate.errors import (
    EverystateWarning,
    MissingDependencyError,
    SelectionError,
    UnknownLayerError,
    UnsupportedModelError,
)
from everystate.recording import discovery
from everystate.recording.discovery import model_name
from observed import observed

NAME = "everystate_fake_framework"


class Net:
    """A model of the fake framework: one layer, which does what a case says."""

    def __init__(self):
        self.case = cases.case("lstm")
        self.hooks = []

    def __call__(self, x):
        case = self.case.with_(x=x)
        seen = observed(case, path="net/lstm", observed={"h": case.expected().values["h"]})
        for hook in self.hooks:
            hook(seen)
        return seen.observed["h"]


class Framework(ModuleType):
    """What a framework module offers, and a note of how it was used."""

    def __init__(self):
        super().__init__(NAME)
        self.recorders = []

    def matches(self, model):
        return isinstance(model, Net)

    def layers(self, model):
        return ["net/lstm"]

    @contextmanager
    def observe(self, model, recorder):
        self.recorders.append(recorder)
        model.hooks.append(recorder.observe)
        try:
            yield
        finally:
            model.hooks.clear()

    def call(self, model, inputs):
        return model(*inputs)

    def unroll(self, layer, *inputs):
        return SimpleNamespace(outputs=layer(*inputs), states=len(inputs))


@pytest.fixture
def framework(monkeypatch):
    """Register the fake framework as a package from outside does."""
    module = Framework()
    entry = SimpleNamespace(name=NAME, load=lambda: module)
    found = {discovery.GROUP: [entry]}
    monkeypatch.setattr(discovery, "entry_points", lambda group: found[group])
    monkeypatch.setitem(sys.modules, NAME, module)
    return module


@pytest.fixture
def net(framework):
    return Net()


class TestRecord:
    def test_runs_the_model_once_and_returns_the_trace(self, net, framework):
        trace = es.record(net, net.case.x)
        expected = net.case.expected().values
        leaf = trace["net/lstm"]
        ours = {name: np.swapaxes(leaf[name].values, 0, 1) for name in expected}
        oracles.assert_close(ours, expected)
        assert trace.attrs["model"] == "Net"
        assert net.hooks == []

    def test_passes_its_options_on(self, net):
        select = es.Select(variables="c", every=3)
        times = np.arange(7) * 0.1
        trace = es.record(net, net.case.x, select=select, time=times, batch=list("abc"))
        leaf = trace["net/lstm"]
        assert set(leaf.data_vars) == {"c", "initial_h", "initial_c"}
        assert leaf.time.values.tolist() == times[::3].tolist()
        assert leaf.batch.values.tolist() == ["a", "b", "c"]

    def test_says_that_the_call_is_its_own(self, net, framework):
        progress = []
        es.record(net, net.case.x, progress=lambda *steps: progress.append(steps))
        (recorder,) = framework.recorders
        assert recorder.own_call
        recorder.progress(1, 2)
        assert progress == [(1, 2)]

    def test_an_unknown_layer_is_refused_before_the_model_runs(self, net):
        with pytest.raises(UnknownLayerError, match=r"'decoder\.\*'; the model has: net/lstm"):
            es.record(net, None, select=es.Select(layers="decoder.*"))

    def test_an_error_of_the_model_is_its_own_and_nothing_stays_behind(self, net):
        with pytest.raises(TypeError):
            es.record(net, None, None)
        assert net.hooks == []


class TestRecording:
    def test_joins_the_calls_of_a_block(self, net):
        with es.recording(net) as rec:
            outputs = [net(net.case.x) for _ in range(2)]
        assert rec.trace["net/lstm"].sizes["batch"] == 6
        np.testing.assert_array_equal(outputs[0], net.case.expected().values["h"])
        net(net.case.x)
        assert rec.trace["net/lstm"].sizes["batch"] == 6

    def test_a_stream(self, net):
        with es.recording(net, along="time", time=range(7), select=es.Select(every=2)) as rec:
            for x in (net.case.x[:3], net.case.x[3:]):
                net(x)
                net.case = net.case.with_(initial=net.case.with_(x=x).expected().final)
        assert rec.trace["net/lstm"].time.values.tolist() == [0, 2, 4, 6]

    def test_keeps_what_came_before_an_exception(self, net):
        held = []

        def block():
            with es.recording(net) as rec:
                held.append(rec)
                net(net.case.x)
                raise KeyError("mine")

        with pytest.raises(KeyError, match="mine"):
            block()
        assert held[0].trace["net/lstm"].sizes["batch"] == 3
        assert net.hooks == []

    def test_does_not_say_that_the_call_is_its_own(self, net, framework):
        with es.recording(net):
            pass
        assert not framework.recorders[0].own_call

    def test_warns_the_users_own_line(self, net):
        with es.recording(net) as rec:
            net(np.where(np.arange(4) == 0, np.nan, net.case.x))
        with pytest.warns(EverystateWarning, match="net/lstm: NaN or infinite") as caught:
            _ = rec.trace
        assert caught[0].filename == __file__


def _without_library(name):
    raise ModuleNotFoundError("No module named 'tensorflow'", name="tensorflow")


def test_unroll_hands_everything_to_the_framework(net):
    out = es.unroll(net, net.case.x)
    np.testing.assert_array_equal(out.outputs, net.case.expected().values["h"])


class TestDiscovery:
    def test_a_registered_framework_is_found(self, net, framework):
        assert discovery.framework_of(net) == (NAME, framework)

    def test_it_is_not_asked_unless_its_library_is_loaded(self, net, monkeypatch):
        monkeypatch.delitem(sys.modules, NAME)
        with pytest.raises(UnsupportedModelError):
            discovery.framework_of(net)

    def test_an_unknown_model_is_refused_with_those_who_were_asked(self, framework):
        with pytest.raises(UnsupportedModelError) as caught:
            es.record(3.5)
        message = str(caught.value)
        assert message.startswith("no loaded framework knows an object of type float; asked: ")
        assert NAME in message
        with pytest.raises(UnsupportedModelError, match="in the place of the model"):
            es.record(np.zeros((2, 3)), 3.5)

    def test_a_file_is_known_by_its_name_and_imports_what_reads_it(self, monkeypatch, tmp_path):
        assert discovery.framework_of_file("run/Weights.SAFETENSORS") == "numpy"
        assert discovery.framework_of_file(Path("run") / "frozen.pb") == "tensorflow"
        assert discovery.framework_of_file("notes.txt") is None
        assert discovery.framework_of_file(b"frozen.pb") is None
        assert discovery.framework_of_file(3.5) is None
        monkeypatch.setattr(discovery, "import_module", _without_library)
        with pytest.raises(FileNotFoundError, match=r"frozen\.pb: there is no such file or folder"):
            discovery.framework_of(tmp_path / "frozen.pb")  # told before anything is imported
        (tmp_path / "frozen.pb").touch()
        with pytest.raises(MissingDependencyError, match=r"pip install 'everystate\[tensorflow\]'"):
            discovery.framework_of(tmp_path / "frozen.pb")

    @pytest.mark.parametrize("path", ["nowhere", Path("run") / "model.pt"])
    def test_a_path_that_no_framework_reads(self, path):
        with pytest.raises(UnsupportedModelError, match=r"names no file or folder that holds a"):
            es.record(path)

    def test_the_folder_of_a_saved_model_is_known_by_what_is_in_it(self, tmp_path):
        assert discovery.framework_of_file(tmp_path) is None
        (tmp_path / "saved_model.pb").write_bytes(b"")
        assert discovery.framework_of_file(tmp_path) == "tensorflow"

    def test_the_files_of_frameworks_are_asked_only_if_their_library_is_loaded(self, framework):
        asked = [name for name, _ in discovery._candidates(Net())]
        there = {path.stem for path in Path(discovery.__file__).parents[1].glob("frameworks/*")}
        inner = [name for name in asked if name != NAME]
        assert set(inner) <= there
        assert all(name in sys.modules for name in inner)


@pytest.mark.parametrize(
    ("model", "name"),
    [("run/weights.safetensors", "run/weights.safetensors"), (Path("a") / "b", "a/b"), (3, "int")],
)
def test_model_name(model, name):
    assert model_name(model) == name


def test_a_selection_by_name_alone_is_told_how_to_be_written(net):
    with pytest.raises(
        SelectionError, match=r"expected an es\.Select\. Try es\.Select\(variables='c'"
    ):
        es.record(net, cases.case("lstm").x, select="c")


def test_a_class_in_place_of_a_model_is_told_apart(net):
    with pytest.raises(UnsupportedModelError, match=r"got the class Net, expected a model: Net\("):
        es.record(type(net), cases.case("lstm").x)
