"""Reductions of each n-th step: what a recording hands over is what a reducer sees."""

import numpy as np

import everystate as es
from everystate.analysis.reducers import Autocorrelation, Moments, TopSteps, reduced
from everystate.testing import importorskip

torch = importorskip("torch")


def test_each_third_step_in_chunks():
    torch.manual_seed(0)
    lstm = torch.nn.LSTM(3, 4, batch_first=True)
    x = torch.randn(2, 500, 3)
    select = es.Select(every=3, window=(2, None), variables="c")
    kinds = {"moments": Moments, "top": TopSteps(3, 2), "lags": Autocorrelation((1, 4))}
    found = es.record(lstm, x, reduce=kinds, select=select, chunk=64)
    c = es.record(lstm, x, select=select)["lstm"].c
    moments, top, lags = reduced(c, Moments(), TopSteps(3, 2), Autocorrelation((1, 4)))
    for name in ("count", "mean", "std", "skewness"):
        np.testing.assert_allclose(found[f"lstm/c/moments/{name}"], moments[name], rtol=1e-5)
    pairs = found["lstm/c/lags"].to_dataset()
    np.testing.assert_allclose(pairs.autocorrelation, lags.autocorrelation, atol=1e-5)
    steps = found["lstm/c/top"].step.values
    assert steps.tolist() == (2 + 3 * top.step.values).tolist()
    assert (steps % 3 == 2).all()
