"""The table of gate orders itself: complete, well formed, and true of what is in this package."""

import re

import pytest

import gate_orders
from everystate.cells import GRU, LSTM

ROWS = gate_orders.rows()


def ids(row):
    return f"{row['Framework']} {row['Layer']}"


@pytest.mark.parametrize("row", ROWS, ids=ids)
def test_every_row_uses_the_words_that_the_text_explains(row):
    gates = set(row["Gates"].split())
    assert gates in (set("ifgo"), set("rzn"), {"h"})
    assert row["Along"] in ("rows", "columns", "apart")
    assert row["Biases"] in ("both", "input", "recurrent", "input + n")
    assert row["State"] in (("h, c", "c, h") if "f" in gates else ("h",))
    assert row["Forget"] in (("0", "1") if "f" in gates else ("",))
    assert (row["Reset"] in ("before", "after")) == ("z" in gates)
    assert (row["z"] in ("keeps", "writes")) == ("z" in gates)


@pytest.mark.parametrize("row", ROWS, ids=ids)
def test_every_row_names_its_source_file_and_symbol(row):
    assert re.fullmatch(r"`[\w/]+\.(py|h|cc)` `[\w:.]+`", row["Source"])


def test_no_layer_has_two_rows():
    assert len({ids(row) for row in ROWS}) == len(ROWS)


def test_the_order_of_this_package_is_the_one_the_text_gives():
    text = gate_orders.README.read_text()
    assert f"LSTM `{' '.join(LSTM().gates)}`" in text
    assert re.search(rf"GRU\s+`{' '.join(GRU().gates)}`", text)


def test_the_table_of_peepholes_names_layers_of_the_large_one():
    layers = {ids(row) for row in ROWS}
    assert {ids(row) for row in gate_orders.rows("Framework | Layer | Peepholes")} <= layers
