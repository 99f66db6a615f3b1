"""`RecordStates`: a callback of training that records the same probe epoch after epoch."""

from typing import Any

import keras

import everystate as es
from everystate.frameworks.keras.watching import undisturbed
from everystate.recording.epochs import Epochs


class RecordStates(Epochs, keras.callbacks.Callback):  # type: ignore[misc]
    """Record a probe after each `every`-th epoch of ``model.fit``, along a dimension ``epoch``.

    The model is called as ``model(x)``, in inference mode. The training goes on as without it:
    random numbers and the states of stateful layers are what they were before the probe. A
    stateful layer starts the probe from the state it is in, and takes a probe of its own batch
    size alone.

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

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Record the probe, if this epoch is one to record."""
        if self.wants(epoch):
            with undisturbed(self.model):
                trace = es.record(self.model, *self.inputs, select=self.select)
            self.add(epoch, trace)
