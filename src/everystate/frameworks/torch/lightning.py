"""`RecordStates` for PyTorch Lightning: the same probe recorded epoch after epoch."""

import os
from typing import Any

import lightning.pytorch as pl
import torch

import everystate as es
from everystate.recording.epochs import Epochs
from everystate.recording.selection import Select


class RecordStates(pl.Callback):
    """Record a probe after each `every`-th epoch of ``trainer.fit``, along a dimension ``epoch``.

    The module is called as ``module(x)``, in evaluation mode and without gradients; the mode of
    every part of it is what it was afterwards.

    Parameters
    ----------
    x : Tensor, or list of tensors
        The probe, the same in every epoch. It is moved to the module's device.
    store : path
        The Zarr store, by custom ``*.zarr``, for `everystate.open_trace`. It is written after
        each epoch that is recorded.
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
    >>> import lightning, torch
    >>> probe = RecordStates(torch.randn(7, 2, 3), "training.zarr", every=5)
    >>> lightning.Trainer(max_epochs=20, callbacks=[probe])  # doctest: +SKIP
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

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Record the probe, if this epoch is one to record; on the first process alone."""
        if not (trainer.is_global_zero and self.epochs.wants(trainer.current_epoch)):
            return
        inputs = [x.to(pl_module.device) if torch.is_tensor(x) else x for x in self.epochs.inputs]
        training = [part for part in pl_module.modules() if part.training]
        pl_module.eval()
        try:
            trace = es.record(pl_module, *inputs, select=self.epochs.select)
        finally:
            for part in training:
                part.training = True
        joined = self.epochs.joined(trainer.current_epoch, trace)
        es.save_trace(joined, self.epochs.store, overwrite=True)
