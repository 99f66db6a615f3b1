"""The example on text: its labels by hand, its training, and units that mean something."""

import doctest
import re

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file


@pytest.fixture
def meaning(example_module):
    return example_module("text", "meaning")


def test_the_book_is_parted_into_seen_and_unseen(meaning):
    seen, unseen = meaning.load_book()
    assert unseen.startswith("PRIDE AND PREJUDICE\n")
    assert seen.startswith("Chapter 7\n")
    assert len(seen) + len(unseen) == 684_768
    assert max(len(line) for line in seen.splitlines()) == 74


def test_labels_by_hand(meaning):
    text = 'He said "no, but\nyes" and\n\nleft. "So\n\n"Ah," too'
    quoted = meaning.inside_quotes(text)
    assert "".join(np.array(list(text))[quoted]) == '"no, but\nyes"So\n"Ah,'
    labels = meaning.labels_of(text)
    assert labels["place in the line"][:18].tolist() == [*range(1, 17), 0, 1]
    assert labels["place in the word"][:9].tolist() == [1, 2, 0, 1, 2, 3, 4, 0, 0]
    ends = [k for k in range(len(text)) if text[k + 1 : k + 2] == "\n"]
    assert np.flatnonzero(labels["line ends after this"]).tolist() == ends
    assert doctest.testmod(meaning).failed == 0


def test_one_hot(example_module):
    train = example_module("text", "train")
    rows = train.one_hot("cab", "abc").numpy()
    assert rows.tolist() == [[0, 0, 1], [1, 0, 0], [0, 1, 0]]


def test_training_writes_what_the_example_reads(run_example, examples, tmp_path):
    printed = run_example(
        "text/train.py", "--epochs", "1", "--stretches", "2", "--output", "w.safetensors"
    )
    assert "unseen chapters: " in printed
    new, shipped = tmp_path / "w.safetensors", examples / "text" / "char_lstm.safetensors"
    shapes = [{n: a.shape for n, a in load_file(path).items()} for path in (new, shipped)]
    assert shapes[0] == shapes[1]
    characters = [safe_open(path, "np").metadata()["characters"] for path in (new, shipped)]
    assert characters[0] == characters[1]


def test_units_with_a_meaning_are_found(run_example, tmp_path):
    printed = run_example(
        "text/meaning.py", "--characters", "16000", "--samples", "1500", "--report", "r.html"
    )
    bits = float(printed.split(" bits each")[0].split()[-1])
    assert bits < 2.3  # the network has learnt: an even guess has log2(74) = 6.2
    for name in ("inside quotes", "place in the word", "line ends after this"):
        line = next(line for line in printed.splitlines() if line.startswith(name))
        strongest = float(line[22:].split(",")[0].split()[1])
        chance, p, score, control = (float(value) for value in line.split()[-4:])
        assert abs(strongest) > chance
        assert p <= 0.01
        assert score > control
    assert "0.00 at" in printed  # the query finds itself
    report = (tmp_path / "r.html").read_text()
    assert "Units with a meaning" in report
    assert re.search(r"c of unit \d+ is \w+ where .{1,10}inside quotes.{1,10} holds", report)
