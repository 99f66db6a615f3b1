"""The explorer in a real Chromium, served by the command line: one walk through all of it."""

import contextlib
import re
import socket
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

import everystate as es
from everystate.testing import importorskip

for name in ("panel", "holoviews", "datashader", "scipy"):
    importorskip(name)

FIGURES = "[...Bokeh.index.all_views()].filter(v => v.model.type == 'Figure')"
SHOWN = f"{FIGURES}.filter(v => v.el.getBoundingClientRect().width > 0)"
RANGES = f"() => {SHOWN}.map(v => [v.model.x_range.start, v.model.x_range.end])"
BOX = f"""() => {{
    const view = {SHOWN}.find(v => v.model.title.text.includes('every unit'))
    const {{x, y}} = view.el.getBoundingClientRect(), {{bbox}} = view.frame
    return [x + bbox.left, y + bbox.top, bbox.width, bbox.height]
}}"""
PATIENCE = 60_000
"""Milliseconds: a busy machine draws slowly."""


@pytest.fixture(scope="module")
def layers(make_layer):
    return {"dec": make_layer("GRU", steps=6_000), "enc": make_layer("LSTM", steps=6_000, units=9)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("explorer")


@pytest.fixture(scope="module")
def address(layers, make_trace, make_layer, folder):
    """The explorer's address, while it runs."""
    other = {"enc": make_layer("LSTM", steps=6_000, units=9, seed=55)}
    es.save_trace(make_trace(layers), folder / "run.zarr")
    es.save_trace(make_trace(other), folder / "other.zarr")
    command = [sys.executable, "-m", "everystate.cli.main", "explore", str(folder / "run.zarr")]
    command += ["--compare", str(folder / "other.zarr"), "--follow", "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        line = server.stdout.readline()
        yield re.search(r"http://127\.0\.0\.1:\d+/", line)[0]
        server.terminate()


@pytest.fixture(scope="module")
def page(browser, address):
    context = browser.new_context(viewport={"width": 1280, "height": 1000}, accept_downloads=True)
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    page.wrong = []
    page.on("console", lambda m: note(page, m.type, m.text))
    page.on("pageerror", lambda error: page.wrong.append(f"error: {error}"))
    page.on("request", lambda request: note_request(page, request.url, address))
    for _ in range(600):
        with contextlib.suppress(Exception):
            page.goto(address)
            break
        page.wait_for_timeout(200)
    page.wait_for_function(f"() => window.Bokeh && {SHOWN}.length == 2")
    yield page
    context.close()


def note(page, kind, text):
    if kind in ("error", "warning") and "GL Driver Message" not in text:
        page.wrong.append(f"{kind}: {text}")


def note_request(page, url, address):
    if not url.startswith((address, address.replace("http", "ws"), "data:", "blob:")):
        page.wrong.append(f"request: {url}")


def test_a_walk_through_the_explorer(page, layers):
    assert page.evaluate(RANGES) == [[-0.5, 5_999.5]] * 2

    # Buttons, by keyboard.
    page.get_by_role("button", name="Zoom in", exact=True).press("Enter")
    page.wait_for_function(f"() => ({RANGES})().every(([start]) => start == 1499.5)")

    # Another layer is shown whole.
    page.get_by_label("Layer").select_option("enc")
    page.wait_for_function(f"() => {SHOWN}.some(v => v.model.y_range.end == 8.5)")
    page.wait_for_function(f"() => ({RANGES})().every(([start]) => start == -0.5)")

    # The wheel zooms all pictures, and finer columns come.
    x, y, width, height = page.evaluate(BOX)
    page.mouse.move(x + width / 2, y + height / 2)
    page.mouse.wheel(0, -400)
    page.wait_for_function(f"() => ({RANGES})().every(([start]) => start > -0.5)")

    # A stretch is written, found again, and looked at.
    page.get_by_label("Selected stretch").fill("2000 : 2019")
    page.get_by_label("Selected stretch").press("Enter")
    page.get_by_text("Selected: 2000 to 2019, 20 steps.").wait_for()
    box = page.get_by_label("Selected stretch")
    box.fill("7000 : 8000")
    box.press("Enter")
    page.get_by_text("The record goes from 0 to 5999. Nothing is selected.").wait_for()
    box.fill("2000 : 2019")
    box.press("Enter")
    page.get_by_text("Selected: 2000 to 2019, 20 steps.").wait_for()
    page.get_by_role("button", name="Find similar stretches").click()
    page.get_by_text("10 stretches found").wait_for()
    options = page.get_by_label("Similar stretches").locator("option").all_inner_texts()
    assert options[1] == "2000 : 2019 (distance 0)"
    assert len(options) == 11
    page.get_by_label("Similar stretches").select_option(index=2)
    first = int(options[2].split(" : ")[0])
    page.get_by_text(f"Selected: {first} to {first + 19}, 20 steps.").wait_for()
    assert box.input_value() == f"{first} : {first + 19}"
    page.wait_for_function(f"() => ({RANGES})().every(([start, end]) => end - start == 58)")

    # A box selects.
    x, y, width, height = page.evaluate(BOX)
    page.mouse.move(x + 0.25 * width, y + height / 2)
    page.mouse.down()
    for part in (0.4, 0.5, 0.6, 0.75):
        page.mouse.move(x + part * width, y + height / 2)
    page.mouse.up()
    said = page.get_by_text(re.compile(r"Selected: .* (28|29|30) steps"))
    said.wait_for()
    assert box.input_value().replace(" : ", " to ") in said.inner_text()
    assert box.input_value() != f"{first} : {first + 19}"

    # Units are picked and sorted; the selection is exported, of the picked units.
    page.get_by_label("Picked units").select_option(["3", "7"])
    page.get_by_label("Order of the units").select_option("alike together")
    has_both = "m => ['3', '7'].every(unit => [...(m.data?.text ?? [])].includes(unit))"
    page.wait_for_function(f"() => [...Bokeh.documents[0].all_models].some({has_both})")
    with page.expect_download() as download:
        page.get_by_text("Export", exact=True).click()
    table = pd.read_csv(download.value.path(), index_col="time")
    assert download.value.suggested_filename == "selection.csv"
    assert list(table.columns)[:3] == ["h[3]", "h[7]", "c[3]"]
    expected = layers["enc"].c[0].sel(time=table.index.values, unit=7).values
    np.testing.assert_allclose(table["c[7]"], expected, rtol=1e-6)
    assert not np.allclose(table["c[3]"], expected, rtol=1e-6)

    # Another trace beside it.
    page.get_by_label("Beside it").select_option("the difference")
    said = "v => v.model.title.text.includes('this trace minus the other')"
    page.wait_for_function(f"() => {SHOWN}.length == 3 && {SHOWN}.some({said})")
    assert page.wrong == []


@pytest.mark.parametrize("width", [1280, 420])
def test_nothing_is_cut_off(page, width):
    page.set_viewport_size({"width": width, "height": 900})
    page.reload()
    page.wait_for_function(f"() => window.Bokeh && {SHOWN}.length == 2")
    page.wait_for_function(f"() => document.documentElement.scrollWidth <= {width}")
    sides = page.evaluate(f"() => {SHOWN}.map(v => v.el.getBoundingClientRect().right)")
    assert max(sides) <= width


def test_a_growing_trace_is_followed_until_one_unticks_the_box(
    page, folder, make_trace, make_layer
):
    page.reload()
    page.wait_for_function(f"() => window.Bokeh && {SHOWN}.length == 2")
    box = page.get_by_label("Follow the growing trace")
    assert box.is_checked()
    grown = {"dec": make_layer("GRU", steps=6_500)}
    es.save_trace(make_trace(grown), folder / "run.zarr", overwrite=True)
    page.get_by_text("6,500 steps so far.").wait_for()
    page.wait_for_function(f"() => ({RANGES})().every(([, end]) => end == 6499.5)")
    box.uncheck()
    page.wait_for_timeout(3_000)  # the server is told, and a look that had begun has ended
    grown = {"dec": make_layer("GRU", steps=7_000)}
    es.save_trace(make_trace(grown), folder / "run.zarr", overwrite=True)
    page.wait_for_timeout(5_000)
    assert page.get_by_text("7,000 steps so far.").count() == 0
    assert page.wrong == []


def test_it_listens_on_this_machine_and_to_its_own_pages_only(address):
    port = int(address.rstrip("/").rpartition(":")[2])
    others = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)}
    for other in others - {"127.0.0.1"}:
        with socket.socket() as probe:
            probe.settimeout(2)
            assert probe.connect_ex((other, port)) != 0
    assert handshake(port, f"http://127.0.0.1:{port}") == 101
    assert handshake(port, "http://evil.example") == 403


def handshake(port, origin):
    """The status that a websocket from a page of another origin gets."""
    request = (
        f"GET /ws HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\n"
        f"Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        f"Sec-WebSocket-Version: 13\r\nOrigin: {origin}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", port), timeout=60) as wire:
        wire.sendall(request.encode())
        return int(wire.recv(64).split()[1])
