"""`record`, `recording` and `unroll`: the public verbs."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Unpack

import xarray as xr

from everystate.errors import SelectionError
from everystate.recording import garbage
from everystate.recording.discovery import Framework, framework_of, model_name
from everystate.recording.join import Along
from everystate.recording.recorder import Progress, Recorder
from everystate.recording.selection import Select
from everystate.recording.trace import Labels
from everystate.streaming.options import Streaming, streams


@contextmanager
def recording(
    model: Any,
    *,
    select: Select | None = None,
    along: Along = "batch",
    time: Labels = None,
    batch: Labels = None,
    progress: Progress | None = None,
    **streaming: Unpack[Streaming],
) -> Iterator[Recorder]:
    """Record every call of a model, or of its layers, made inside a ``with`` block.

    Parameters
    ----------
    model : model of any supported framework
        It is left as it was, also after an exception; its results do not change.
    select : Select, optional
        Which layers, variables, units and steps. None: all states and gates.
    along : {"batch", "time"}
        How several calls are joined: as further rows, or as one stateful stream.
    time, batch : array-like, optional
        Labels of the steps and of the rows: numbers, strings or datetimes.
    progress : callable, optional
        Called with (steps done, steps in all) on the path that needs no framework.
    **streaming
        ``store``, ``overwrite``, ``stored_as``, ``around``, ``reduce`` and ``full`` as of `record`,
        with ``along="time"``: the steps are written as they come, and memory does not grow.
        Complete blocks can be read at once, by others too, ``es.open_trace(store,
        incomplete="trim")``; ``recorder.flush()`` makes everything so far readable. With
        ``around=Around(before, after)`` you tell the events, between one call and the next:
        ``recorder.event()`` that there was one, ``recorder.score(x, y)`` what its ``score=``
        looks at. ``recorder.reductions`` is what ``reduce`` has made of the steps so far.

    Yields
    ------
    Recorder
        Its ``trace`` is what was recorded, inside the block and after it. Its ``run(*inputs)``
        calls the model and returns what it returns: for a model given as a file.

    Raises
    ------
    UnsupportedModelError
        If no framework module knows the model.
    UnknownLayerError
        If ``select.layers`` matches none of its layers.
    ReplayMismatchError
        If a replayed state differs from what the framework computed.

    Examples
    --------
    >>> import torch, everystate as es
    >>> lstm = torch.nn.LSTM(3, 4)
    >>> with es.recording(lstm, along="time") as rec:
    ...     state = None
    ...     for chunk in torch.randn(2, 5, 1, 3):
    ...         y, state = lstm(chunk, state)
    >>> dict(rec.trace["lstm"].c.sizes)
    {'batch': 1, 'time': 10, 'unit': 4}
    """
    if streams(streaming):
        from everystate.streaming.online import recording_online

        with recording_online(model, _checked(select), along, (time, batch), streaming) as stream:
            yield stream
        return
    framework, recorder = _begin(
        model, select, along=along, labels=(time, batch), progress=progress
    )
    with framework.observe(model, recorder), recorder.calling(partial(framework.call, model)):
        yield recorder


def record(
    model: Any,
    *inputs: Any,
    select: Select | None = None,
    time: Labels = None,
    batch: Labels = None,
    progress: Progress | None = None,
    **streaming: Unpack[Streaming],
) -> xr.DataTree:
    """Run a model once and return every state of every recurrent layer at every step.

    Parameters
    ----------
    model : model of any supported framework, or path of a ``.safetensors`` file
        It runs as it is, in the mode it is in (training or evaluation), without gradients.
    *inputs : array or tensor
        What the model is called with. NumPy arrays are converted to its dtype and device.
    select : Select, optional
        Which layers, variables, units and steps. None: all states and gates.
    time, batch : array-like, optional
        Labels of the steps and of the rows: numbers, strings or datetimes.
    progress : callable, optional
        Called with (steps done, steps in all): where there is a store, or no framework.
    **streaming
        For long sequences, see below.

    Returns
    -------
    xarray.DataTree
        One leaf per layer and direction, variables of dims (batch, time, unit). With ``store``
        it is read from there when it is used. With ``reduce`` it is the reductions, also where the
        steps are stored too: ``es.open_trace(store)`` opens those.

    Other Parameters
    ----------------
    store : str or path-like, optional
        Folder of a trace to write while the model runs. The input, a single one, may be an array
        on disk (memory-mapped, Zarr), a path of one (``.npy``, ``.zarr``), or an iterator of
        chunks. Time is cut into chunks with the state carried on; memory does not grow with it.
        A file or graph of named inputs may be given a mapping, in which the sequence is what is
        not in memory, or else the largest array.
    memory : int or str, default "512MB"
        What the recording may take, roughly, beside framework and model.
    overwrite : bool, default False
        Replace the trace at `store`; it stays until the new one is complete.
    resume : bool, default False
        Go on with the recording at `store` that was stopped, from its last complete chunk. If
        there is none it begins, and if it is complete nothing is run.
    step : callable, optional
        ``step(chunk, state) -> (output, state)``, with the state None at first: how to run the
        model over a chunk, where it cannot be seen from the model. The state may be any nesting
        of tuples, lists and dicts of arrays, numbers and None.
    time_axis : int, optional
        Which axis of the input is time. None: the model's own layout tells.
    chunk : int, optional
        Steps that are run at once. None: as `memory` allows.
    stored_as : {"float16", "bfloat16", "int8"}, optional
        Keep smaller numbers; the error that they cost is measured, and stated in the trace as
        ``storage_error_<variable>``. None: numbers as they were computed.
    around : Around, optional
        Store only the steps near events: given ones, or those whose score passes a threshold.
    reduce : reducer, several, or mapping by name, optional
        What to make of the steps in place of a trace, or beside it, in constant memory: objects
        with ``update(block, first_step)`` and ``result()``; each variable gets its own. With a
        store the results are kept there, for `everystate.open_reductions`; what the reducers hold
        is stored with each chunk, so `resume` goes on with them too, if they have ``state()`` and
        ``restore(state)``.
    full : bool, default True
        Whether the store holds the steps themselves. False, with `reduce`: the reductions alone.

    Raises
    ------
    InputError, InputTypeError
        If the input has the wrong rank, feature count, dtype or device, or is empty.
    UnsupportedModelError, UnknownLayerError, ReplayMismatchError
        As `recording`.
    UncuttableError
        If the model cannot be cut in time, and run whole would need more than `memory`.
    ResumeError
        If the recording to go on with was of another model, input or selection, or with other
        reducers or windows.
    TraceWriteError
        If the store is taken, somebody else writes there, or the disk is full.

    Examples
    --------
    >>> import torch, everystate as es
    >>> trace = es.record(torch.nn.LSTM(3, 4, batch_first=True), torch.randn(2, 50, 3))
    >>> dict(trace["lstm"].c.sel(time=slice(10, 19)).sizes)
    {'batch': 2, 'time': 10, 'unit': 4}
    """
    if streams(streaming):
        from everystate.streaming.sequence import record_long

        return record_long(model, inputs, _checked(select), (time, batch), progress, streaming)
    framework, recorder = _begin(
        model, select, labels=(time, batch), progress=progress, own_call=True
    )
    with framework.observe(model, recorder):
        framework.call(model, inputs)
    return recorder.trace


def unroll(layer: Any, *inputs: Any, **options: Any) -> Any:
    """Run a recurrent layer or cell and return all its states, differentiable.

    Parameters
    ----------
    layer : recurrent layer or cell of any supported framework
        It runs on its framework's own kernels, in the mode it is in; stepped, if ``probes=True``.
    *inputs : tensor
        What the layer is called with: the input, then the initial state if there is one.
    **options : object
        What else the layer takes by name, such as ``seq_lengths`` of one of Flax's. Of a layer of
        PyTorch ``probes=True`` adds zeros to each state, to differentiate by: ``out.probes``.

    Returns
    -------
    object with ``outputs``, ``final_state`` and ``states``
        What the layer itself returns, and every state and gate at every step, as the
        framework's own tensors in the layer's own layout.

    Raises
    ------
    UnsupportedModelError
        If no framework module knows the layer.

    Examples
    --------
    >>> import torch, everystate as es
    >>> out = es.unroll(torch.nn.LSTM(3, 4), torch.randn(50, 2, 3))
    >>> out.states.c.shape
    torch.Size([50, 2, 4])
    >>> out.states.f[25].sum().backward()
    """
    return framework_of(layer)[1].unroll(layer, *inputs, **options)


def _begin(model: Any, select: Select | None, **options: Any) -> tuple[Framework, Recorder]:
    """Return the framework that knows the model, and a recorder with `Recorder`'s options."""
    garbage.give_back()
    name, framework = framework_of(model)
    select = _checked(select)
    if (known := framework.layers(model)) is not None:
        select.check_layers(known)
    return framework, Recorder(model_name(model), name, select, **options)


def _checked(select: Select | None) -> Select:
    select = Select() if select is None else select
    if not isinstance(select, Select):
        raise SelectionError(
            f"select={select!r}: expected an es.Select. Try es.Select(variables={select!r})."
        )
    return select
