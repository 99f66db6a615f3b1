"""The demo's data: what is shipped is what was published, and nothing labelled is fitted on."""

import hashlib

import numpy as np
import pytest

from everystate.demo.series import DATA, FIT, HELD_OUT, NAME, NORMAL_STEPS, WEIGHTS, load_series

# Of the files in aeon 1.6.0.
PUBLISHED = {
    "TRAIN": "a531b6f4f556b17c0321d144c3f6b4a7bdf5e8464b2218566181702e77962c2b",
    "TEST": "fe26577b94896943e8205d04d56bf2511fe05c008df535a1ec3826adff3597e2",
}


@pytest.mark.parametrize("part", PUBLISHED)
def test_the_series_is_byte_for_byte_the_published_one(part):
    content = (DATA / f"{NAME}_{part}.csv").read_bytes()
    assert hashlib.sha256(content).hexdigest() == PUBLISHED[part]


def test_nothing_that_is_fitted_or_sets_a_threshold_is_labelled():
    normal, whole = load_series("TRAIN"), load_series("TEST")
    assert normal.labelled is None
    assert np.array_equal(whole.values[:NORMAL_STEPS], normal.values)
    assert (FIT.stop, HELD_OUT.stop) == (HELD_OUT.start, NORMAL_STEPS)
    assert whole.labelled == (4187, 4199)
    assert normal.values.dtype == np.float32


def test_weights_and_licence_are_shipped():
    assert WEIGHTS.stat().st_size < 1_000_000
    licence = (DATA / "LICENSE.aeon").read_text()
    assert licence.startswith("BSD 3-Clause License")
    attribution = (DATA / "README.md").read_text()
    for named in (NAME, "Wu", "Keogh", "aeon", "LICENSE.aeon", WEIGHTS.name):
        assert named in attribution
