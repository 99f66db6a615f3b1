"""Every script that is an example runs, and does what it says."""

import numpy as np
from safetensors.numpy import load_file

from everystate.demo.series import WEIGHTS


def test_every_example_has_a_test(examples):
    tested = {"record_pytorch.py", "train_demo.py"}
    assert {path.name for path in examples.glob("*.py")} == tested


def test_record_pytorch(run_example):
    printed = run_example("record_pytorch.py")
    assert "Group: /decoder/layer_1" in printed
    assert "selected: ['c', 'initial_h', 'initial_c'], {'batch': 3, 'time': 20" in printed
    assert "stream of 4 chunks: {'batch': 3, 'time': 200, 'unit': 16}" in printed
    assert "|d c_last / d x_t|" in printed


def test_train_demo_writes_what_the_demo_reads_and_the_same_again_by_the_seed(
    run_example, tmp_path
):
    for name, seed in (("a", "0"), ("b", "0"), ("c", "1")):
        file = f"{name}.safetensors"
        printed = run_example("train_demo.py", "--epochs", "1", "--seed", seed, "--output", file)
        assert file in printed
    a, b, c = (load_file(tmp_path / f"{name}.safetensors") for name in "abc")
    assert all(np.array_equal(a[name], b[name]) for name in a)
    assert not np.array_equal(a["encoder.weight_hh_l0"], c["encoder.weight_hh_l0"])
    shipped = load_file(WEIGHTS)
    assert {n: x.shape for n, x in a.items()} == {n: x.shape for n, x in shipped.items()}
    for fixed in ("mean", "std", "window"):
        assert a[fixed] == shipped[fixed]


def test_custom_cells(run_example):
    printed = run_example("custom_cells/minimal_gated_unit.py")
    assert (
        "recorded: ['h', 'f', 'initial_h', 'initial_f'], {'batch': 4, 'time': 50, 'uni" in printed
    )
    assert "unrolled alone, the same states: True" in printed
    assert "the mean gate falls with the gate's bias: True" in printed
    printed = run_example("custom_cells/leaky_integrator.py")
    assert "fast: 5 steps to 63 %, its time constant is 5" in printed
    assert "slow: 100 steps to 63 %, its time constant is 100" in printed
    assert "as a stream of 4 chunks, the same: True" in printed
    printed = run_example("custom_cells/nested_state.py")
    assert "mean: {'batch': 2, 'time': 40, 'mean_unit': 3}" in printed
    assert "gates and all: ['h', 'c', 'i', 'f', 'g', 'o'" in printed
    assert "the running mean ends at the mean: True" in printed
    assert "unrolled, the same h: True" in printed
