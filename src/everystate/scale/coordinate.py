"""`record_many`: the public verb. It checks what it is given, and takes the place."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from inspect import isfunction
from typing import Any, Unpack

from everystate.errors import (
    InputTypeError,
    SelectionError,
    TraceWriteError,
    UnsupportedModelError,
)
from everystate.recording.discovery import framework_of
from everystate.recording.selection import Select
from everystate.scale.cluster import Where, connected
from everystate.scale.inputs.recognise import source_of
from everystate.scale.job import Job
from everystate.scale.options import Batching, Options
from everystate.scale.result import Recorded
from everystate.scale.run import Run
from everystate.storage.lock import FolderLock
from everystate.storage.shared.manifest import Plan
from everystate.storage.shared.root import Root


def record_many(
    load_model: Callable[[], Any] | str | os.PathLike[str],
    inputs: Any,
    store: str | os.PathLike[str],
    *,
    client: Where = None,
    select: Select | None = None,
    batching: Batching | None = None,
    **options: Unpack[Options],
) -> Recorded:
    """Record many sequences on many processes or machines, as one trace.

    The sequences are cut into shards; each worker loads the model once, records shard after
    shard and writes each into files of its own. What a failed or killed worker was at is done by
    another one; called once more with the same arguments, only what is missing is done.

    Parameters
    ----------
    load_model : callable, str or path-like
        Returns the model, called once by each worker; or the path of a model's file.
    inputs : source, path, array, or list of paths or arrays
        A Zarr array or group, a Parquet data set, a list of files, or arrays: see `Arrays`,
        `Parquet` and `Files`. Workers must be able to read them.
    store : str or path-like
        The folder to make, or a URL that fsspec knows. Workers must be able to write to it.
    client : distributed.Client, str or int, optional
        A Dask client; the address of a scheduler; a number of processes to start on this
        machine; or ``"threads"``. None: one process for each core.
    select : Select, optional
        Which layers, variables, units and steps. None: all states and gates.
    batching : Batching, optional
        How the model is called, and how sequences are cut into shards.
    **options
        ``progress``: called with (sequences done, sequences in all). ``reduce`` and ``full``, as of
        `everystate.record`: what is made of each sequence by itself, a row for each, beside the
        trace or, with ``full=False``, in its place; see `everystate.open_reductions`. A result
        has the same dimensions for every sequence, NaN where there is none; whole numbers are
        float64 for that.

    Returns
    -------
    Recorded
        What was done. A sequence that cannot be read or recorded is named in it and warned of;
        the rest is done.

    Raises
    ------
    InputError, InputTypeError
        If there is nothing to record, or the model takes nothing of it.
    UnsupportedModelError
        If the model cannot be loaded, or no framework module knows it.
    WeightsError
        If `load_model` gives other weights each time.
    TraceWriteError
        If `store` cannot be written, is being written, or holds something else: also a recording of
        another model, or of other sequences as far as they are compared.
    ClusterError
        If the cluster cannot be reached or is lost.

    Notes
    -----
    A script that starts processes must guard its own start by ``if __name__ == "__main__":``,
    as each process imports it.

    Examples
    --------
    >>> import numpy as np, torch, everystate as es
    >>> from safetensors.torch import save_file
    >>> save_file(torch.nn.LSTM(2, 4).state_dict(), "weights.safetensors")
    >>> x = np.random.default_rng(0).normal(size=(6, 30, 2))
    >>> done = es.scale.record_many("weights.safetensors", x, "many.zarr", client="threads")
    >>> trace = es.open_trace("many.zarr")
    >>> dict(trace["lstm"].c.sizes)
    {'batch': 6, 'time': 30, 'unit': 4}
    """
    select = Select() if select is None else select
    batching = Batching() if batching is None else batching
    source, root = source_of(inputs), Root(store)
    _check(load_model, select)
    _check_options(options)
    with _taken(root) as plan, connected(client) as cluster:
        run = Run(cluster, source, root, plan)
        run.measure()
        job = Job(
            run.id,
            load_model,
            select,
            batching,
            run.features,
            options.get("reduce") or {},
            options.get("full", True),
        )
        run.prepare(job)
        return run.record(options.get("progress") or _silent)


def _silent(done: int, total: int) -> None:
    pass


def _check(load_model: object, select: object) -> None:
    """Refuse at once what workers would refuse later."""
    if not isinstance(select, Select):
        raise SelectionError(f"select={select!r}: expected an es.Select.")
    if isinstance(load_model, str | os.PathLike):
        return
    function = load_model.func if isinstance(load_model, partial) else load_model
    if not isfunction(function):  # a plain function is a model of JAX too; here it returns one
        _refuse_models(load_model)
    from cloudpickle import dumps

    try:
        dumps(load_model)
    except Exception as error:
        raise InputTypeError(
            f"load_model cannot be sent to workers: {type(error).__name__}: {error}. Let it be a "
            "function of a module that loads the model from a file, and holds nothing open."
        ) from error


def _check_options(given: Options) -> None:
    for name in given:
        if name not in Options.__annotations__:
            raise TypeError(f"record_many() got an unexpected keyword argument {name!r}")
    if given.get("reduce") is None and not given.get("full", True):
        raise SelectionError("full=False keeps no steps: say what to make of them, reduce=.")


def _refuse_models(load_model: object) -> None:
    """Refuse a model in place of what loads one, and what is neither."""
    try:
        framework_of(load_model)
    except UnsupportedModelError:
        if not callable(load_model):
            raise InputTypeError(
                f"load_model is of type {type(load_model).__name__}, expected a function that "
                "returns the model, or the path of a model's file."
            ) from None
    else:
        raise InputTypeError(
            f"load_model is a model itself, of type {type(load_model).__name__}. Expected a "
            "function that returns it: each worker loads its own."
        )


@contextmanager
def _taken(root: Root) -> Iterator[Plan | None]:
    """Take a place, and yield the plan of the recording that was begun there, if there is one."""
    plan = Plan.load(root)
    if plan is None and not root.is_empty():
        raise TraceWriteError(
            f"{root}: there is something that record_many did not begin, and it is never "
            "overwritten. Choose another place, or remove it yourself."
        )
    root.make()
    try:
        lock = None if root.folder is None else FolderLock(root.folder)
    except BlockingIOError as error:
        raise TraceWriteError(
            f"{root}: another process records here now. Wait for it, or choose another place."
        ) from error
    try:
        yield plan
    finally:
        if lock is not None:
            lock.release()
