import keras
import pytest
from helpers import two_layers

from keras_sgl0.experiments.progress import Progress

pytestmark = pytest.mark.tensorflow


class Figures(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        logs["weight_sparsity"] = 0.5
        logs["density"] = 0.25
        logs["val_error"] = 0.0123


def test_the_bar_shows_what_can_be_compared(images, capsys):
    model = two_layers(None)
    callbacks = [Figures(), Progress()]
    model.fit(*images, epochs=3, verbose=0, callbacks=callbacks)
    shown = capsys.readouterr().err.replace("\r", "\n").splitlines()
    last = shown[-1]
    assert "| 3/3 [" in last
    assert last.endswith(", weights=50.0%, density=25.0%, error=1.2%]")
    assert "loss" not in "".join(shown)
    assert callbacks[1].batch_bar.n == callbacks[1].batch_bar.total == 2
    assert max(map(len, shown)) <= 83  # with what moves the cursor


def test_a_resumed_run_says_so(images, capsys):
    model = two_layers(None)
    model.fit(
        *images,
        epochs=7,
        initial_epoch=5,
        verbose=0,
        callbacks=[Figures(), Progress(5)],
    )
    shown = capsys.readouterr().err.replace("\r", "\n").splitlines()
    assert any("resuming at epoch 6" in line for line in shown)
    assert "| 7/7 [" in shown[-1]
