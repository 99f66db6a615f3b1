"""Steps that a layer skips: states carried over, no gate, all else as in a shorter row."""

from dataclasses import replace

import numpy as np
import pytest

import cases
import mutations
import oracles
from cases import T
from everystate.errors import ReplayMismatchError
from everystate.recording.join import worst
from everystate.recording.recorder import Recorder
from everystate.recording.replay import replay
from everystate.recording.selection import Select
from everystate.testing import importorskip
from observed import observed

pytestmark = pytest.mark.filterwarnings("error")

SKIPPED = np.zeros((T, 3), bool)
SKIPPED[[0, 1, 4], 0] = SKIPPED[2, 1] = True
LENGTHS = np.array([T, 5, T])


def expected(case, *, reverse=False, gates=None):
    """Return the oracle on each row without its skipped steps, put back where they belong."""
    names, found = list(case.initial), {}
    for row, length in enumerate(LENGTHS):
        steps = np.flatnonzero(~SKIPPED[:length, row])
        part = case.with_(
            x=case.x[steps, row : row + 1],
            initial={n: a[row : row + 1] for n, a in case.initial.items()},
        )
        values = part.expected(reverse=reverse, gates=gates).values
        state = {n: case.initial[n][row] for n in names}
        for t in range(length)[:: -1 if reverse else 1]:
            for n, a in values.items():
                kept = found.setdefault(n, np.full((T, len(LENGTHS), a.shape[-1]), np.nan))
                if not SKIPPED[t, row]:
                    kept[t, row] = a[list(steps).index(t), 0]
                    state = {**state, n: kept[t, row]} if n in state else state
                elif n in state:
                    kept[t, row] = state[n]
    return found


def made(family, reverse=False, **changes):
    case = cases.case(family)
    values = expected(case, reverse=reverse)
    ends = [0] * 3 if reverse else LENGTHS - 1
    given = {
        "observed": {"h": np.where(np.isnan(values["h"]), 77.0, values["h"])},
        "final": {n: values[n][ends, range(3)] for n in case.initial},
        "lengths": LENGTHS,
        "skipped": SKIPPED,
    }
    return case, replace(observed(case, reverse=reverse), **given | changes)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("family", ["lstm", "gru", "simple_rnn"])
def test_states_are_carried_over_and_gates_are_nan(family, reverse):
    case, layer = made(family, reverse)
    found = replay(layer, Select().plan(layer))
    oracles.assert_close(found.variables, expected(case, reverse=reverse))
    assert found.attrs["skipped_steps"] == 4
    for fault, wrong in mutations.of_gates(case.gates):
        with mutations.must_be_noticed(fault):
            values = expected(case, reverse=reverse, gates=wrong)
            oracles.assert_close(found.variables, values)


@pytest.mark.parametrize("reverse", [False, True])
def test_a_selection_is_a_part_of_the_whole(reverse):
    case, layer = made("lstm", reverse)
    select = Select(variables=("c", "f"), units=[3, 0], every=2, window=(1, None))
    found = replay(layer, select.plan(layer)).variables
    whole = expected(case, reverse=reverse)
    oracles.assert_close(found, {n: whole[n][1::2, :, [3, 0]] for n in ("c", "f")})


def test_a_mismatch_names_the_step_in_time():
    for reverse, step in ((False, 3), (True, 5)):
        _, layer = made("gru", reverse)
        h = layer.observed["h"].copy()
        h[step, 0] += 0.1
        wrong = replace(layer, observed={"h": h})
        with pytest.raises(ReplayMismatchError, match=rf"first at step {step} \(row 0"):
            replay(wrong, Select().plan(wrong))


def test_gates_of_skipped_steps_are_no_cause_to_warn_and_are_counted():
    recorder = Recorder("model", "keras", Select())
    for _ in range(2):
        recorder.observe(made("gru")[1])
    leaf = recorder.trace["encoder/rnn"]
    assert leaf.attrs["skipped_steps"] == 8
    assert np.isnan(leaf.z.values[0, 0]).all()
    assert worst([{}, {"skipped_steps": 3}])["skipped_steps"] == 3


def test_torchs_arrays_are_skipped_alike():
    torch = importorskip("torch")
    case, layer = made("lstm")
    given = observed(case, asarray=torch.tensor)
    h = torch.tensor(layer.observed["h"])
    final = {n: torch.tensor(a) for n, a in layer.final.items()}
    layer = replace(given, observed={"h": h}, final=final, lengths=LENGTHS, skipped=SKIPPED)
    oracles.assert_close(replay(layer, Select().plan(layer)).variables, expected(case))
