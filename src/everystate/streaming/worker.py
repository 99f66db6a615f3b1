"""`Worker`: does what it is given, in order, while the model goes on or in turn with it."""

import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any


class Worker:
    """Runs tasks in their order, in a thread of its own or at once.

    What a task raises is raised by the next `submit` or `wait`, at the latest; the tasks behind
    it are dropped.

    Parameters
    ----------
    beside : bool
        Whether there is a thread. False: `submit` runs the task before it returns.
    """

    def __init__(self, *, beside: bool = True) -> None:
        self.beside = beside
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="everystate") if beside else None
        self._pending: deque[Future[Any]] = deque()
        self._failed = False

    def submit(self, task: Callable[..., Any], *args: Any) -> Future[Any]:
        """Add a task."""
        if self._pool is None:
            self._run(task, args)
            done: Future[Any] = Future()
            done.set_result(None)
            return done
        self._clear()
        future = self._pool.submit(self._run, task, args)
        self._pending.append(future)
        return future

    def wait(self, future: Future[Any] | None = None) -> None:
        """Wait for one task, or for all."""
        if future is not None:
            future.result()
            return
        while self._pending:
            self._pending.popleft().result()

    def close(self) -> None:
        """Drop what has not begun, and end the thread."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def _run(self, task: Callable[..., Any], args: tuple[Any, ...]) -> None:
        if self._failed:
            return
        try:
            task(*args)
        except BaseException:
            self._failed = True
            raise

    def _clear(self) -> None:
        while self._pending and self._pending[0].done():
            self._pending.popleft().result()


def cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
