"""The progress bar: on a terminal, for what takes its time, and gone afterwards."""

import io
import sys
import threading
import time
from contextlib import redirect_stderr, redirect_stdout

import pytest

from everystate.cli.output import progress as module
from everystate.cli.output.progress import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    return Terminal()


def wait_for(terminal, text):
    give_up = time.monotonic() + 60
    while text not in terminal.getvalue():
        assert time.monotonic() < give_up, f"{text!r} was not shown: {terminal.getvalue()!r}"
        time.sleep(0.01)


def test_a_bar_for_what_takes_long(terminal, monkeypatch, capsys):
    monkeypatch.setattr(module, "PATIENCE", 0.01)
    with redirect_stderr(terminal), progress("recording") as tick:
        wait_for(terminal, "recording")  # before anything is known
        tick(30, 120)
    assert capsys.readouterr().out == ""


def test_no_bar_for_what_is_done_at_once(terminal, monkeypatch):
    monkeypatch.setattr(module, "PATIENCE", 3600.0)
    with redirect_stderr(terminal), progress("recording") as tick:
        tick(30, 120)
    assert terminal.getvalue() == ""


def test_no_bar_without_a_terminal(monkeypatch):
    shown = io.StringIO()
    monkeypatch.setattr(module, "PATIENCE", 0.0)
    with redirect_stderr(shown), progress("recording") as tick:
        tick(30, 120)
        time.sleep(0.05)
    assert shown.getvalue() == ""


@pytest.mark.parametrize("patience", [0.0, 0.01, 3600.0])
def test_nothing_is_left_behind(terminal, monkeypatch, patience):
    monkeypatch.setattr(module, "PATIENCE", patience)
    before, streams = threading.active_count(), (sys.stdout, sys.stderr)

    def fail():
        with redirect_stderr(terminal), progress("recording"), redirect_stdout(terminal):
            time.sleep(0.02)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    give_up = time.monotonic() + 60
    while threading.active_count() > before:  # rich does not wait for its thread
        assert time.monotonic() < give_up
        time.sleep(0.01)
    assert (sys.stdout, sys.stderr) == streams
