"""Lightning's callback: the same probe, epoch after epoch."""

import numpy as np

from everystate.testing import importorskip

torch = importorskip("torch")
lightning = importorskip("lightning.pytorch")

import everystate as es
from everystate.frameworks.torch.lightning import RecordStates


class Module(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.lstm = torch.nn.LSTM(3, 4, 2, dropout=0.5)
        self.frozen = torch.nn.Dropout(0.5).eval()
        self.found = []

    def forward(self, x):
        return self.frozen(self.lstm(x)[0])

    def training_step(self, x, _):
        return self(x).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.5)

    def on_train_epoch_end(self):
        assert self.lstm.training
        assert not self.frozen.training
        with torch.no_grad():
            self.lstm.eval()
            self.found.append(self.lstm(self.probe)[0].numpy())
            self.lstm.train()


def test_each_epoch_is_recorded_with_its_own_weights(tmp_path):
    module = Module()
    x = torch.randn(4, 7, 2, 3, generator=torch.Generator().manual_seed(1))
    module.probe = x[0]
    trainer = lightning.Trainer(
        max_epochs=4,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[RecordStates(x[0], tmp_path / "run.zarr", every=3)],
    )
    trainer.fit(module, torch.utils.data.DataLoader(x, batch_size=None))
    leaf = es.open_trace(tmp_path / "run.zarr")["lstm/layer_1"]
    assert leaf.h.dims == ("epoch", "batch", "time", "unit")
    assert leaf.epoch.values.tolist() == [0, 3]
    for epoch in (0, 3):
        shown = leaf.h.sel(epoch=epoch).transpose("time", "batch", "unit")
        np.testing.assert_allclose(shown, module.found[epoch], rtol=1e-6, atol=1e-6)
    assert np.abs(leaf.h.diff("epoch")).max() > 1e-3
    assert module.lstm.training
    assert not module.frozen.training
