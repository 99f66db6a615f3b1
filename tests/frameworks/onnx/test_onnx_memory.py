"""What is kept of a trace holds its own memory, not all that the model's call had need of."""

import gc
import sys
from pathlib import Path

import pytest

from everystate.testing import importorskip

importorskip("onnx")
onnxruntime = importorskip("onnxruntime")

import everystate as es
import mutations
import onnx_models as models

T, B, D, H = 400, 32, 8, 64
KEPT = 25


def resident():
    """The process's memory in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def growth(run):
    """Return what `KEPT` results of a function add to the process's memory, in their own size."""
    run()
    gc.collect()
    before = resident()
    kept = [run() for _ in range(KEPT)]
    gc.collect()
    return (resident() - before) / sum(a.nbytes for a in kept)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_an_output_that_is_kept_holds_no_more_than_its_size():
    layer = models.node("lstm", sizes=(T, B, D, H), scale=0.05)
    model, feeds = models.model_of(layer), models.feeds_of(layer)
    alone = es.Select(variables="h")
    assert growth(lambda: es.record(model, feeds, select=alone).leaves[0].h) < 2.5

    def plain():  # the same with the arena, to see that it is noticed
        session = onnxruntime.InferenceSession(model.SerializeToString())
        return session.run(None, feeds)[0]

    with mutations.must_be_noticed("the arena"):
        assert growth(plain) < 2.5
