"""Recording on the NumPy path: which stack, what is kept, wiring several, progress, unroll."""

import subprocess
import sys
import tracemalloc

import numpy as np
import pytest

import everystate as es
import oracles
from everystate.errors import (
    AmbiguousLayerError,
    InputError,
    NothingRecordedError,
    SelectionError,
    UnknownLayerError,
)
from everystate.frameworks.numpy import load

T, B, D, U = 7, 3, 4, 5


@pytest.fixture
def both(write, model):
    """Path of an encoder, a decoder that reads two features, and a head."""
    encoder = model("lstm", layers=2).tensors
    decoder = model("lstm", seed=1).tensors
    decoder["weight_ih_l0"] = decoder["weight_ih_l0"][:, :2]
    tensors = {f"encoder.{n}": a for n, a in encoder.items()}
    tensors |= {f"decoder.{n}": a for n, a in decoder.items()}
    return write({**tensors, "head.weight": np.ones((2, U))})


def test_several_stacks_must_be_chosen_from(both):
    with pytest.raises(AmbiguousLayerError) as caught:
        es.record(both, np.zeros((T, D)))
    message = str(caught.value)
    assert "encoder (LSTM(4, 5, num_layers=2))" in message
    assert "decoder (LSTM(2, 5))" in message
    assert "--layers encoder." in message
    assert "load()" in message


def test_the_stack_that_fits_the_data_is_suggested(both):
    with pytest.raises(AmbiguousLayerError, match=r"select=es\.Select\(layers='encoder'\)"):
        es.record(both, np.zeros((T, 4)))
    with pytest.raises(AmbiguousLayerError, match=r"select=es\.Select\(layers='decoder'\)"):
        es.record(both, np.zeros((T, 2)))


@pytest.mark.parametrize("layers", ["encoder", "enc*", "encoder.layer_1"])
def test_a_pattern_chooses_the_stack(both, layers, rng):
    trace = es.record(both, rng.normal(size=(T, D)), select=es.Select(layers=layers))
    expected = ["/encoder/layer_0", "/encoder/layer_1"]
    assert [leaf.path for leaf in trace.leaves] == expected["layer_1" in layers :]


def test_a_pattern_that_matches_nothing(both):
    message = "'encodr'; the model has: decoder, encoder/layer_0, encoder/layer_1"
    with pytest.raises(UnknownLayerError, match=message):
        es.record(both, np.zeros((T, D)), select=es.Select(layers="encodr"))


def test_a_decoder_goes_on_from_the_encoder(both, rng):
    stacks = load(both)
    x = rng.normal(size=(B, T, D))
    with es.recording(stacks) as rec:
        _, (h, c) = stacks["encoder"](x)
        outputs, _ = stacks["decoder"](np.ones((B, 4, 2)), (h[-1:], c[-1:]))
    trace = rec.trace
    assert {leaf.path for leaf in trace.leaves} == {
        "/encoder/layer_0",
        "/encoder/layer_1",
        "/decoder",
    }
    end = trace["encoder/layer_1"].isel(time=-1)
    assert np.array_equal(trace["decoder"].initial_h, end.h)
    assert np.array_equal(trace["decoder"].initial_c, end.c)
    assert np.array_equal(trace["decoder"].h, outputs)
    assert not any(stack.watchers for stack in stacks.values())


def test_a_decoder_called_step_by_step_is_one_sequence(both, rng):
    stacks = load(both)
    x = rng.normal(size=(B, 6, 2))
    with es.recording(stacks) as rec:
        _, state = stacks["encoder"](rng.normal(size=(B, T, D)))
        state = tuple(s[-1:] for s in state)
        for t in range(6):
            _, state = stacks["decoder"](x[:, t : t + 1], state)
    whole = es.record(
        stacks["decoder"], x, tuple(np.stack([rec.trace["decoder"][f"initial_{n}"]]) for n in "hc")
    )
    assert rec.trace["decoder"].h.sizes == {"batch": B, "time": 6, "unit": U}
    for name in "hcifgo":
        np.testing.assert_allclose(rec.trace["decoder"][name], whole["decoder"][name], atol=1e-12)


def test_calls_that_start_afresh_are_further_rows(both, rng):
    stack = load(both)["decoder"]
    x = rng.normal(size=(2, B, T, 2))
    with es.recording(stack) as rec:
        for part in x:
            stack(part)
    together = es.record(stack, x.reshape(2 * B, T, 2))
    np.testing.assert_allclose(rec.trace["decoder"].c, together["decoder"].c, atol=1e-12)


