"""`training.fast_paths`: with Keras' own layers, softmax and Adam a run trains alike."""

import keras
import numpy as np
import pytest

from pipeline.config import TrainingConfig
from pipeline.layers import fast_paths
from pipeline.training import optimizers

SMALL = ("dataset.batch_size=8", "dataset.sequence_length=16", "model.dropout=0", "sampling.prompts=")


class Watch(keras.callbacks.Callback):
    """Notes, at each step, whether the fast paths are on."""

    def __init__(self):
        super().__init__()
        self.seen = set()

    def on_train_batch_begin(self, batch, logs=None):
        self.seen.add(fast_paths.is_enabled())


@pytest.mark.parametrize(
    "settings", [("model.cell=lstm", "model.num_layers=2"), ("model.cell=gru", "model.tie_embeddings=true")]
)
def test_a_run_without_fast_paths_trains_alike(train, settings):
    runs = {}
    for enabled in (True, False):
        watch = Watch()
        switch = f"training.fast_paths={enabled}"
        runs[enabled] = train(*SMALL, *settings, switch, name=f"fast-{enabled}", callbacks=[watch])
        assert watch.seen == {enabled} and fast_paths.is_enabled()
    for fast, stock in zip(runs[True].history, runs[False].history, strict=True):
        for name in ("loss", "validation_nats_per_token"):
            assert fast[name] == pytest.approx(stock[name], rel=1e-4)
    for fast, stock in zip(runs[True].model.get_weights(), runs[False].model.get_weights(), strict=True):
        np.testing.assert_allclose(fast, stock, atol=2e-3)


def test_the_switch_chooses_the_optimizer():
    assert type(optimizers.build_optimizer(TrainingConfig())) is optimizers.Adam
    assert type(optimizers.build_optimizer(TrainingConfig(fast_paths=False))) is keras.optimizers.Adam
