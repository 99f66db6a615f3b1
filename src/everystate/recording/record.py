"""`record`, `recording` and `unroll`: the public verbs."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import xarray as xr

from everystate.errors import SelectionError
from everystate.recording.discovery import Framework, framework_of
from everystate.recording.join import Along
from everystate.recording.recorder import Progress, Recorder
from everystate.recording.selection import Select
from everystate.recording.trace import Labels


@contextmanager
def recording(
    model: Any,
    *,
    select: Select | None = None,
    along: Along = "batch",
    time: Labels = None,
    batch: Labels = None,
    progress: Progress | None = None,
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
        Called with (steps done, steps in all) on the path that needs no framework.

    Returns
    -------
    xarray.DataTree
        One leaf per layer and direction, variables of dims (batch, time, unit).

    Raises
    ------
    InputError, InputTypeError
        If the input has the wrong rank, feature count, dtype or device, or is empty.
    UnsupportedModelError, UnknownLayerError, ReplayMismatchError
        As `recording`.

    Examples
    --------
    >>> import torch, everystate as es
    >>> trace = es.record(torch.nn.LSTM(3, 4, batch_first=True), torch.randn(2, 50, 3))
    >>> dict(trace["lstm"].c.sel(time=slice(10, 19)).sizes)
    {'batch': 2, 'time': 10, 'unit': 4}
    """
    framework, recorder = _begin(
        model, select, labels=(time, batch), progress=progress, own_call=True
    )
    with framework.observe(model, recorder):
        framework.call(model, inputs)
    return recorder.trace


def unroll(layer: Any, *inputs: Any) -> Any:
    """Run a recurrent layer or cell and return all its states, differentiable.

    Parameters
    ----------
    layer : recurrent layer or cell of any supported framework
        It runs on its framework's own kernels, in the mode it is in.
    *inputs : tensor
        What the layer is called with: the input, then the initial state if there is one.

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
    return framework_of(layer)[1].unroll(layer, *inputs)


def model_name(model: object) -> str:
    """Return what a model is called in messages and in the trace's attributes."""
    named = isinstance(model, str) or hasattr(model, "__fspath__")
    return str(model) if named else type(model).__qualname__


def _begin(model: Any, select: Select | None, **options: Any) -> tuple[Framework, Recorder]:
    """Return the framework that knows the model, and a recorder with `Recorder`'s options."""
    name, framework = framework_of(model)
    select = Select() if select is None else select
    if not isinstance(select, Select):
        raise SelectionError(
            f"select={select!r}: expected an es.Select. Try es.Select(variables={select!r})."
        )
    select.check_layers(framework.layers(model))
    return framework, Recorder(model_name(model), name, select, **options)
