"""Data sets: the digits, tensorflow-datasets folders, and the batches."""

import dataclasses

import numpy as np
import pytest
import sklearn.datasets
import tensorflow_datasets as tfds
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_sgl0 import datasets

pytestmark = pytest.mark.tensorflow

# Enough to find each image again by its label.
TOY = datasets.Dataset(
    "toy",
    (np.full((11, 2, 3, 1), 51, "uint8"), np.arange(11)),
    (np.arange(5, dtype="uint8")[:, None, None, None] * 51, np.arange(5)),
    num_classes=11,
)


@pytest.fixture(scope="module")
def digits():
    return datasets.load("digits")


@pytest.fixture(scope="module")
def tfds_folder(tmp_path_factory):
    """A folder fetched by `load` itself, from a source of 30 + 10 images."""
    folder = str(tmp_path_factory.mktemp("tfds"))
    builder = tfds.image_classification.MNIST
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            builder,
            "_split_generators",
            lambda self, _: {
                "train": self._generate_examples(0, 30),
                "test": self._generate_examples(30, 40),
            },
        )
        patch.setattr(
            builder,
            "_generate_examples",
            lambda self, start, stop: (
                (
                    i,
                    {
                        "image": np.full((28, 28, 1), i, "uint8"),
                        "label": i % 10,
                    },
                )
                for i in range(start, stop)
            ),
        )
        for name in ("mnist", "fashion_mnist"):
            datasets.load(name, folder, download=True)
    return folder


def labels_by_epoch(batches, steps):
    """Returns the labels, a list of batches for each epoch."""
    labels = [y.tolist() for _, y in batches.as_numpy_iterator()]
    return [labels[i : i + steps] for i in range(0, len(labels), steps)]


def test_digits_shapes_and_types(digits):
    assert digits.input_shape == (28, 28, 1)
    assert digits.num_classes == 10
    for images, labels in (digits.train, digits.test):
        assert images.shape[1:] == (28, 28, 1)
        assert images.dtype == np.uint8
        assert labels.shape == (len(images),)
        assert set(labels.tolist()) == set(range(10))


def test_digits_split_sizes(digits):
    assert digits.num_train == len(digits.train[0]) == 1438
    assert len(digits.test[0]) == len(digits.test[1]) == 359


def test_digits_use_the_range_of_uint8(digits):
    images = digits.train[0]
    assert images.min() == 0
    assert images.max() == 255
    assert 60 < images.mean() < 100


def test_digits_test_set_is_every_fifth_image(digits):
    source = sklearn.datasets.load_digits()
    is_test = np.arange(1797) % 5 == 4
    for (images, labels), chosen in (
        (digits.train, ~is_test),
        (digits.test, is_test),
    ):
        np.testing.assert_array_equal(labels, source.target[chosen])
        ours = images.mean(axis=(1, 2, 3)) / 255
        theirs = source.images[chosen].mean(axis=(1, 2)) / 16
        np.testing.assert_allclose(ours, theirs, atol=0.03)