def test_a_second_pass_of_encoder_and_decoder_is_further_rows(both, rng):
    stacks = load(both)
    with es.recording(stacks) as rec:
        for _ in range(2):
            _, state = stacks["encoder"](rng.normal(size=(B, T, D)))
            state = tuple(s[-1:] for s in state)
            for _ in range(3):
                _, state = stacks["decoder"](np.ones((B, 2, 2)), state)
    assert rec.trace["encoder/layer_0"].h.sizes == {"batch": 2 * B, "time": T, "unit": U}
    assert rec.trace["decoder"].h.sizes == {"batch": 2 * B, "time": 6, "unit": U}


def test_a_stream_in_chunks(both, rng):
    stack = load(both)["decoder"]
    x = rng.normal(size=(B, 9, 2))
    with es.recording(stack, along="time") as rec:
        state = None
        for chunk in np.split(x, [4, 5], axis=1):
            _, state = stack(chunk, state)
    whole = es.record(stack, x)
    for name in "hcifgo":
        np.testing.assert_allclose(rec.trace["decoder"][name], whole["decoder"][name], atol=1e-12)


def test_stacks_are_released_after_an_exception(both):
    stacks = load(both)
    with pytest.raises(InputError), es.recording(stacks):
        stacks["encoder"](np.zeros((T, D + 1)))
    assert not stacks["encoder"].watchers


def test_nested_recordings_see_the_same(both, rng):
    stack = load(both)["decoder"]
    select = es.Select(variables="c", window=(2, 4))
    with es.recording(stack) as outer, es.recording(stack, select=select) as inner:
        stack(rng.normal(size=(B, T, 2)))
    assert list(inner.trace["decoder"].data_vars) == ["c", "initial_h", "initial_c"]
    np.testing.assert_allclose(
        inner.trace["decoder"].c, outer.trace["decoder"].c[:, 2:4], atol=1e-12
    )


@pytest.mark.parametrize(
    "select",
    [
        {"variables": ("h", "f", "r", "inputs")},
        {"every": 3},
        {"window": (2, 6)},
        {"window": (-4, None), "every": 2},
        {"units": [3, 0], "window": (1, 5)},
        {"units": slice(1, 4), "variables": ("gates", "h")},
    ],
    ids=str,
)
@pytest.mark.parametrize("lengths", [None, [7, 2, 5]])
@pytest.mark.parametrize("family", ["lstm", "gru", "rnn"])
def test_a_selection_is_a_part_of_the_whole(write, model, rng, family, select, lengths):
    stack = load(write(model(family, layers=2, ways=2).tensors))[family]
    x = rng.normal(size=(B, T, D))
    with es.recording(stack) as everything:
        stack(x, None, lengths)
    chosen = es.Select(**select)
    with es.recording(stack, select=chosen) as rec:
        stack(x, None, lengths)
    for leaf in rec.trace.leaves:
        whole = everything.trace[leaf.path]
        for name, array in leaf.data_vars.items():
            if name == "inputs":
                continue
            part = whole[name].sel(unit=array.unit)
            part = part.sel(time=array.time) if "time" in array.dims else part
            np.testing.assert_allclose(array, part, atol=1e-12)


def test_one_variable_alone(write, model, rng):
    stack = load(write(model("lstm").tensors))["lstm"]
    x = rng.normal(size=(B, T, D))
    for name in "cfo":
        alone = es.record(stack, x, select=es.Select(variables=name))["lstm"]
        assert list(alone.data_vars) == [name, "initial_h", "initial_c"]
        np.testing.assert_array_equal(alone[name], es.record(stack, x)["lstm"][name])


def test_what_is_stepped_is_observed_and_what_is_verified_is_said(write, model, rng):
    path = write(model("lstm").tensors)
    layer = es.record(path, rng.normal(size=(T, D)))["lstm"]
    assert {a.attrs["origin"] for a in layer.data_vars.values()} == {"observed"}
    assert layer.attrs["max_error_h"] <= layer.attrs["tolerance"] == 1e-10
    strided = es.record(path, rng.normal(size=(T, D)), select=es.Select(every=2))["lstm"]
    assert strided.c.attrs["origin"] == "replayed"
    assert strided.attrs["max_error_h"] <= strided.attrs["tolerance"]


