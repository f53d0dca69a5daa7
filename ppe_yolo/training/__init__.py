"""Training: matchers, loss, the LightningModule, callbacks, and transfer of weights."""
