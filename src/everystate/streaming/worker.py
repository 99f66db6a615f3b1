"""`Worker`: one thread that does in order what it is given, while the model goes on computing."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any


class Worker:
    """Runs tasks in their order, in a thread of its own.

    What a task raises is raised by the next `submit` or `wait`; the tasks behind it are dropped.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="everystate")
        self._pending: deque[Future[Any]] = deque()
        self._failed = False

    def submit(self, task: Callable[..., Any], *args: Any) -> Future[Any]:
        """Add a task; returns at once."""
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
