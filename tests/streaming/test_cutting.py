"""What the trial of a model's cuts sees, what it does not, and which models need none."""

import numpy as np
import pytest

import everystate as es
from everystate.errors import InputError, ReplayMismatchError, UncuttableError
from everystate.frameworks.torch.streaming import stream
from everystate.streaming import cutting
from everystate.testing import importorskip

torch = importorskip("torch")
from torch import nn

D, U = 3, 5


class LooksBack(nn.Module):
    """A recurrent layer over inputs to which one of `lag` steps before is added."""

    def __init__(self, lag: int) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.lag, self.gru = lag, nn.GRU(D, U)

    def forward(self, x):
        return self.gru(x + 0.01 * torch.cat([torch.zeros_like(x[: self.lag]), x])[: len(x)])


class Attends(nn.Module):
    """Attention of each output to those up to a hundred steps before, then another layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.below, self.above = nn.GRU(D, U), nn.LSTM(U, 4)

    def forward(self, x):
        h, _ = self.below(x)
        t = torch.arange(len(h))
        back = t[:, None] - t
        hidden = (back < 0) | (back > 100)
        scores = torch.einsum("tbu,sbu->bts", h, h).masked_fill(hidden, -torch.inf)
        return self.above(torch.einsum("bts,sbu->tbu", scores.softmax(-1), h))


class Smooths(nn.Module):
    """A recurrent layer over smoothed inputs, by a window that reaches as far ahead as back."""

    def __init__(self, width: float) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.gru, window = nn.GRU(D, U), torch.exp(-((torch.arange(-16, 17) / width) ** 2) / 2)
        self.window = (window / window.sum())[None, None]

    def forward(self, x):
        flat = x.reshape(len(x), 1, -1).permute(2, 1, 0)
        smooth = nn.functional.conv1d(flat, self.window, padding=16)
        return self.gru(smooth.permute(2, 1, 0).reshape(x.shape))


class Chaotic(nn.Module):
    """A tanh network far beyond the edge of chaos: a difference grows by some half each step."""

    def __init__(self, units: int = 64) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.rnn = nn.RNN(D, units)
        nn.init.normal_(self.rnn.weight_hh_l0, std=3.0 / units**0.5)

    def forward(self, x):
        return self.rnn(x)[0]


def series(steps: int) -> np.ndarray:
    return np.random.default_rng(6).normal(size=(steps, 2, D)).astype(np.float32)


def refused(model: nn.Module, steps: int, folder, **options) -> bool:
    try:
        es.record(model.eval(), series(steps), store=folder / "run.zarr", chunk=600, **options)
    except UncuttableError:
        return True
    return False


@pytest.mark.parametrize("lag", [20, 47, 100, 400])
def test_a_look_back_is_seen(lag, tmp_path):
    assert refused(LooksBack(lag), 11_000, tmp_path, memory=1_000_000)


def test_an_attention_over_a_hundred_steps_is_seen(tmp_path):
    assert refused(Attends(), 11_000, tmp_path, memory=1_000_000)


@pytest.mark.parametrize("width", [1.0, 2.0, 4.0])
def test_a_look_ahead_that_fades_slowly_is_seen(width, tmp_path):
    assert refused(Smooths(width), 11_000, tmp_path, memory=1_000_000)


@pytest.mark.parametrize("steps", [2, 3, 17, 18, 48])
def test_a_look_at_later_steps_is_seen_in_a_short_sequence(steps, tmp_path):
    class Centres(LooksBack):
        def forward(self, x):
            return self.gru(x - x.mean(0))

    with pytest.raises(UncuttableError, match="what it is given of /gru differs"):
        es.record(
            Centres(1).eval(), series(steps), store=tmp_path / "run.zarr", chunk=1, memory=100
        )


def test_what_looks_further_back_than_the_trial_is_long_is_not(tmp_path):
    assert not refused(LooksBack(520), 11_000, tmp_path)  # as the documentation says


def test_the_trial_is_long_where_sequence_and_memory_are():
    assert cutting._steps(10**6, 10**9, 100.0) == 512
    assert cutting._steps(None, 10**9, 100.0) == 512
    assert cutting._steps(4_000, 10**9, 100.0) == 200  # a twentieth of the sequence
    assert cutting._steps(10**6, 10**9, 10**6) == 125  # an eighth of the memory


def test_rounding_that_grows_in_a_chaotic_network_is_no_reason(tmp_path, monkeypatch):
    model, x = Chaotic().eval(), series(11_000)
    with torch.no_grad():  # it is chaotic: a difference of rounding grows to the size of states
        near, far = (model(torch.from_numpy(x[:300]) + e) for e in (0.0, 1e-7))
    grown = (near - far).abs().amax((1, 2))
    assert grown[0] < 1e-6
    assert grown[-100:].max() > 0.1
    right = es.record(model, x[:48])["rnn"].h
    store = tmp_path / "run.zarr"
    got = es.record(model, x, store=store, chunk=600, memory="2MB")["rnn"].h
    np.testing.assert_allclose(got[:, :10], right[:, :10], atol=1e-4)

    class Rounds(Chaotic):
        """Rounds otherwise when it is called on few steps."""

        def forward(self, x):
            return super().forward(x if len(x) == 512 else x + 1e-7)

    other = tmp_path / "rounds.zarr"
    assert es.record(Rounds().eval(), x, store=other, chunk=600, memory="2MB")["rnn"].h.size
    monkeypatch.setattr(cutting, "GROWTH", 0.0)  # the test would see it if it were one
    with pytest.raises(UncuttableError, match=r"run in pieces, h of /rnn differs"):
        es.record(Rounds().eval(), x, store=tmp_path / "no.zarr", chunk=600, memory="2MB")


@pytest.mark.parametrize("model", [nn.LSTM(D, U, 2), nn.GRU(D, U), nn.RNN(D, U, bias=False)])
def test_a_bare_layer_needs_no_trial(model, tmp_path, monkeypatch):
    x = series(300)
    expected = es.record(model, x)
    monkeypatch.setattr(cutting, "tried", None)
    got = es.record(model, x, store=tmp_path / "run.zarr", chunk=64)
    for leaf in expected.leaves:
        for name in leaf.data_vars:
            np.testing.assert_allclose(got[leaf.path][name], leaf[name], rtol=1e-5, atol=1e-5)


def test_what_a_step_takes_is_known_of_a_bare_layer():
    stack = nn.LSTM(D, U, 2)  # 4 gates, 2 states; what is given: D and U numbers
    assert stream(stack).sure(series(1)) == 4 * 2 * ((D + 6 * U) + (U + 6 * U))
    projected = nn.LSTM(D, U, proj_size=4).double()
    assert stream(projected).sure(series(1)) == 8 * 2 * (D + 6 * U)  # h, of 4, taken as wide as c


def test_what_is_not_sure_is_tried():
    def hooked(stack: nn.RNNBase) -> nn.RNNBase:
        stack.register_forward_hook(lambda module, args, output: output)
        return stack

    def patched(stack: nn.RNNBase) -> nn.RNNBase:
        stack.forward = stack.forward
        return stack

    class Own(nn.LSTM):
        pass

    for model in [
        nn.LSTM(D, U, bidirectional=True),
        nn.GRU(D, U, 2, dropout=0.5).train(),
        nn.utils.parametrizations.spectral_norm(nn.GRU(D, U), "weight_hh_l0"),
        hooked(nn.LSTM(D, U)),
        patched(nn.LSTM(D, U)),
        Own(D, U),
        nn.Sequential(nn.LSTM(D, U)),
        nn.LSTMCell(D, U),
    ]:
        assert stream(model).sure(series(1)) is None
    assert stream(nn.GRU(D, U, 2, dropout=0.5).eval()).sure(series(1))
    with pytest.raises(InputError, match="time is axis 0 of the input"):  # not cut along time
        stream(nn.GRU(D, U)).sure(series(2)[:, :1])


def test_another_axis_than_time_is_told(tmp_path):
    x = series(50).repeat(20, axis=1)  # 40 rows, as many in each chunk, so that states would fit
    inside, bare = nn.Sequential(nn.LSTM(D, U)), nn.LSTM(D, U, batch_first=True)
    with pytest.raises(UncuttableError, match="the chunks are not cut along its time"):
        es.record(inside, x, store=tmp_path / "run.zarr", chunk=20, time_axis=1, memory=1000)
    with pytest.raises(InputError, match=r"batch_first=True reads .* time is axis 1 of the input"):
        es.record(bare, x, store=tmp_path / "run.zarr", time_axis=0)


def test_what_is_odd_is_told_once(tmp_path, recwarn):
    x = series(4000)
    x[3] = np.nan
    es.record(nn.Sequential(nn.Identity(), nn.GRU(D, U)), x, store=tmp_path / "run.zarr")
    assert ["NaN or infinite" in str(each.message) for each in recwarn.list] == [True]


class Scaled(nn.LSTM):
    """Puts out something else than an LSTM does, so that no replay matches it."""

    def forward(self, x, hx=None):
        output, state = super().forward(x, hx)
        return 1.1 * output, state


@pytest.mark.parametrize("own_step", [False, True])
def test_what_is_recorded_without_a_replay_is_tried_without_one(own_step, tmp_path):
    torch.manual_seed(3)
    model, x = nn.Sequential(Scaled(3, 4)), torch.randn(300, 2, 3)
    select = es.Select(variables="h")
    options = {"store": tmp_path / "run.zarr", "chunk": 100, "time_axis": 0}
    if own_step:
        options["step"] = torch.no_grad()(lambda x, state: model[0](torch.as_tensor(x), state))
    with pytest.raises(ReplayMismatchError):
        es.record(model, x, **options)
    got = es.record(model, x, select=select, overwrite=True, **options)
    whole = es.record(model, x, select=select)
    np.testing.assert_allclose(got["0"].h, whole["0"].h, rtol=0, atol=1e-6)
