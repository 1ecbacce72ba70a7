"""Data sets: the digits, tensorflow-datasets folders, and the batches."""

import dataclasses

import keras
import numpy as np
import pytest
import sklearn.datasets
import tensorflow as tf
import tensorflow_datasets as tfds
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_sgl0.experiments import datasets

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


def test_normalized_images_have_mean_0_and_stddev_1(digits):
    normalized = digits.normalized()
    (images, _), *rest = normalized.train_batches(
        digits.num_train, 1, seed=0
    ).as_numpy_iterator()
    assert not rest
    assert images.mean() == pytest.approx(0, abs=1e-5)
    assert images.std() == pytest.approx(1, rel=1e-5)
    raw = digits.train[0] / 255
    assert normalized.mean == pytest.approx((raw.mean(),))
    assert normalized.stddev == pytest.approx((raw.std(),))
    assert (digits.mean, digits.stddev) == ((0.0,), (1.0,))


@pytest.mark.parametrize(
    "pixels, low, high",
    [("unit", 0, 1), ("symmetric", -1, 1), ("bytes", 0, 255)],
)
def test_pixels_have_the_range_that_a_model_wants(digits, pixels, low, high):
    found = digits.normalized().with_pixels(pixels)
    ((images, _),) = found.test_batches(1000).as_numpy_iterator()
    raw = digits.test[0]
    assert images.dtype == "float32"
    np.testing.assert_allclose(
        images, low + (high - low) * (raw / 255), atol=1e-4
    )
    moved, _ = next(
        found.train_batches(8, 1, 0, augment="crop").as_numpy_iterator()
    )
    assert moved.min() == pytest.approx(low)


def test_pixels_may_be_normalized(digits):
    assert digits.with_pixels("normalized").mean == digits.normalized().mean
    with pytest.raises(ValueError, match="pixels"):
        digits.with_pixels("float")


def test_test_images_are_normalized_as_the_training_images(digits):
    normalized = digits.normalized()
    ((images, _),) = normalized.test_batches(1000).as_numpy_iterator()
    expected = (digits.test[0] / 255 - normalized.mean) / normalized.stddev
    np.testing.assert_allclose(images, expected, atol=1e-5)
    sample, labels = normalized.sample(5)
    expected = (digits.train[0][:5] / 255 - normalized.mean) / normalized.stddev
    np.testing.assert_allclose(sample, expected, atol=1e-5)
    np.testing.assert_array_equal(labels, digits.train[1][:5])


