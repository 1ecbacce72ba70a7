"""The code of README and of the guides runs, page by page.

A page's blocks share their names, and find those that the guides say there
are: `x_train`, `model` and so on. Trainings are cut to one epoch.
"""

import functools
import pathlib
import re

import keras
import numpy as np
import pytest
from helpers import QUICK

import keras_sgl0 as ks

ROOT = pathlib.Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
CODE = {
    str(page.relative_to(ROOT)): "".join(BLOCK.findall(page.read_text()))
    for page in PAGES
}
CODE = {name: code for name, code in CODE.items() if code}
# What takes a few seconds. The others train several times.
QUICK_PAGES = {
    "README.md",
    "docs/api/index.md",
    "docs/guides/data.md",
    "docs/guides/own.md",
    "docs/guides/rules.md",
}
pytestmark = pytest.mark.tensorflow


def small_model():
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(4, 5, strides=4, activation="relu", name="conv1"),
            layers.Conv2D(4, 3, strides=2, activation="relu", name="conv2"),
            layers.Flatten(),
            layers.Dense(10, name="predictions"),
        ]
    )
    model.compile(
        "adam",
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        **QUICK,
    )
    return model


def names():
    """Returns what the guides say that there is."""
    rng = np.random.default_rng(0)
    x, y = rng.random((96, 28, 28, 1), "float32"), rng.integers(0, 10, 96)
    return {
        "__name__": "guide",
        "keras": keras,
        "ks": ks,
        "x_train": x,
        "y_train": y,
        "x_val": x[:32],
        "y_val": y[:32],
        "images": x,
        "labels": y,
        "model": small_model(),
    }


def pages():
    for name in CODE:
        slow = () if name in QUICK_PAGES else pytest.mark.slow
        yield pytest.param(name, marks=slow, id=name)


@pytest.mark.parametrize("page", pages())
def test_the_code_of_a_page_runs(page, tmp_path, monkeypatch, capsys):
    fit = keras.Model.fit

    @functools.wraps(fit)
    def short(self, *args, epochs=1, initial_epoch=0, **kwargs):
        epochs = min(epochs, initial_epoch + 1)
        return fit(
            self, *args, epochs=epochs, initial_epoch=initial_epoch, **kwargs
        )

    monkeypatch.setattr(keras.Model, "fit", short)
    monkeypatch.chdir(tmp_path)
    small_model().save("my.keras")
    exec(compile(CODE[page], page, "exec"), names())
    if page.endswith("rules.md"):
        assert "ChannelScaleRule" in capsys.readouterr().out
