"""A recording goes on with the model that began it, and with no other, however alike it looks."""

import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import everystate as es
from everystate.analysis.reducers import Moments
from everystate.errors import ResumeError
from everystate.streaming.answer import answer_in, check_answer
from everystate.testing import importorskip

T, B, D, U = 150, 2, 3, 5
"""Steps, rows, features, units."""


class StopError(Exception):
    """Somebody stops a recording."""


def data() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(B, T, D)).astype("float32")


def stop(done: int, total: int) -> None:
    if done >= 64:
        raise StopError


def stop_at_once(done: int, total: int) -> None:
    raise StopError


def begun(model: Any, x: Any, path: Path, *, finished: bool, **options: Any) -> None:
    """Record a sequence to its end, or to step 64."""
    if finished:
        es.record(model, x, store=path, chunk=32, **options)
        return
    with pytest.raises(StopError):
        es.record(model, x, store=path, chunk=32, progress=stop, **options)


def going_on(model: Any, x: Any, path: Path, **options: Any) -> xr.DataTree:
    return es.record(model, x, store=path, chunk=32, resume=True, **options)


whether_finished = pytest.mark.parametrize("finished", [False, True])


class TestTorch:
    @pytest.fixture
    def torch(self) -> Any:
        return importorskip("torch")

    def model(self, torch: Any, seed: int = 1) -> Any:
        """Return a model whose LSTM is the same for all seeds, and what is before it is not."""

        class Model(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                torch.manual_seed(seed)
                self.before = torch.nn.Linear(D, 4)
                torch.manual_seed(0)
                self.lstm = torch.nn.LSTM(4, U, batch_first=True)

            def forward(self, x: Any) -> Any:
                return self.lstm(self.before(x))[0]

        return Model().eval()

    @whether_finished
    def test_another_layer_before_a_recurrent_one(self, torch, tmp_path, finished):
        path, x = tmp_path / "run.zarr", data()
        begun(self.model(torch), x, path, finished=finished)
        with pytest.raises(ResumeError, match=r"lstm: h differs from step 0 on.*layer before it"):
            going_on(self.model(torch, seed=2), x, path)
        np.testing.assert_array_equal(
            going_on(self.model(torch), x, path)["lstm"].h,
            es.record(self.model(torch), x, store=tmp_path / "whole.zarr", chunk=32)["lstm"].h,
        )

    @whether_finished
    def test_a_bare_layer(self, torch, tmp_path, finished):
        path, x = tmp_path / "run.zarr", data()
        torch.manual_seed(0)
        begun(torch.nn.LSTM(D, U, batch_first=True), x, path, finished=finished)
        with pytest.raises(ResumeError, match=r"lstm: h differs .* its weights are others"):
            going_on(torch.nn.LSTM(D, U, batch_first=True), x, path)
        with pytest.raises(ResumeError, match=r"h had shape \[2, 5\] .* now \[2, 6\]"):
            going_on(torch.nn.LSTM(D, U + 1, batch_first=True), x, path)

    def test_figures_alone(self, torch, tmp_path):
        path, x = tmp_path / "run.zarr", data()
        options = {"reduce": Moments(), "full": False}
        begun(self.model(torch), x, path, finished=True, **options)
        with pytest.raises(ResumeError, match="h differs from step 0 on"):
            going_on(self.model(torch, seed=2), x, path, **options)

    def test_a_model_that_draws_at_random_is_told_so(self, torch, tmp_path):
        path, x = tmp_path / "run.zarr", data()
        model = torch.nn.Sequential(torch.nn.Dropout(0.5), torch.nn.LSTM(D, U, batch_first=True))
        begun(model, x, path, finished=True)
        with pytest.raises(ResumeError, match="answers differently each time"):
            going_on(model, x, path)

    @whether_finished
    @pytest.mark.parametrize("chunk", [None, 32, 100])
    def test_a_step_of_the_users_own(self, torch, tmp_path, finished, chunk):
        """It answers too, once: while the first steps are recorded."""
        path, x = tmp_path / "run.zarr", data()
        calls: list[int] = []

        def options(model: Any) -> dict[str, Any]:
            @torch.no_grad()
            def step(x: Any, state: Any) -> Any:
                calls.append(x.shape[1])
                return model.lstm(model.before(torch.as_tensor(x)), state)

            select = es.Select(units=[1])
            return {"store": path, "chunk": chunk, "step": step, "time_axis": 1, "select": select}

        model, other = self.model(torch), self.model(torch, seed=2)
        with nullcontext() if finished else pytest.raises(StopError):
            es.record(model, x, progress=None if finished else stop_at_once, **options(model))
        assert sum(calls) == (T if finished else calls[0])
        with pytest.raises(ResumeError, match=r"lstm: h differs from step 0 on"):
            es.record(other, x, resume=True, **options(other))
        assert calls[-1] == 48
        got = es.record(model, x, resume=True, **options(model))
        whole = es.record(model, x)["lstm"].h.isel(unit=[1])
        np.testing.assert_allclose(got["lstm"].h, whole, rtol=0, atol=1e-6)

    def test_the_trial_is_its_answer(self, torch, tmp_path):
        model, x = self.model(torch), data()
        calls: list[int] = []
        model.register_forward_pre_hook(lambda _, args: calls.append(args[0].shape[1]))
        es.record(model, x, store=tmp_path / "run.zarr", chunk=T)
        assert calls.count(48) == 2  # whole, and with another end

    @whether_finished
    def test_other_labels(self, torch, tmp_path, finished):
        path, x, model = tmp_path / "run.zarr", data(), self.model(torch)
        begun(model, x, path, finished=finished, time=np.arange(T) * 2.0)
        for options in ({}, {"time": np.arange(T) * 3.0}):
            with pytest.raises(ResumeError, match="the labels of its steps"):
                going_on(model, x, path, **options)
        got = going_on(model, x, path, time=np.arange(T) * 2.0)
        assert got["lstm"].time.values[-1] == 2.0 * (T - 1)

    @whether_finished
    def test_another_number_of_threads_is_no_other_model(self, torch, tmp_path, finished):
        path, x, model = tmp_path / "run.zarr", data(), self.model(torch)
        threads = torch.get_num_threads()
        try:
            torch.set_num_threads(1)
            begun(model, x, path, finished=finished)
            torch.set_num_threads(2)
            got = going_on(model, x, path)
        finally:
            torch.set_num_threads(threads)
        assert got["lstm"].sizes["time"] == T


@whether_finished
def test_a_constant_of_a_jax_function(tmp_path, finished):
    jax = importorskip("jax")
    path, x = tmp_path / "run.zarr", data()[0]

    def model(seed: int) -> Any:
        rng = np.random.default_rng(seed)
        W, R = rng.normal(size=(D, U)), rng.normal(size=(U, U)) / 3

        def rnn(xs: Any) -> Any:
            def step(h: Any, x: Any) -> Any:
                h = jax.numpy.tanh(x @ W + h @ R)
                return h, h

            return jax.lax.scan(step, jax.numpy.zeros(U), xs)[1]

        return rnn

    begun(model(1), x, path, finished=finished)
    with pytest.raises(ResumeError, match="scan_0: h differs from step 0 on"):
        going_on(model(2), x, path)
    assert going_on(model(1), x, path)["scan_0"].sizes["time"] == T


class TestFiles:
    def test_the_content_of_a_graph_counts_and_not_its_path(self, tmp_path, monkeypatch):
        tf = importorskip("tensorflow")
        from everystate.frameworks.tensorflow import rnn_cell

        v1 = tf.compat.v1

        def write(seed: int, path: Path) -> None:
            with tf.Graph().as_default() as graph, v1.Session() as session:
                x = v1.placeholder(tf.float32, (None, None, D), name="x")
                h, _ = v1.nn.dynamic_rnn(rnn_cell.GRUCell(U), x, dtype=tf.float32)
                y = tf.identity(h, name="y")
                rng = np.random.default_rng(seed)
                session.run(v1.global_variables_initializer())
                for variable in v1.global_variables():
                    variable.load(rng.normal(0, 0.5, variable.shape), session)
                frozen = v1.graph_util.convert_variables_to_constants(
                    session, graph.as_graph_def(), [y.op.name]
                )
            path.write_bytes(frozen.SerializeToString())

        monkeypatch.chdir(tmp_path)
        x, file = data(), tmp_path / "frozen.pb"
        write(1, file)
        begun("frozen.pb", x, Path("run.zarr"), finished=False)
        shutil.copytree("run.zarr", "again.zarr")
        finished = going_on(file, x, Path("again.zarr"))
        assert [leaf.sizes["time"] for leaf in finished.leaves] == [T]
        write(2, file)
        for store in ("run.zarr", "again.zarr"):
            with pytest.raises(ResumeError, match="rnn/gru_cell: h differs from step 0 on"):
                going_on("frozen.pb", x, Path(store))


class TestAnswers:
    """Of traces made by hand: what counts as the same."""

    def trace(self, h: np.ndarray, precision: str = "float32") -> xr.DataTree:
        leaf = xr.Dataset({"h": (("batch", "time", "unit"), h)}, attrs={"precision": precision})
        return xr.DataTree.from_dict({"rnn": leaf})

    def told(self, one: np.ndarray, other: np.ndarray, precision: str = "float32") -> bool:
        answers = [answer_in(self.trace(h, precision)) for h in (one, other)]
        try:
            check_answer("run.zarr", *answers)
        except ResumeError:
            return True
        return False

    @pytest.fixture
    def h(self) -> np.ndarray:
        return np.random.default_rng(5).uniform(-1, 1, size=(3, 48, 7))

    @pytest.mark.parametrize(
        ("precision", "rounding", "change"),
        [("float64", 1e-12, 1e-8), ("float32", 1e-6, 0.01), ("bfloat16", 8e-3, 0.5)],
    )
    def test_rounding_is_no_difference_and_a_change_is(self, h, precision, rounding, change):
        noise = np.random.default_rng(6).normal(size=h.shape)
        assert not self.told(h, h + rounding * noise, precision)
        assert self.told(h, h + change * noise, precision)

    def test_each_place_counts(self, h):
        other = h.copy()
        other[1, 47, 3] += 0.1  # one number of a thousand, in the last step
        assert self.told(h, other)
        assert self.told(h, h[:, :, ::-1])
        assert self.told(h, h[::-1])
        assert self.told(h, np.roll(h, 1, axis=1))
        assert self.told(1e6 * h, 1.01e6 * h)

    def test_rounding_that_grows_in_a_chaotic_network_is_no_difference(self, h):
        noise = np.random.default_rng(6).normal(size=h.shape)
        growing = 1e-7 * np.minimum(2.0 ** np.arange(48), 1e7)[:, None] * np.abs(noise)
        assert not self.told(h, h + growing)

    def test_nan_is_a_number_like_others(self, h):
        h[0, 40:] = np.nan
        assert not self.told(h, h.copy())
        assert self.told(h, np.nan_to_num(h))

    def test_layers_and_stores_without_an_answer(self, h):
        answer = answer_in(self.trace(h))
        check_answer("run.zarr", None, answer)
        with pytest.raises(ResumeError, match="other: it was not there"):
            check_answer("run.zarr", answer, {**answer, "other": answer["rnn"]})
        with pytest.raises(ResumeError, match="rnn: it was there"):
            check_answer("run.zarr", answer, {})
