import keras
import networks
import pytest
from three_classes import TRAIN


@pytest.fixture(scope="module")
def trained():
    keras.utils.set_random_seed(0)
    model = networks.mlp()
    model.compile(
        keras.optimizers.Adam(0.01),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    model.fit(*TRAIN, epochs=12, verbose=0)
    return model
