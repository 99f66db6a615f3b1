"""`RecordStates` for PyTorch Lightning: the same probe recorded epoch after epoch."""

import lightning.pytorch as pl
import torch

import everystate as es
from everystate.recording.epochs import Epochs


class RecordStates(Epochs, pl.Callback):
    """Record a probe after each `every`-th epoch of ``trainer.fit``, along a dimension ``epoch``.

    The module is called as ``module(x)``, on its own device, in evaluation mode and without
    gradients; the mode of every part of it is what it was afterwards. Of several processes the
    first one records.

    Examples
    --------
    >>> import lightning, torch
    >>> probe = RecordStates(torch.randn(7, 2, 3), "training.zarr", every=5)
    >>> lightning.Trainer(max_epochs=20, callbacks=[probe])  # doctest: +SKIP
    """

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Record the probe, if this epoch is one to record; on the first process alone."""
        if not (trainer.is_global_zero and self.wants(trainer.current_epoch)):
            return
        inputs = [x.to(pl_module.device) if torch.is_tensor(x) else x for x in self.inputs]
        training = [part for part in pl_module.modules() if part.training]
        pl_module.eval()
        try:
            trace = es.record(pl_module, *inputs, select=self.select)
        finally:
            for part in training:
                part.training = True
        self.add(trainer.current_epoch, trace)
