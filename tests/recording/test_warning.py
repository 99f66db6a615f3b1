"""What is not said while something is tried, in one thread and beside it."""

import warnings
from threading import Thread

from everystate.errors import EverystateWarning
from everystate.recording.warning import quietly, warn


def test_only_the_thread_that_tries_something_is_quiet():
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        filters = list(warnings.filters)
        with quietly():
            warn("tried")
            other = Thread(target=warn, args=("of another recording",))
            other.start()
            other.join()
            assert warnings.filters == filters
        warn("recorded")
    assert [str(w.message) for w in heard] == ["of another recording", "recorded"]
    assert {w.category for w in heard} == {EverystateWarning}
