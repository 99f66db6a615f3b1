"""Sequences that come in chunks: what an iterator may do between two of them."""

import numpy as np
import pytest

import everystate as es
from everystate.errors import InputError
from everystate.streaming.source import Source
from everystate.testing import importorskip

torch = importorskip("torch")


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
def test_a_chunk_may_be_overwritten_by_the_next(kind):
    x = np.random.default_rng(5).normal(size=(23, 2, 3)).astype(np.float32)

    def chunks():
        buffer = kind(np.empty((7, 2, 3), np.float32))
        for start in range(0, 23, 7):
            count = min(7, 23 - start)
            buffer[:count] = kind(x[start : start + count])
            yield buffer[:count]

    source = Source(chunks(), lambda a: 0)
    np.testing.assert_array_equal(source.peek(20), x[:20])
    parts = [source.take(5) for _ in range(5)]
    assert source.ended
    np.testing.assert_array_equal(np.concatenate(parts), x)


def test_an_iterator_without_chunks_is_told_of():
    with pytest.raises(InputError, match="the iterator has no chunk"):
        Source(iter([]), lambda a: 0)


def test_a_sequence_of_half_precision_that_numpy_lacks(tmp_path):
    torch.manual_seed(9)
    model = torch.nn.Sequential(torch.nn.Identity(), torch.nn.GRU(3, 4)).to(torch.bfloat16)
    x = torch.randn(150, 2, 3, dtype=torch.bfloat16)
    whole = es.record(model, x)["1"].h
    cut = es.record(model, x, store=tmp_path / "run.zarr", chunk=32, memory=1000)["1"].h
    np.testing.assert_array_equal(cut, whole)


def test_a_chunk_of_another_shape_is_told_of_with_its_number(tmp_path):
    chunks = [np.zeros((n, 2, k), np.float32) for n, k in [(60, 3), (9, 3), (30, 4)]]
    said = r"chunk 3 of the iterator has shape \(30, 2, 4\), and the one before \(9, 2, 3\)"
    with pytest.raises(InputError, match=said):
        es.record(torch.nn.LSTM(3, 4), iter(chunks), store=tmp_path / "run.zarr")
    got = es.record(torch.nn.LSTM(3, 4), iter(chunks[:2]), store=tmp_path / "two.zarr")
    assert got["lstm"].sizes["time"] == 69
