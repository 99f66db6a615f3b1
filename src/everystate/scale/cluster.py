"""The Dask cluster: connected to, or started on this machine; and calls spread over it."""

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Final

from everystate.errors import ClusterError, EverystateError, MissingDependencyError, SelectionError

Where = Any
"""A ``distributed.Client``, an address, a number of processes, ``"threads"``, or None."""

THREADS: Final = "threads"
LOOPBACK: Final = "127.0.0.1"
TIMEOUT: Final = 10
"""Seconds for a scheduler to answer."""

AHEAD: Final = 3
"""Calls handed out for each thread of the cluster, so that none waits for the next."""

RETRIES: Final = 2
"""How often a call that raised is tried again; one whose worker died is, in any case."""

ENOUGH: Final = 5
"""After so many calls that failed for good no further one is begun."""


@contextmanager
def connected(where: Where = None) -> Iterator[Any]:
    """Connect to a Dask cluster, or start one on this machine for as long as the block lasts.

    Parameters
    ----------
    where : distributed.Client, str, int or None
        A client, which stays open. The address of a scheduler (``"tcp://10.0.0.1:8786"``). A
        number of processes to start here; None for one on each core. ``"threads"`` for threads
        of this process, one on each core.

    Yields
    ------
    distributed.Client
        Its ``dashboard_link`` shows what the workers do.

    Raises
    ------
    ClusterError
        If no scheduler answers, or none can be started.
    MissingDependencyError
        If distributed is not installed.
    """
    try:
        import distributed
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            "recording on many workers needs Dask: pip install 'everystate[scale]'."
        ) from error
    if isinstance(where, distributed.Client):
        yield where
        return
    if isinstance(where, bool) or not (where is None or isinstance(where, int | str)):
        raise SelectionError(
            f"client={where!r}: expected a distributed.Client, the address of a scheduler, a "
            f"number of processes, {THREADS!r}, or None."
        )
    if isinstance(where, int) and where < 1:
        raise SelectionError(f"client={where}: expected 1 process or more.")
    local = not isinstance(where, str) or where == THREADS
    with ExitStack() as stack:
        try:
            target = stack.enter_context(_local(where)) if local else where
            client = stack.enter_context(distributed.Client(target, timeout=TIMEOUT))
        except (OSError, ValueError, RuntimeError) as error:
            raise _unreachable(where, local, error) from error
        yield client


def _unreachable(where: Where, local: bool, error: Exception) -> ClusterError:
    said = f"client={where!r}: {str(error).rstrip('.')}."
    if not local:
        return ClusterError(f"{said} Is the scheduler running, and this its address?")
    return ClusterError(
        f"{said} Workers could not be started on this machine. In a script, call record_many below "
        'if __name__ == "__main__": (each process that starts imports the script).'
    )


def _local(where: int | str | None) -> Any:
    """Start a cluster on this machine; it and its dashboard are reached from here only."""
    from dask.system import CPU_COUNT
    from distributed import LocalCluster

    processes = where != THREADS
    return LocalCluster(
        n_workers=where if isinstance(where, int) else CPU_COUNT,
        threads_per_worker=1,
        processes=processes,
        host=LOOPBACK if processes else None,
        dashboard_address=f"{LOOPBACK}:0",
        silence_logs=logging.CRITICAL,
    )


@dataclass(frozen=True)
class Call:
    """A call to be made by any worker.

    Parameters
    ----------
    name : str
        What it is, for messages.
    key : str
        What it is to Dask; the part before the last dash names it on the dashboard.
    function : callable
        What is called, with `arguments`.
    arguments : tuple
        Futures among them stand for their results.
    """

    name: str
    key: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...]


@dataclass(frozen=True)
class Failure:
    """A call that failed for good: what it was, and what it raised."""

    name: str
    error: Exception


def spread(client: Any, calls: Iterable[Call], done: Callable[[Any], None]) -> list[Failure]:
    """Have all calls made by the cluster's workers, a few ahead of what they can do.

    Parameters
    ----------
    client : distributed.Client
        The cluster.
    calls : iterable of Call
        Taken as they are needed.
    done : callable
        Called with each result, as it comes.

    Returns
    -------
    list of Failure
        What failed for good; the others are done.

    Raises
    ------
    ClusterError
        If the scheduler is gone.
    Exception
        What a call raised, if all others that ended so far failed, too.
    """
    from distributed import as_completed

    waiting, under_way = iter(calls), as_completed()
    names: dict[str, str] = {}
    failed: list[Failure] = []
    good = 0

    def hand_out() -> None:
        while under_way.count() < _room(client) and len(failed) < ENOUGH:
            call = next(waiting, None)
            if call is None:
                return
            names[call.key] = call.name
            under_way.add(_submit(client, call))

    with _while_connected(client):
        hand_out()
        for future in under_way:
            error = _error(client, future)
            if error is None:
                done(future.result())
                good += 1
            else:
                failed.append(Failure(names[future.key], _told(error)))
            del names[future.key]
            hand_out()
    if failed and not good:
        raise failed[0].error
    return failed


def _submit(client: Any, call: Call) -> Any:
    return client.submit(call.function, *call.arguments, key=call.key, retries=RETRIES, pure=False)


def _room(client: Any) -> int:
    """Return how many calls may be under way at once."""
    threads = sum(client.nthreads().values())
    return AHEAD * max(int(threads), 1)


def _error(client: Any, future: Any) -> Exception | None:
    """Return what a call raised."""
    if future.status in ("cancelled", "lost") or client.status != "running":
        raise _lost()
    return None if future.status == "finished" else future.exception()


@contextmanager
def _while_connected(client: Any) -> Iterator[None]:
    """Say what it means when a client that is no longer connected raises something."""
    try:
        yield
    except EverystateError:
        raise
    except Exception as error:
        if client.status == "running":
            raise
        raise _lost() from error


def _lost() -> ClusterError:
    return ClusterError(
        "the connection to the cluster's scheduler was lost. What was done is kept: call "
        "record_many once more, with the same arguments, and it does what is missing."
    )


def _told(error: Exception) -> Exception:
    """Return an error in words that say what to do."""
    from distributed import KilledWorker

    if isinstance(error, KilledWorker):
        return ClusterError(
            f"{error.allowed_failures + 1} workers died over it, one after the other; probably "
            "there was too little memory. Record with a smaller Batching(batch=..., memory=...), "
            "or with fewer workers on a machine."
        )
    return error
