"""Workers: threads that share the blocks of a computation.

NumPy lets go of the interpreter while it computes, but computes with one thread, matrix products
apart. So these are held to one thread as well, and as many blocks are computed at a time as
the products would have had threads: ``OMP_NUM_THREADS`` and the like bound both.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
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
    """Threads, and how many there are.

    Parameters
    ----------
    count : int
        How many.
    pool : ThreadPoolExecutor
        They.
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

        def quietly(block: Block) -> Result:
            with np.errstate(over="ignore", invalid="ignore"):
                return compute(block)

        return list(self.pool.map(quietly, blocks))


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
    with _products().one_thread() as count:
        if count == 1:
            yield None
            return
        pool = ThreadPoolExecutor(min(count, MOST), thread_name_prefix="everystate")
        try:
            yield Workers(min(count, MOST), pool)
        finally:
            pool.shutdown(cancel_futures=True)
