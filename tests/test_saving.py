import keras
import numpy as np
import pytest
from helpers import two_layers
from processes import run_code

import keras_sgl0 as ks

LOAD = """
import sys
import keras, keras_sgl0
for path in sys.argv[1:]:
    model = keras.saving.load_model(path)
    print([
        (type(r).__module__, type(r).__name__, r.factor, r.axis)
        for layer in model.layers
        for r in (layer.kernel_regularizer, layer.kernel.regularizer)
    ])
"""


@pytest.fixture
def saved(images, tmp_path):
    """Returns the paths of a model saved during and after `fit`."""
    model = two_layers(ks.SGL0(1e-3, axis="auto"))
    model.fit(
        *images,
        verbose=0,
        callbacks=[
            ks.VariableSplitting(0.1),
            keras.callbacks.ModelCheckpoint(tmp_path / "during.keras"),
        ],
    )
    model.save(tmp_path / "after.keras")
    return [tmp_path / "during.keras", tmp_path / "after.keras"], model


def test_saved_models_load_with_the_plain_penalty_in_a_new_process(saved):
    printed = run_code(LOAD, *saved[0], check=True).stdout
    plain = ("keras_sgl0.regularizers.sparse_group", "SGL0", 1e-3, "auto")
    assert printed.splitlines() == 2 * [str(4 * [plain])]


def test_saved_models_give_the_same_outputs_and_train_on(saved, images):
    paths, model = saved
    for path in paths:
        again = keras.saving.load_model(path)
        np.testing.assert_allclose(
            again.predict(images[0], verbose=0),
            model.predict(images[0], verbose=0),
            rtol=1e-6,
        )
        again.fit(*images, verbose=0, callbacks=[ks.VariableSplitting(0.1)])


def test_a_model_can_be_cloned_during_and_after_fit(images):
    model = two_layers(ks.SGL0(1e-3))
    clones = []

    def clone(epoch, logs):
        clones.append(keras.models.clone_model(model))

    during = keras.callbacks.LambdaCallback(on_epoch_end=clone)
    splitting = ks.VariableSplitting(0.1)
    model.fit(*images, verbose=0, callbacks=[splitting, during])
    for copy in (*clones, keras.models.clone_model(model)):
        for layer in copy.layers:
            assert type(layer.kernel.regularizer) is ks.SGL0
            assert layer.kernel_regularizer.factor == 1e-3


@pytest.mark.tensorflow
def test_loggers_see_sparsity_and_threshold(images, tmp_path):
    model = two_layers(ks.SGL0(1e-3))
    logger = keras.callbacks.CSVLogger(tmp_path / "log.csv")
    board = keras.callbacks.TensorBoard(tmp_path / "board")
    model.fit(
        *images,
        verbose=0,
        callbacks=[
            ks.VariableSplitting(0.1),
            ks.SparsityMonitor(),
            logger,
            board,
        ],
    )
    names = {"beta", "threshold", "weight_sparsity", "neuron_sparsity"}
    header = (tmp_path / "log.csv").read_text().splitlines()[0]
    assert names <= set(header.split(","))
    (events,) = (tmp_path / "board" / "train").glob("*.tfevents.*")
    written = events.read_bytes()
    assert all(f"epoch_{name}".encode() in written for name in names)
