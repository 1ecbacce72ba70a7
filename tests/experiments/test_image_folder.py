import json

import keras
import numpy as np
import pytest
from test_scripts import as_flags, run_script

from keras_sgl0.experiments import datasets
from keras_sgl0.experiments.grid import plan
from keras_sgl0.experiments.overrides import with_settings
from keras_sgl0.experiments.recipes import RECIPES
from keras_sgl0.experiments.run import run

pytestmark = pytest.mark.tensorflow
RNG = np.random.default_rng(0)


def write(folder, number, shape=(6, 5, 3)):
    """Writes images whose first entry is their number."""
    folder.mkdir(parents=True)
    for i in range(number):
        image = RNG.integers(0, 255, shape)
        image[0, 0] = i
        keras.utils.save_img(folder / f"{i:02}.png", image, scale=False)


def test_every_fifth_image_of_a_class_is_a_test_image(tmp_path):
    write(tmp_path / "cat", 10)
    write(tmp_path / "dog", 6)
    data = datasets.load(str(tmp_path))
    assert data.num_classes == 2 and data.input_shape == (6, 5, 3)
    assert data.train[0].dtype == "uint8"
    np.testing.assert_array_equal(data.train[1], [0] * 8 + [1] * 5)
    np.testing.assert_array_equal(data.test[1], [0, 0, 1])
    np.testing.assert_array_equal(data.test[0][:, 0, 0, 0], [4, 9, 4])
    assert "13 training and 3 test images of 6x5x3 in 2 classes" in str(data)


def test_folders_of_train_and_test(tmp_path):
    for split, number in (("train", 4), ("test", 2)):
        for name in ("a", "b", "c"):
            write(tmp_path / split / name, number, (4, 4, 1))
    data = datasets.load(str(tmp_path))
    assert data.input_shape == (4, 4, 1)
    assert (len(data.train[1]), len(data.test[1])) == (12, 6)
    (tmp_path / "test" / "c").rename(tmp_path / "test" / "d")
    with pytest.raises(ValueError, match="other classes"):
        datasets.load(str(tmp_path))


def test_images_get_the_size_of_the_first(tmp_path):
    write(tmp_path / "a", 5, (4, 4, 3))
    write(tmp_path / "b", 5, (8, 6, 3))
    assert datasets.load(str(tmp_path)).input_shape == (4, 4, 3)


def test_folders_without_images(tmp_path):
    with pytest.raises(ValueError, match="has no images"):
        datasets.load(str(tmp_path))
    write(tmp_path / "a", 5)
    (tmp_path / "a" / "broken.png").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="cannot be read"):
        datasets.load(str(tmp_path))


def test_too_few_images_for_a_test_set(tmp_path):
    write(tmp_path / "a", 4)
    write(tmp_path / "b", 4)
    with pytest.raises(ValueError, match=r"`dataset`\. Expected a folder with"):
        datasets.load(str(tmp_path))


def test_a_recipe_of_a_folder(tmp_path, monkeypatch):
    write(tmp_path / "flowers" / "a", 5)
    write(tmp_path / "flowers" / "b", 5)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("flowers", "./flowers/", "~/flowers"):
        recipe = with_settings(RECIPES["digits"], {"dataset": name})
        assert recipe.dataset == str(tmp_path / "flowers")
    (own,) = plan(["digits"], grid={"dataset": ["flowers", "~/flowers"]})
    assert own.name == "digits-0-dataset=flowers"
    with pytest.raises(ValueError, match="or a folder of images that exists"):
        with_settings(recipe, {"dataset": "trees"})
    (tmp_path / "more" / "flowers").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"`set`\. Expected folders of"):
        plan(["digits"], grid={"dataset": ["flowers", "more/flowers"]})


def test_a_model_that_cannot_take_the_images(tmp_path):
    write(tmp_path / "a", 5)
    write(tmp_path / "b", 5)
    recipe = with_settings(RECIPES["digits"], {"dataset": str(tmp_path)})
    expected = r"at least 16.*\(model 'lenet5_caffe' for .* of 6x5x3 in 2"
    with pytest.raises(ValueError, match=expected):
        run(recipe, str(tmp_path / "run"), progress=False)
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "photos"
    for name in ("cat", "cow", "dog"):
        write(folder / name, 10, (18, 20, 3))
    return folder


SHORT = {"epochs": 1, "batch_size": 8}


def test_train_on_a_folder(photos, tmp_path):
    process = run_script(
        tmp_path,
        "train.py",
        f"--dataset={photos}",
        *as_flags(SHORT | {"validation": 0.2}),
    )
    assert process.returncode == 0, process.stderr
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name.startswith("digits-0-dataset=photos")
    model = keras.saving.load_model(folder / "model.keras")
    assert model.input_shape == (None, 18, 20, 3)
    assert model.output_shape == (None, 3)
    result = json.loads((folder / "result.json").read_text())
    assert result["recipe"]["dataset"] == str(photos)
    process = run_script(
        tmp_path,
        "shrink.py",
        f"--model={folder}/model.keras",
        f"--dataset={photos}",
        "--format=keras",
        "--rounds=1",
    )
    assert process.returncode == 0, process.stderr
    assert "test error" in process.stdout


def test_sweep_on_a_folder(photos, tmp_path):
    arguments = [f"--set={setting}" for setting in as_flags(SHORT)]
    process = run_script(
        tmp_path,
        "sweep.py",
        "--seeds=0,1",
        f"--set=dataset={photos}",
        *(argument.replace("=--", "=") for argument in arguments),
    )
    assert process.returncode == 0, process.stderr
    names = [path.name for path in (tmp_path / "runs/sweep").glob("*/")]
    ending = "-batch_size=8-dataset=photos-epochs=1"
    assert sorted(names) == [f"digits-{seed}{ending}" for seed in (0, 1)]
    table = (tmp_path / "runs/sweep/sweep.md").read_text()
    assert "photos" in table


@pytest.mark.parametrize("augment", ["none", "crop"])
def test_the_batches_of_an_epoch(tmp_path, augment):
    write(tmp_path / "a", 10)
    write(tmp_path / "b", 10)
    data = datasets.load(str(tmp_path))
    batches = data.epoch_batches(6, seed=1, augment=augment)
    assert int(batches.cardinality()) == 3
    first, second = (
        [(x, y) for x, y in batches.as_numpy_iterator()] for _ in range(2)
    )
    labels = [np.concatenate([y for _, y in own]) for own in (first, second)]
    assert [sorted(own) for own in labels] == [[0] * 8 + [1] * 8] * 2
    assert (labels[0] != labels[1]).any()
    images = [np.concatenate([x for x, _ in own]) for own in (first, second)]
    sums = [sorted(own.sum((1, 2, 3)).tolist()) for own in images]
    if augment == "none":
        np.testing.assert_allclose(*sums, rtol=1e-6)
        expected = sorted((data.train[0] / 255).sum((1, 2, 3)).tolist())
        np.testing.assert_allclose(sums[0], expected, rtol=1e-5)
    else:
        assert not np.allclose(*sums)
