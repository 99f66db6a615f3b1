"""Tables on terminals, wide and narrow."""

import re

import pytest

from everystate.cli.output.document import print_table

HEAD = ("layer", "cell", "sizes")
PATHS = ("model/backbone/encoder/lstm/layer_0/forward", "model/backbone/encoder/lstm[0]")
ROWS = [(path, "LSTM", "batch 16, time 7501, unit 128") for path in PATHS]


@pytest.fixture
def printed(capsys, monkeypatch):
    """What is printed on a terminal of that width; None: on none."""

    def printed(width, *args, **options):
        if width is not None:
            monkeypatch.setattr("sys.stdout.isatty", lambda: True)
            monkeypatch.setenv("COLUMNS", str(width))
            monkeypatch.setenv("TERM", "xterm")
        print_table(*args, **options)
        plain = re.sub("\x1b\\[[0-9;]*m", "", capsys.readouterr().out)
        return [line.rstrip() for line in plain.splitlines()]

    return printed


@pytest.mark.parametrize("width", [None, 100])
def test_where_there_is_room(printed, width):
    head, *rows = printed(width, HEAD, ROWS)
    assert head.split() == ["layer", "cell", "sizes"]
    assert [row.split("  ")[0] for row in rows] == list(PATHS)


def test_where_there_is_none_rows_are_listed(printed):
    assert printed(60, HEAD, ROWS) == [
        PATHS[0],
        "  cell   LSTM",
        "  sizes  batch 16, time 7501, unit 128",
        PATHS[1],
        "  cell   LSTM",
        "  sizes  batch 16, time 7501, unit 128",
    ]


def test_a_name_longer_than_the_terminal_is_whole(printed):
    assert "".join(printed(20, ("layer",), [(path,) for path in PATHS])) == "".join(PATHS)


def test_rows_as_columns(printed):
    rows = [("a", "1", ""), ("b", "2", "33")]
    assert printed(100, ("", "steps", "units"), rows, across=True) == [
        "       a  b",
        "steps  1  2",
        "units     33",
    ]
    assert printed(11, ("", "steps", "units"), rows, across=True) == [
        "a",
        "  steps  1",
        "b",
        "  steps  2",
        "  units  33",
    ]
