"""The demo: its states against PyTorch, every sentence it prints against the numbers."""

from pathlib import Path

import numpy as np
import pytest

from everystate.demo.autoencoder import Autoencoder
from everystate.demo.run import hold, spread
from everystate.demo.screen import span
from everystate.demo.series import FIT, NORMAL_STEPS, WEIGHTS, load_series
from everystate.testing import importorskip


@pytest.fixture(scope="module")
def tensors():
    importorskip("torch")
    from safetensors.torch import load_file

    return load_file(WEIGHTS)


def by_torch(tensors, gates=(0, 1, 2, 3)):
    """Return h and c of every step from a loop over PyTorch's cell, gates permuted if asked for."""
    import torch

    units = tensors["encoder.weight_hh_l0"].shape[1]
    cell = torch.nn.LSTMCell(1, units)
    cell.load_state_dict(
        {
            name: torch.cat([tensors[f"encoder.{name}_l0"].split(units)[k] for k in gates])
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        }
    )
    x = (torch.from_numpy(load_series("TEST").values) - tensors["mean"]) / tensors["std"]
    state, steps = None, []
    with torch.no_grad():
        for x_t in x:
            state = cell(x_t.reshape(1, 1), state)
            steps.append(torch.cat(state))
    return torch.stack(steps).numpy().swapaxes(0, 1)


def scaled_error(ours, theirs):
    return float((np.abs(ours - theirs) / (1.0 + np.abs(theirs))).max())


def test_every_state_of_the_long_pass_is_pytorchs(found, tensors):
    layer = found.trace["encoder"]
    h, c = by_torch(tensors)
    assert layer.c.shape == (1, 7501, 64)
    assert scaled_error(layer.h.values[0], h) <= 1e-4
    assert scaled_error(layer.c.values[0], c) <= 1e-4
    # The comparison notices two gates exchanged.
    h, c = by_torch(tensors, gates=(1, 0, 2, 3))
    assert scaled_error(layer.h.values[0], h) > 0.1
    assert scaled_error(layer.c.values[0], c) > 0.1


def test_the_gates_make_the_states(found):
    v = {name: found.trace["encoder"][name].values[0] for name in "hcifgo"}
    before = np.concatenate([np.zeros((1, 64), np.float32), v["c"][:-1]])
    assert scaled_error(v["f"] * before + v["i"] * v["g"], v["c"]) <= 1e-5
    assert scaled_error(v["o"] * np.tanh(v["c"]), v["h"]) <= 1e-5


def test_the_wired_stacks_are_the_trained_model(tensors, example):
    import torch

    theirs = example("train_demo").Autoencoder(0.0, 1.0)
    theirs.load_state_dict(tensors)
    model = Autoencoder()
    windows = model.cut(model.scale(load_series("TRAIN").values), np.array([184, 500, 1200]))
    with torch.no_grad():
        expected = theirs(torch.from_numpy(windows)).numpy()
    ours = model.decode(model.encode(windows))
    assert ours.shape == (3, 184, 1)
    assert scaled_error(ours, expected) <= 1e-4
    assert scaled_error(ours[:, ::-1], expected) > 0.1


def test_scale_and_cut():
    model = Autoencoder()
    values = load_series("TRAIN").values
    sequence = model.scale(values)
    assert sequence.shape == (1, 1200, 1)
    assert sequence[0, FIT, 0].mean() == pytest.approx(0.0, abs=1e-4)
    assert sequence[0, FIT, 0].std() == pytest.approx(1.0, abs=1e-4)
    windows = model.cut(sequence, np.array([184, 200]))
    assert np.array_equal(windows[0], sequence[0, :184])
    assert np.array_equal(windows[1], sequence[0, 16:200])


# What the demo says is seen.


def test_the_memory_counts_on_beyond_the_trained_window(found):
    first, normal, rest = found.stretches
    assert [s.steps for s in found.stretches] == [(0, 184), (184, NORMAL_STEPS), (1200, 7501)]
    assert first.units_outside == 0
    assert first.largest_c < 50 < 900 < normal.largest_c < 5000 < rest.largest_c
    assert first.carried_error == pytest.approx(first.restarted_error, rel=1e-3)
    # Standardised, the mean of the series has an error of about 1.
    assert found.trace["encoder"].inputs.values.var() == pytest.approx(1.0, abs=0.05)
    for stretch in (normal, rest):
        assert stretch.carried_error > 1.0
        assert stretch.restarted_error < 0.02


