"""The comparison of what tells which channels go, and its table and figure."""

import dataclasses
import json

import keras
import numpy as np
import pytest
from keras import layers

from keras_sgl0.experiments import plots
from keras_sgl0.experiments.building import compile_classifier
from keras_sgl0.experiments.datasets import Dataset
from keras_sgl0.experiments.importance_rows import COLUMNS, Row, read_rows
from keras_sgl0.experiments.importances import Comparison
from keras_sgl0.experiments.result_tables import fill_page

pytestmark = pytest.mark.tensorflow


@pytest.fixture(scope="module")
def comparison(tmp_path_factory):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (80, 4, 4, 1)).astype("uint8")
    labels = (images[:, 0, 0, 0] > 127).astype("int64")
    pair = images, labels
    data = Dataset("squares", pair, pair, num_classes=2)
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((4, 4, 1)),
            layers.Flatten(),
            layers.Dense(8, use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Dense(2),
        ]
    )
    compile_classifier(model, keras.optimizers.Adam(0.01))
    folder = tmp_path_factory.mktemp("importances")
    return Comparison(
        model,
        data,
        share=0.5,
        epochs=2,
        validation=0.25,
        augment="none",
        batch_size=20,
        folder=str(folder / "rows"),
        workdir=str(folder / "work"),
    )


def test_a_row_is_filled_in_once(comparison, monkeypatch):
    row = comparison.run("l1", 0)
    assert list(row.errors) == list(row.held_out) == list(COLUMNS)
    assert all(0 <= error <= 100 for error in row.errors.values())
    assert row.scope in ("family", "global", "cost")
    assert 0.25 < row.macs <= 0.5
    (path,) = read_rows([comparison.folder])
    assert path == row
    # What is there is not made again, and what is not is.
    file = f"{comparison.folder}/l1-0.json"
    content = json.loads(open(file).read())
    del content["errors"]["statistics"]
    content["errors"]["cut"] = 12.5
    with open(file, "w") as out:
        json.dump(content, out)
    again = comparison.run("l1", 0)
    assert again.errors == {**row.errors, "cut": 12.5}
    other = dataclasses.replace(comparison, share=0.6)
    with pytest.raises(ValueError, match=r"`share`. Expected 0\.5"):
        other.run("l1", 0)
    with pytest.raises(ValueError, match="`rows`"):
        comparison.run("magic", 0)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["group_lasso", "gates"])
def test_a_row_that_is_a_training(comparison, name):
    row = comparison.run(name, 1)
    assert row.scope == "" and row.errors["repaired"] is None
    assert all(row.errors[c] is not None for c in COLUMNS if c != "repaired")


def rows(name, *errors):
    first = Row(name, 0, "squares", 0.5, 2, 0.25, 2.0, "family", 0.5)
    return [
        dataclasses.replace(
            first, seed=seed, errors=dict.fromkeys(COLUMNS, error)
        )
        for seed, error in enumerate(errors)
    ]


def write(folder, found):
    for row in found:
        path = folder / f"{row.row}-{row.seed}.json"
        path.write_text(json.dumps(dataclasses.asdict(row)))


def test_the_table(tmp_path):
    (row,) = rows("gates", 7.5)
    row.errors["repaired"] = None
    write(tmp_path, [*rows("l2", 1.0, 3.0), row])
    page = tmp_path / "page.md"
    page.write_text(
        "| what | scope | one shot | repair | seeds | cut |\n"
        "|---|---|---|---|---|---|\n"
        "| l2 | | | | | [0](l2-0.json) [1](l2-1.json) |\n"
        "| gates | | | ? | | [0](gates-0.json) |\n"
    )
    lines = fill_page(page).splitlines()
    assert lines[2].startswith("| l2 | family | 2.00 ± 1.41 | 2.00 ± 1.41 | 2")
    assert lines[3].startswith("| gates | family | 7.50 | | 1 |")
    (tmp_path / "l2-0.json").write_text("{}")
    with pytest.raises(ValueError, match="has no row"):
        fill_page(page)


def test_the_figure(tmp_path):
    write(tmp_path, [*rows("gates", 4.0), *rows("l2", 1.0, 3.0)])
    (axis,) = plots.importances([tmp_path]).axes
    names = [text.get_text() for text in axis.get_yticklabels()]
    assert names == ["l2", "gates"]
    assert axis.containers[0].lines[0].get_xdata().tolist() == [2.0, 4.0]
    with pytest.raises(ValueError, match="files of a comparison"):
        plots.importances([])
