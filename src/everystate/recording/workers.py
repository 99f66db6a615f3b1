"""Workers: threads that share the blocks of a computation.

NumPy lets go of the interpreter while it computes, but computes with one thread, matrix products
apart. So these are held to one thread as well, and as many blocks are computed at a time as
the products would have had threads: ``OMP_NUM_THREADS`` and the like bound both.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from threading import Lock
from typing import Final, TypeVar

import numpy as np
from threadpoolctl import ThreadpoolController

MOST: Final = 8
"""Threads at most: the scan is not shared, and each thread has memory of its own."""

Block = TypeVar("Block")
Result = TypeVar("Result")


@dataclass(frozen=True, eq=False)
class Workers:
    """The caller's thread and others.

    Parameters
    ----------
    count : int
        How many they are.
    pool : ThreadPoolExecutor
        The others.
    """

    count: int
    pool: ThreadPoolExecutor

    def each(self, compute: Callable[[Block], Result], blocks: Iterable[Block]) -> list[Result]:
        """Return what is computed of each block, in order.

        Parameters
        ----------
        compute : callable
            What to do of a block; overflow and invalid numbers are for the caller to find.
        blocks : iterable
            The blocks.
        """
        given = list(blocks)
        found: dict[int, Result] = {}
        left = deque(range(len(given)))

        def work() -> None:
            with np.errstate(over="ignore", invalid="ignore"):
                while True:
                    try:
                        k = left.popleft()
                    except IndexError:
                        return
                    found[k] = compute(given[k])

        others = [self.pool.submit(work) for _ in range(min(self.count, len(given)) - 1)]
        try:
            work()
        finally:
            left.clear()  # after an error nobody begins another
            wait(others)
        for other in others:
            other.result()
        return [found[k] for k in range(len(given))]


class _Products:
    """NumPy's matrix products, held to one thread as long as anybody needs it.

    Two recordings in two threads may overlap in any way: only the first to begin sees how many
    threads there were, and only the last to end gives them back.
    """

    def __init__(self) -> None:
        self.libraries = ThreadpoolController().select(user_api="blas")
        self.lock = Lock()
        self.holders, self.threads = 0, 1
        self.held = ExitStack()

    @contextmanager
    def one_thread(self) -> Iterator[int]:
        """Hold them to one thread in a block; yield how many there were."""
        with self.lock:
            if not self.holders:
                counts = (library.num_threads for library in self.libraries.lib_controllers)
                self.threads = max(counts, default=1)
                self.held.enter_context(self.libraries.limit(limits=1))
            self.holders += 1
        try:
            yield self.threads
        finally:
            with self.lock:
                self.holders -= 1
                if not self.holders:
                    self.held.close()


@cache
def _products() -> _Products:
    return _Products()


@contextmanager
def workers() -> Iterator[Workers | None]:
    """Provide as many threads as matrix products may use; None if that is one, or not known.

    Meanwhile a product has one: on a busy machine, threads of small ones mostly wait.
    """
    with _products().one_thread() as allowed:
        count = min(allowed, MOST)
        if count == 1:
            yield None
            return
        with ThreadPoolExecutor(count - 1, thread_name_prefix="everystate") as pool:
            yield Workers(count, pool)
