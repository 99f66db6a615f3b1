"""Traces made by hand, and a real browser to open reports in."""

from contextlib import contextmanager

import numpy as np
import pytest
import xarray as xr

from everystate import schema
from everystate.testing import importorskip

GATES = {"LSTM": "ifgo", "GRU": "rzn", "SimpleRNN": ""}
BROWSER = (
    *("--no-sandbox", "--disable-gpu", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
)


def layer_of(cell="LSTM", rows=2, steps=60, units=7, features=0, seed=3, **coords):
    """One layer of seeded values, each size another."""
    rng = np.random.default_rng(seed)
    names = {"LSTM": "hc", "GRU": "h", "SimpleRNN": "h"}[cell] + GATES[cell]
    data = {}
    for name in names:
        values = rng.normal(scale=0.5, size=(rows, steps, units)).cumsum(axis=1) / 5
        if name in "ifogrzn":
            values = np.tanh(values) if name in "gn" else 1 / (1 + np.exp(-values))
        origin = "observed" if name == "h" else "replayed"
        attrs = {"long_name": schema.LONG_NAMES[name], "units": "1", "origin": origin}
        data[name] = (("batch", "time", "unit"), values.astype(np.float32), attrs)
    if features:
        values = rng.normal(size=(rows, steps, features)).astype(np.float32)
        data["inputs"] = (("batch", "time", "feature"), values, {"long_name": "input of the layer"})
        coords.setdefault("feature", np.arange(features))
    sizes = {"batch": rows, "time": steps, "unit": units}
    coords = {**{dim: np.arange(size) for dim, size in sizes.items()}, **coords}
    attrs = {"cell": cell, "direction": "forward", "max_error_h": 2e-7, "tolerance": 1e-4}
    return xr.Dataset(data, coords, attrs)


def trace_of(leaves, **attrs):
    """A trace of schema 1 with these leaves."""
    root = xr.Dataset(attrs={"everystate_schema": 1, "complete": 1, "model": "Net", **attrs})
    return xr.DataTree.from_dict({"/": root, **{f"/{path}": leaf for path, leaf in leaves.items()}})


@pytest.fixture(scope="session")
def make_layer():
    return layer_of


@pytest.fixture(scope="session")
def make_trace():
    return trace_of


@pytest.fixture(scope="session")
def browser(chromium):
    playwright = importorskip("playwright.sync_api")
    with playwright.sync_playwright() as p:
        launched = p.chromium.launch(executable_path=chromium, args=list(BROWSER))
        yield launched
        launched.close()


@pytest.fixture
def opened(browser):
    """Open a file in a fresh page; yields the page and what went wrong in it."""

    @contextmanager
    def open_file(path, ready="window.Bokeh && Bokeh.documents[0]?.is_idle"):
        context = browser.new_context(viewport={"width": 1400, "height": 900})
        page, wrong = context.new_page(), []
        page.on("console", lambda m: _note(wrong, m.type, m.text))
        page.on("pageerror", lambda error: wrong.append(f"error: {error}"))
        page.on("request", lambda request: _note_request(wrong, request.url))
        page.goto(path.as_uri())
        if ready:
            page.wait_for_function(ready, timeout=30_000)
        yield page, wrong
        context.close()

    return open_file


def _note(wrong, kind, text):
    if kind in ("error", "warning"):
        wrong.append(f"{kind}: {text}")


def _note_request(wrong, url):
    if not url.startswith(("file:", "data:", "blob:")):
        wrong.append(f"request: {url}")
