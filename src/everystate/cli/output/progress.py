"""A progress bar for what takes more than a second; on stderr, and none if that is no terminal."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Timer
from typing import Final

PATIENCE: Final = 1.0
"""Seconds before a bar appears."""

Tick = Callable[[int, int], None]
"""Called with what is done and what there is in all."""


@contextmanager
def progress(task: str) -> Iterator[Tick]:
    """Show how far a task is, while the block lasts.

    Parameters
    ----------
    task : str
        What is done: ``"recording"``.

    Yields
    ------
    callable
        To be called with (done, total). Until then the bar only shows that something goes on.
    """
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
    from rich.progress import TimeRemainingColumn as Remaining

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), Remaining())
    bar = Progress(
        *columns,
        console=Console(stderr=True),
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )
    task_id = bar.add_task(task, total=None)
    timer = Timer(PATIENCE, bar.start)
    timer.daemon = True
    timer.start()
    try:
        yield lambda done, total: bar.update(task_id, completed=done, total=total)
    finally:
        timer.cancel()
        timer.join()  # a bar that starts this very moment must be stopped too
        bar.stop()
