"""Workers: threads that compute blocks ahead of the one who needs them in turn.

NumPy lets go of the interpreter while it computes, but computes with one thread, matrix products
apart. So these are held to one thread as well, and as many blocks are computed at a time as
the products would have had threads: ``OMP_NUM_THREADS`` and the like bound both.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

import numpy as np
from threadpoolctl import ThreadpoolController

Block = TypeVar("Block")
Result = TypeVar("Result")


@dataclass(frozen=True, eq=False)
class Workers:
    """Threads, and how many there are; they last as long as `lasting`.

    Parameters
    ----------
    count : int
        How many.
    lasting : ExitStack
        What ends them.
    """

    count: int
    lasting: ExitStack

    def map(
        self, compute: Callable[[Block], Result], blocks: Iterable[Block]
    ) -> Iterator[tuple[Block, Result]]:
        """Yield each block and what was computed of it, in order; a few are computed ahead.

        Parameters
        ----------
        compute : callable
            What to do of a block; overflow and invalid numbers are for the caller to find.
        blocks : iterable
            The blocks.
        """
        pool = ThreadPoolExecutor(self.count, thread_name_prefix="everystate")
        self.lasting.callback(pool.shutdown, cancel_futures=True)

        def quietly(block: Block) -> Result:
            with np.errstate(over="ignore", invalid="ignore"):
                return compute(block)

        waiting: deque[tuple[Block, Future[Result]]] = deque()
        for block in blocks:
            waiting.append((block, pool.submit(quietly, block)))
            if len(waiting) > self.count:
                first, result = waiting.popleft()
                yield first, result.result()
        for first, result in waiting:
            yield first, result.result()


@cache
def _products() -> ThreadpoolController:
    """Return what tells and sets the threads of NumPy's matrix products."""
    return ThreadpoolController().select(user_api="blas")


@contextmanager
def workers() -> Iterator[Workers | None]:
    """Provide as many threads as matrix products may use; None if that is one, or not known.

    Meanwhile a product has one: on a busy machine, threads of small ones mostly wait.
    """
    count = max((library.num_threads for library in _products().lib_controllers), default=1)
    with ExitStack() as lasting, _products().limit(limits=1):
        yield Workers(count, lasting) if count > 1 else None