def test_digits_are_the_same_on_every_load(digits):
    again = datasets.load("digits")
    for ours, theirs in zip(
        digits.train + digits.test, again.train + again.test, strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


def test_dataset_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        TOY.name = "another"


@pytest.mark.parametrize(
    ("batch_size", "steps"), [(1, 11), (4, 3), (5, 3), (11, 1), (100, 1)]
)
def test_steps_per_epoch_count_the_smaller_last_batch(batch_size, steps):
    assert TOY.steps_per_epoch(batch_size) == steps


@settings(max_examples=15, deadline=None)
@given(
    batch_size=st.integers(1, 13),
    epochs=st.integers(1, 4),
    seed=st.integers(0, 2**31 - 1),
)
def test_each_epoch_has_every_image_once(batch_size, epochs, seed):
    steps = TOY.steps_per_epoch(batch_size)
    found = labels_by_epoch(TOY.train_batches(batch_size, epochs, seed), steps)
    assert len(found) == epochs
    for batches in found:
        assert sorted(np.concatenate(batches).tolist()) == list(range(11))
        assert {len(b) for b in batches[:-1]} <= {batch_size}
        assert len(batches[-1]) == 11 - batch_size * (steps - 1)


@pytest.mark.parametrize("first_epoch", [0, 1, 3, 4])
def test_resumed_batches_are_those_of_the_uninterrupted_run(first_epoch):
    whole = labels_by_epoch(TOY.train_batches(4, 4, seed=7), 3)
    resumed = TOY.train_batches(4, 4, seed=7, first_epoch=first_epoch)
    assert labels_by_epoch(resumed, 3) == whole[first_epoch:]


def test_order_changes_with_seed_and_epoch():
    one, two = (
        labels_by_epoch(TOY.train_batches(11, 2, seed), 1) for seed in (0, 1)
    )
    orders = [epoch[0] for epoch in one + two]
    assert len(set(map(tuple, orders))) == 4
    assert list(range(11)) not in orders


def test_order_does_not_depend_on_the_number_of_epochs():
    few = labels_by_epoch(TOY.train_batches(4, 2, seed=0), 3)
    assert labels_by_epoch(TOY.train_batches(4, 5, seed=0), 3)[:2] == few


def test_train_batches_pair_scaled_images_with_their_labels(digits):
    images, labels = digits.train
    unmatched = {
        (image.tobytes(), label)
        for image, label in zip(images, labels, strict=True)
    }
    for x, y in digits.train_batches(500, 1, seed=3).as_numpy_iterator():
        assert x.dtype == np.float32
        assert x.min() == 0.0
        assert x.max() == 1.0
        restored = np.rint(x * 255).astype("uint8")
        unmatched -= {
            (image.tobytes(), label)
            for image, label in zip(restored, y, strict=True)
        }
    assert not unmatched


def test_test_batches_are_scaled_and_in_order():
    batches = list(TOY.test_batches(2).as_numpy_iterator())
    assert [len(y) for _, y in batches] == [2, 2, 1]
    images = np.concatenate([x for x, _ in batches])
    assert images.dtype == np.float32
    np.testing.assert_allclose(images.ravel(), [0, 0.2, 0.4, 0.6, 0.8])
    assert np.concatenate([y for _, y in batches]).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("batch_size", [0, -1, 2.5, None])
def test_batch_size_must_be_a_positive_integer(batch_size):
    with pytest.raises(ValueError, match="integer of at least 1") as error:
        TOY.train_batches(batch_size, 1, 0)
    assert f"batch_size={batch_size!r}" in str(error.value)


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_fetched_folder_loads_without_download(tfds_folder, name):
    dataset = datasets.load(name, tfds_folder)
    assert dataset.name == name
    assert dataset.num_classes == 10
    assert dataset.input_shape == (28, 28, 1)
    for (images, labels), numbers in (
        (dataset.train, range(30)),
        (dataset.test, range(30, 40)),
    ):
        assert images.shape == (len(numbers), 28, 28, 1)
        assert images.dtype == np.uint8
        assert sorted(images[:, 0, 0, 0].tolist()) == list(numbers)
        np.testing.assert_array_equal(labels, images[:, 0, 0, 0] % 10)


def test_same_folder_gives_the_same_order(tfds_folder):
    one, two = (datasets.load("mnist", tfds_folder) for _ in range(2))
    np.testing.assert_array_equal(one.train[0], two.train[0])


def test_fetched_folder_is_not_fetched_again(tfds_folder):
    dataset = datasets.load("mnist", tfds_folder, download=True)
    assert dataset.num_train == 30


def test_unknown_name_message():
    with pytest.raises(ValueError) as error:
        datasets.load("cifar")
    assert str(error.value) == (
        "Invalid value for argument `name`. Expected one of 'digits', 'mnist', "
        "'fashion_mnist'. Received: name='cifar'"
    )


def test_missing_folder(tmp_path):
    folder = str(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="a folder that exists") as error:
        datasets.load("mnist", folder)
    assert f"data_dir={folder!r}" in str(error.value)


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_empty_folder_message_has_the_command_that_fetches(tmp_path, name):
    with pytest.raises(ValueError) as error:
        datasets.load(name, str(tmp_path))
    message = str(error.value)
    assert f"{name!r} cannot be read from {tmp_path}/{name}" in message
    assert message.endswith(f"tfds build {name} --data_dir={tmp_path}")
    assert not list(tmp_path.iterdir())


def test_home_folder_may_be_written_as_a_tilde(tfds_folder, monkeypatch):
    monkeypatch.setenv("HOME", tfds_folder)
    assert datasets.load("mnist", "~").num_train == 30
