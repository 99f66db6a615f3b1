"""`RecordStates`: a callback of training that records the same probe epoch after epoch."""

import os
from typing import Any

import keras

import everystate as es
from everystate.frameworks.keras.watching import undisturbed
from everystate.recording.epochs import Epochs
from everystate.recording.selection import Select


class RecordStates(keras.callbacks.Callback):  # type: ignore[misc]
    """Record a probe after each `every`-th epoch of ``model.fit``, along a dimension ``epoch``.

    The training goes on as without it: random numbers and the states of stateful layers are what
    they were before the probe. A stateful layer starts the probe from the state it is in, and
    takes a probe of its own batch size alone.

    Parameters
    ----------
    x : array, or list of arrays
        The probe: what the model is called with, the same in every epoch, in inference mode.
    store : path
        The Zarr store, by custom ``*.zarr``, for `everystate.open_trace`. It is written after
        each epoch that is recorded, so an interrupted training loses none.
    every : int
        Record the epochs 0, `every`, 2 * `every`, ...
    select : Select, optional
        Which layers, variables, units and steps. None: all states and gates.
    overwrite : bool, default False
        Replace an older store.

    Raises
    ------
    SelectionError
        If `every` is no whole number, 1 or more.
    TraceWriteError
        If there is something at `store` already, and not `overwrite`; before the training starts.

    Examples
    --------
    >>> import tempfile, keras, numpy as np, everystate as es
    >>> model = keras.Sequential([keras.layers.LSTM(4, name="lstm"), keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> x, y = np.random.rand(8, 6, 3), np.random.rand(8, 1)
    >>> folder = tempfile.TemporaryDirectory()
    >>> probe = RecordStates(x[:2], f"{folder.name}/training.zarr", every=2)
    >>> _ = model.fit(x, y, epochs=5, verbose=0, callbacks=[probe])
    >>> dict(es.open_trace(f"{folder.name}/training.zarr")["lstm"].c.sizes)
    {'epoch': 3, 'batch': 2, 'time': 6, 'unit': 4}
    >>> folder.cleanup()
    """

    def __init__(
        self,
        x: Any,
        store: str | os.PathLike[str],
        every: int = 1,
        select: Select | None = None,
        overwrite: bool = False,
    ) -> None:
        super().__init__()
        self.epochs = Epochs(x, store, every, select, overwrite)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Record the probe, if this epoch is one to record."""
        if self.epochs.wants(epoch):
            with undisturbed(self.model):
                trace = es.record(self.model, *self.epochs.inputs, select=self.epochs.select)
            es.save_trace(self.epochs.joined(epoch, trace), self.epochs.store, overwrite=True)