@pytest.mark.parametrize("select", [{"variables": "cc"}, {"units": 9}, {"window": (20, 30)}])
def test_a_selection_that_cannot_be_is_refused_before_the_first_step(both, select):
    def progress(done, total):
        pytest.fail("it was run")

    with pytest.raises(SelectionError):
        es.record(
            both,
            np.zeros((T, D)),
            select=es.Select(layers="encoder", **select),
            progress=progress,
        )


def test_progress_counts_the_steps_of_all_layers(write, model):
    told = []
    path = write(model("lstm", layers=2, ways=2).tensors)
    x = np.zeros((10, 3_000, D))
    es.record(path, x, select=es.Select(variables="h"), progress=lambda *a: told.append(a))
    assert {total for _, total in told} == {4 * 3_000}
    done = [d for d, _ in told]
    assert done == sorted(done)
    assert done[-1] == 4 * 3_000
    assert len(done) > 8


@pytest.mark.parametrize(
    "select",
    [{"variables": ("h",)}, {"every": 100}, {"window": (0, 50)}],
    ids=["h", "every 100", "window"],
)
def test_what_is_not_selected_takes_no_memory(write, rng, select):
    rows, units, steps = 10, 32, 2_000
    tensors = {"weight_ih_l0": rng.normal(size=(4 * units, 1)) / 9}
    tensors["weight_hh_l0"] = rng.normal(size=(4 * units, units)) / 9
    stack = load(write(tensors, dtype="float32"))["lstm"]
    one_variable = rows * units * steps * 4
    x = np.zeros((rows, steps, 1), np.float32)
    tracemalloc.start()
    try:
        with es.recording(stack, select=es.Select(**select)):
            stack(x)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # The outputs, and one recorded copy at most, and blocks of a few MiB.
    assert peak < 2 * one_variable + 8 * 2**20
    assert peak < 6 * one_variable


def test_unroll_gives_every_state_in_the_layout_of_the_input(write, model, rng):
    m = model("lstm", layers=2, ways=2)
    path = write(m.tensors)
    x, state = rng.normal(size=(T, B, D)), m.state(rng)
    lengths = [7, 2, 5]
    expected = m.expected(x, state, lengths=lengths)
    for batch_first in (True, False):
        stack = load(path, batch_first=batch_first)["lstm"]
        out = es.unroll(stack, x.swapaxes(0, 1) if batch_first else x, state, lengths)
        assert list(out.states) == list(expected)
        for place, one in expected.items():
            ours = out.states[place]
            ours = {n: ours[n].swapaxes(0, 1) if batch_first else ours[n] for n in one.values}
            padded = {name: np.nan_to_num(a) for name, a in one.values.items()}
            oracles.assert_close(ours, padded)
        assert np.array_equal(out.states["layer_1/backward"].initial_c, state[1][3])
        assert out.lengths.tolist() == lengths
        assert np.array_equal(
            out.outputs, stack(x.swapaxes(0, 1) if batch_first else x, state, lengths)[0]
        )


def test_unroll_of_one_layer_and_one_sequence(write, model, rng):
    stack = load(write(model("gru").tensors, "a."))["a"]
    out = es.unroll(stack, rng.normal(size=(T, D)))
    assert out.states.z.shape == (T, U)
    assert out.states.initial_h.shape == (U,)
    assert np.array_equal(out.outputs, out.states.h)
    assert np.array_equal(out.final_state[0], out.states.h[-1])
    assert not stack.watchers


def test_no_framework_is_loaded(both):
    code = (
        "import sys, numpy as np, everystate as es\n"
        f"es.record({str(both)!r}, np.zeros((5, 2)), select=es.Select(layers='decoder'))\n"
        "print([m for m in ('torch', 'jax', 'tensorflow') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_run_calls_a_file_as_the_stack_itself_is_called(write, model, rng):
    path = write(model("lstm").tensors)
    x = rng.normal(size=(B, T, D))
    with es.recording(path, along="time") as recorder:
        state, outputs = None, []
        for chunk in np.split(x, [2, 3], axis=1):
            y, state = recorder.run(chunk, state)
            outputs.append(y)
    whole, _ = next(iter(load(path).values()))(x)
    np.testing.assert_allclose(np.concatenate(outputs, axis=1), whole, rtol=1e-12)
    np.testing.assert_allclose(recorder.trace["lstm"].h.values, whole, rtol=1e-12)
    with pytest.raises(NothingRecordedError, match="the block is over"):
        recorder.run(x)