def test_channels_are_normalized_each_by_itself():
    rng = np.random.default_rng(0)
    images = rng.integers(0, (256, 128, 2), (50, 4, 4, 3)).astype("uint8")
    labels = np.zeros(50, int)
    colours = datasets.Dataset("c", (images, labels), (images, labels), 2)
    x, _ = colours.normalized().sample(50)
    np.testing.assert_allclose(x.mean((0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(x.std((0, 1, 2)), 1, rtol=1e-5)


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


def test_held_out_images_are_training_images(digits):
    part = digits.held_out(0.2)
    assert (part.num_train, len(part.test[1])) == (1150, 288)
    where = {image.tobytes(): i for i, image in enumerate(digits.train[0])}
    found = []
    for images, labels in (part.train, part.test):
        numbers = [where[image.tobytes()] for image in images]
        assert numbers == sorted(numbers)
        np.testing.assert_array_equal(labels, digits.train[1][numbers])
        found += numbers
    assert sorted(found) == sorted(where.values())
    # The digits come as 0, 1, 2, ...: no stretch and no comb of them.
    assert np.bincount(part.test[1]).min() > 15
    again = digits.held_out(0.2)
    np.testing.assert_array_equal(part.test[0], again.test[0])


@pytest.mark.parametrize("share", [0, 1, -0.1, "0.1", None, 0.01, 0.99])
def test_share_to_hold_out(share):
    with pytest.raises(ValueError, match="argument `share`"):
        TOY.held_out(share)


def test_unknown_name_message():
    with pytest.raises(ValueError) as error:
        datasets.load("cifar")
    assert str(error.value) == (
        "Invalid value for argument `name`. Expected one of 'digits', 'mnist', "
        "'fashion_mnist', 'cifar10', 'cifar100', 'svhn_cropped', "
        "'tiny_imagenet', or a folder of images that exists. Received: "
        "name='cifar'"
    )


def test_missing_folder(tmp_path):
    folder = str(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="a folder that exists") as error:
        datasets.load("mnist", folder)
    assert f"data_dir={folder!r}" in str(error.value)


@pytest.mark.parametrize(
    ("name", "classes"),
    [("cifar10", 10), ("cifar100", 100), ("svhn_cropped", 10)],
)
def test_color_images_come_from_tensorflow_datasets(
    tmp_path, monkeypatch, name, classes
):
    """From a folder whose archive was replaced by nine images."""

    def examples(split):
        for i in range(9):
            image = np.full((32, 32, 3), i + 10 * (split == "test"), "uint8")
            features = {"image": image, "label": i, "id": f"{i}"}
            if name == "cifar100":
                features["coarse_label"] = 0
            yield i, {k: features[k] for k in builder.info.features}

    builder = tfds.builder(name, data_dir=str(tmp_path))
    monkeypatch.setattr(
        type(builder),
        "_split_generators",
        lambda *_: {s: examples(s) for s in ("train", "test")},
    )
    dataset = datasets.load(name, str(tmp_path), download=True)
    assert dataset.num_classes == classes
    for (images, labels), first in ((dataset.train, 0), (dataset.test, 10)):
        assert images.shape == (9, 32, 32, 3)
        assert images.dtype == np.uint8
        np.testing.assert_array_equal(images[:, 0, 0, 2], labels + first)


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


@pytest.fixture(scope="module")
def color():
    """Color images of which no two pixels are alike, and their labels."""
    shape = (13, 6, 9, 3)
    rng = np.random.default_rng(0)
    images = rng.permutation(np.arange(np.prod(shape)) % 251 + 1)
    images = images.astype("uint8").reshape(shape)
    return datasets.Dataset(
        "color", (images, np.arange(13)), (images[:2], np.arange(2)), 13
    )


def seen(dataset, epochs, seed, batch_size=5, **arguments):
    """Returns the images of every epoch, in the order of their labels."""
    steps = dataset.steps_per_epoch(batch_size)
    batches = list(
        dataset.train_batches(
            batch_size, epochs, seed, **arguments
        ).as_numpy_iterator()
    )
    result = []
    for start in range(0, len(batches), steps):
        x, y = (
            np.concatenate(part)
            for part in zip(*batches[start : start + steps], strict=True)
        )
        result.append(np.rint(x[np.argsort(y)] * 255).astype("uint8"))
    return result


def variants(image, flip):
    """Returns place and mirroring of every crop of a padded image."""
    height, width, _ = image.shape
    padded = np.pad(image, [(4, 4), (4, 4), (0, 0)])
    found = {}
    for row in range(9):
        for column in range(9):
            crop = padded[row : row + height, column : column + width]
            found[crop.tobytes()] = (row, column, 0)
            if flip:
                found[crop[:, ::-1].tobytes()] = (row, column, 1)
    return found


@pytest.mark.parametrize("augment", ["crop", "crop_flip"])
def test_images_are_cropped_at_all_places(color, augment):
    flip = augment == "crop_flip"
    moves = []
    known = [variants(image, flip) for image in color.train[0]]
    for epoch in seen(color, 60, 0, augment=augment):
        assert epoch.shape == (13, 6, 9, 3)
        moves += [
            k[image.tobytes()] for k, image in zip(known, epoch, strict=True)
        ]
    rows, columns, mirrored = np.transpose(moves)
    # 780 draws of 9 places: 87 of each, with a standard deviation of 9.
    for places in (rows, columns):
        assert np.bincount(places, minlength=9).min() > 45
    assert mirrored.mean() == pytest.approx(0.5 * flip, abs=0.1)
    assert abs(np.corrcoef(rows, columns)[0, 1]) < 0.15


def test_without_augmentation_images_are_as_they_are(color):
    for epoch in seen(color, 2, 0):
        np.testing.assert_array_equal(epoch, color.train[0])


def test_moves_depend_on_seed_epoch_and_image_alone(color):
    moved = {"augment": "crop_flip"}
    whole = seen(color, 4, 1, **moved)
    assert not any(
        np.array_equal(a, b)
        for i, a in enumerate(whole)
        for b in [*whole[:i], *seen(color, 4, 2, **moved)]
    )
    others = seen(color, 4, 1, batch_size=3, **moved)
    resumed = seen(color, 4, 1, first_epoch=2, **moved)
    np.testing.assert_array_equal(others, whole)
    np.testing.assert_array_equal(resumed, whole[2:])


def test_the_order_is_that_without_augmentation(color):
    plain, moved = (
        labels_by_epoch(color.train_batches(5, 2, 0, augment=augment), 3)
        for augment in ("none", "crop")
    )
    assert plain == moved


def test_the_border_is_black_before_it_is_normalized(color):
    normalized = color.normalized()
    black = -np.array(normalized.mean) / normalized.stddev
    x, _ = next(
        normalized.train_batches(13, 1, 0, augment="crop").as_numpy_iterator()
    )
    distance = abs(x[:, [0, -1]] - black).max(-1)
    assert 0.3 < (distance < 1e-6).mean() < 0.9


def test_unknown_augmentation():
    with pytest.raises(ValueError, match="'none', 'crop', 'crop_flip'"):
        TOY.train_batches(2, 1, 0, augment="flip")


def test_normalized_has_the_training_images_mean_and_stddev(color):
    pixels = color.train[0].reshape(-1, 3) / 255
    normalized = color.normalized()
    np.testing.assert_allclose(normalized.mean, pixels.mean(0), rtol=1e-12)
    np.testing.assert_allclose(normalized.stddev, pixels.std(0), rtol=1e-12)
    x = np.concatenate(
        [x for x, _ in normalized.train_batches(4, 1, 0).as_numpy_iterator()]
    )
    np.testing.assert_allclose(x.mean((0, 1, 2)), 0, atol=1e-6)
    np.testing.assert_allclose(x.std((0, 1, 2)), 1, rtol=1e-6)


CLASSES = ("n02", "n01", "n03")


def write_image(path, level, shape=(6, 6, 3)):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.full(shape, level, "uint8")
    path.write_bytes(tf.io.encode_jpeg(image, quality=100).numpy())


@pytest.fixture
def imagenet_folder(tmp_path):
    """Three classes with two images each; one of all is in shades of gray."""
    for place, name in enumerate(CLASSES):
        for i in range(2):
            path = tmp_path / "train" / name / "images" / f"{name}_{i}.JPEG"
            write_image(path, 50 * place + 20 * i, (6, 6, 1 + 2 * (place > 0)))
    lines = []
    for i, name in enumerate(("n03", "n02", "n03", "n01")):
        write_image(tmp_path / "val" / "images" / f"val_{i}.JPEG", 60 * i)
        lines.append(f"val_{i}.JPEG\t{name}\t0\t0\t5\t5\n")
    (tmp_path / "val" / "val_annotations.txt").write_text("".join(lines))
    (tmp_path / "wnids.txt").write_text("\n".join(CLASSES) + "\n")
    (tmp_path / "words.txt").write_text("")
    return tmp_path


def test_tiny_imagenet_is_read_from_its_folder(imagenet_folder):
    dataset = datasets.load("tiny_imagenet", str(imagenet_folder))
    assert dataset.num_classes == 3
    assert dataset.input_shape == (6, 6, 3)
    levels = ([0, 20, 50, 70, 100, 120], [0, 60, 120, 180])
    classes = ([0, 0, 1, 1, 2, 2], [2, 0, 2, 1])
    for (images, labels), level, label in zip(
        (dataset.train, dataset.test), levels, classes, strict=True
    ):
        assert images.dtype == np.uint8
        assert labels.tolist() == label
        assert abs(images.astype(int).mean((1, 2, 3)) - level).max() < 2
    x, y = next(iter(dataset.train_batches(6, 1, 0, augment="crop_flip")))
    assert (x.shape, y.shape) == ((6, 6, 6, 3), (6,))


@pytest.mark.parametrize(
    ("gone", "missing"),
    [
        ("wnids.txt", "wnids.txt"),
        ("val", "val/val_annotations.txt"),
        ("train", "train/n02/images/*.JPEG, train/n01/images/*.JPEG, "),
        ("train/n01", "train/n01/images/*.JPEG"),
        ("val/images/val_2.JPEG", "val/images/val_2.JPEG"),
        ("val/images", "val/images/val_2.JPEG and 1 more"),
    ],
)
def test_what_tiny_imagenet_lacks_is_named(imagenet_folder, gone, missing):
    (imagenet_folder / gone).rename(imagenet_folder / "elsewhere")
    with pytest.raises(ValueError) as caught:
        datasets.load("tiny_imagenet", str(imagenet_folder))
    message = str(caught.value)
    assert message.startswith("Invalid value for argument `data_dir`.")
    assert "Missing or empty in it: " in message
    assert missing in message
    assert message.endswith(f"data_dir={str(imagenet_folder)!r}")


@pytest.mark.parametrize(
    ("file", "content", "expected"),
    [
        ("wnids.txt", "", "empty in it: wnids.txt"),
        (
            "val/val_annotations.txt",
            "val_0.JPEG\tn01\nval_1.JPEG\tn09\n",
            "a class of wnids.txt in line 2 of val/val_annotations.txt",
        ),
        ("val/val_annotations.txt", "val_0.JPEG n01\n", "in line 1 of"),
        ("train/n01/images/n01_1.JPEG", "no image", "cannot be read"),
    ],
)
def test_what_is_wrong_in_tiny_imagenet_is_named(
    imagenet_folder, file, content, expected
):
    (imagenet_folder / file).write_text(content)
    with pytest.raises(ValueError) as caught:
        datasets.load("tiny_imagenet", str(imagenet_folder))
    assert expected in str(caught.value)


def test_tiny_imagenet_has_images_of_one_size(imagenet_folder):
    path = imagenet_folder / "train" / "n03" / "images" / "n03_0.JPEG"
    write_image(path, 0, (1, 6, 3))
    with pytest.raises(ValueError, match=r"n03_0\.JPEG is \(1, 6, 3\)"):
        datasets.load("tiny_imagenet", str(imagenet_folder))


@pytest.mark.parametrize(
    ("arguments", "name"),
    [((None,), "data_dir"), (("/nowhere", True), "download")],
)
def test_tiny_imagenet_is_not_fetched(arguments, name):
    with pytest.raises(ValueError, match=f"argument `{name}`"):
        datasets.load("tiny_imagenet", *arguments)


@pytest.fixture
def tuned(monkeypatch):
    """Whether each pipeline tunes itself that arrays were read from."""
    found = []
    own = tf.data.Dataset.as_numpy_iterator

    def read(self):
        found.append(self.options().autotune.enabled)
        return own(self)

    monkeypatch.setattr(tf.data.Dataset, "as_numpy_iterator", read)
    return found


def test_an_iterator_does_not_wait_for_what_tunes_it(
    imagenet_folder, tmp_path, tuned
):
    for batches in (
        TOY.train_batches(4, 2, 0),
        TOY.epoch_batches(4, 0),
        TOY.test_batches(),
    ):
        assert batches.options().autotune.enabled is False
    datasets.load("tiny_imagenet", str(imagenet_folder))
    (tmp_path / "a").mkdir()
    for i in range(5):
        image = np.full((2, 2, 1), i)
        keras.utils.save_img(tmp_path / "a" / f"{i}.png", image, scale=False)
    datasets.load(str(tmp_path))
    assert tuned == [False] * 3