def test_the_forget_gate_explains_the_growth(found):
    counter = found.counter
    layer = found.trace["encoder"].isel(batch=0, unit=counter.unit)
    assert float(abs(layer.c[-1])) == found.stretches[-1].largest_c
    assert counter.last_forgot < found.window
    assert float(layer.f[counter.last_forgot]) < 0.9
    assert float(layer.f[counter.last_forgot + 1 :].min()) >= 0.9
    assert counter.least_forget > 0.9999
    assert counter.growth == pytest.approx(
        np.polyfit(range(1200, 7501), layer.c[1200:], 1)[0], 0.05
    )


def test_c_is_out_of_range_to_the_end_which_says_nothing_of_the_anomaly(found):
    c = found.methods["c of the one pass"]
    [(start, stop)] = c.ranges(gap=1)
    assert NORMAL_STEPS <= start < 1400
    assert stop == 7501
    assert not found.event[0] <= c.peak < found.event[1]


def test_bounded_states_do_not_show_the_anomaly(found):
    assert found.methods["h of the one pass"].ranges(gap=1) == []
    after_each = found.methods["h and c after each window"]
    assert not after_each.within(found.event)
    assert after_each.raised.any()


def test_the_reconstruction_error_is_in_alarm_at_the_label_only(found):
    error = found.methods["reconstruction error"]
    [(start, stop)] = error.ranges(found.window)
    assert start < found.series.labelled[1]
    assert stop > found.series.labelled[0]
    assert error.share(outside=found.event) == 0.0


def test_raw_windows_come_close(found):
    raw = found.methods["raw windows, no network"]
    assert found.event[0] <= raw.peak < found.event[1]
    assert 0.9 * raw.threshold < raw.score[raw.peak] <= raw.threshold


def test_marks_are_the_label_and_the_alarms_with_their_last_steps(found):
    assert found.marks() == {
        "labelled anomaly": [(4187, 4198)],
        "c out of its normal range": [(1350, 7500)],
        "reconstruction error out of its normal range": [(4198, 4217)],
    }


def test_the_documentation_shows_these_numbers(found):
    page = (Path(__file__).parents[2] / "docs" / "demo.md").read_text().replace("`", "")
    for s in found.stretches:
        errors = f"{s.carried_error:.3f} | {s.restarted_error:.3f} |"
        row = f"| {span(s.steps)} | {s.largest_c:,.0f} | {s.units_outside} of 64 | {errors}"
        assert row in page
    for name, alarms in found.methods.items():
        [row] = [line for line in page.splitlines() if line.startswith(f"| {name} |")]
        assert row.startswith(f"| {name} | {'yes' if alarms.within(found.event) else 'no'}")
        assert row.endswith(f"| {alarms.share(found.event) * 100:.1f} % | {alarms.peak:,} |")
    words = " ".join(page.split())
    unit, last = found.counter.unit, found.counter.last_forgot
    assert f"unit {unit} is below 0.9 for the last time at step {last}, and" in words
    assert f"so that c gains {found.counter.growth:.2f} at" in words
    raw = found.methods["raw windows, no network"]
    assert f"{raw.score[raw.peak] / raw.threshold * 100:.0f} % of the threshold" in words


def test_hold_keeps_the_score_of_the_latest_window():
    ends, score = np.array([3, 5, 6]), np.array([0.5, 2.0, -1.0])
    # Step t is the last of the window that ends before t + 1.
    assert hold(score, ends, size=8).tolist() == [0, 0, 0.5, 0.5, 2.0, -1.0, -1.0, -1.0]


def test_spread_agrees_with_a_loop():
    rng = np.random.default_rng(5)
    ends, errors = np.array([4, 7, 9]), rng.random((3, 4))
    seen = [[] for _ in range(11)]
    for end, row in zip(ends, errors, strict=True):
        for k, error in enumerate(row):
            seen[end - 4 + k].append(error)
    expected = [np.mean(values) if values else 0.0 for values in seen]
    assert spread(errors, ends, size=11) == pytest.approx(expected)
    assert spread(errors, ends + 1, size=11) != pytest.approx(expected)
