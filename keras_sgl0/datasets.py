"""Data sets by name: tensorflow-datasets, and one that needs no network."""

import dataclasses
import os

import numpy as np
import tensorflow as tf

from keras_sgl0.validation import InputError, choice, integer, require

DATASETS = ("digits", "mnist", "fashion_mnist")


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """Images and labels in memory, fed as `tf.data` pipelines.

    Attributes:
        name: The data set's name.
        train: Images `(n, height, width, channels)` in uint8, labels `(n,)`.
        test: The same of the test set.
        num_classes: The number of classes.
    """

    name: str
    train: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]
    num_classes: int

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of an image."""
        return self.train[0].shape[1:]

    @property
    def num_train(self) -> int:
        """The number of training images, N in the papers."""
        return len(self.train[1])

    def steps_per_epoch(self, batch_size: int) -> int:
        """Returns the batches of an epoch; the last one may be smaller."""
        return -(-self.num_train // batch_size)

    def train_batches(
        self, batch_size: int, epochs: int, seed: int, first_epoch: int = 0
    ) -> tf.data.Dataset:
        """Returns shuffled training batches of all epochs from `first_epoch`.

        The order of an epoch depends on `seed` and the epoch alone, so a
        resumed run sees the batches the uninterrupted one would have seen.
        Give `fit` `steps_per_epoch`, too.

        Args:
            batch_size: Images a batch; the last batch of an epoch has the
                rest.
            epochs: The epoch to end before.
            seed: Of the order.
            first_epoch: The epoch to begin with, counted from 0.

        Returns:
            Batches of images in [0, 1], float32, and labels.

        Raises:
            ValueError: If `batch_size` is not positive.
        """
        batch_size = integer("batch_size", batch_size, at_least=1)
        steps = self.steps_per_epoch(batch_size)

        def epoch_indices(epoch):
            order = tf.random.experimental.stateless_shuffle(
                tf.range(self.num_train), seed=tf.stack([seed, epoch])
            )
            return tf.data.Dataset.range(steps).map(
                lambda i: order[i * batch_size : (i + 1) * batch_size]
            )

        images, labels = (tf.constant(array) for array in self.train)
        indices = tf.data.Dataset.range(first_epoch, epochs)
        return (
            indices.flat_map(epoch_indices)
            .map(
                lambda i: (_scaled(tf.gather(images, i)), tf.gather(labels, i)),
                num_parallel_calls=tf.data.AUTOTUNE,
            )
            .prefetch(tf.data.AUTOTUNE)
        )

    def sample(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the first training images, in [0, 1], and their labels.

        Args:
            number: How many.
        """
        images, labels = (array[:number] for array in self.train)
        return images.astype("float32") / 255, labels

    def test_batches(self, batch_size: int = 1000) -> tf.data.Dataset:
        """Returns the test set, in order, images in [0, 1] and labels.

        Args:
            batch_size: Images a batch; the last batch has the rest.
        """
        return (
            tf.data.Dataset.from_tensor_slices(self.test)
            .batch(batch_size)
            .map(lambda images, labels: (_scaled(images), labels))
            .cache()
            .prefetch(tf.data.AUTOTUNE)
        )


def load(
    name: str, data_dir: str | None = None, download: bool = False
) -> Dataset:
    """Loads a data set into memory.

    `"digits"`, the 1,797 handwritten digits that come with scikit-learn, needs
    no network: 8x8 images enlarged to 28x28, every fifth one a test image.
    All others are read by tensorflow-datasets.

    Args:
        name: One of `DATASETS`.
        data_dir: The tensorflow-datasets folder. Default: its own default,
            `$TFDS_DATA_DIR` or `~/tensorflow_datasets`.
        download: Whether to fetch a data set that is not in the folder.

    Raises:
        ValueError: If the name is unknown or the data set is not there; the
            message names the folder and the command that would fetch it.

    Example:
        >>> load("digits").input_shape
        (28, 28, 1)
    """
    choice("name", name, DATASETS)
    if name == "digits":
        return _load_digits()
    if data_dir is not None:
        data_dir = os.path.abspath(os.path.expanduser(data_dir))
    return _load_tfds(name, data_dir, download)


def _load_digits() -> Dataset:
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = tf.image.resize(
        digits.images[..., None] * (255 / 16), (28, 28), method="bicubic"
    )
    images = np.clip(np.rint(images), 0, 255).astype("uint8")
    labels = digits.target.astype("int64")
    test = np.arange(len(labels)) % 5 == 4
    return Dataset(
        "digits",
        (images[~test], labels[~test]),
        (images[test], labels[test]),
        num_classes=10,
    )


def _load_tfds(name: str, data_dir: str | None, download: bool) -> Dataset:
    import tensorflow_datasets as tfds

    if data_dir is not None and not download:
        require(
            os.path.isdir(data_dir),
            "data_dir",
            "a folder that exists",
            data_dir,
        )
    builder = tfds.builder(name, data_dir=data_dir)
    try:
        if download:
            builder.download_and_prepare()
        if not builder.is_prepared():
            raise FileNotFoundError("it is not there")
        train, test = tfds.as_numpy(
            builder.as_dataset(
                split=["train", "test"], batch_size=-1, as_supervised=True
            )
        )
    except (OSError, tf.errors.OpError) as problem:
        root = builder.data_dir_root
        raise InputError(
            f"The data set {name!r} cannot be read from {builder.data_dir} "
            f"({problem}). To fetch it, run: tfds build {name} "
            f"--data_dir={root}"
        ) from problem
    classes = builder.info.features["label"].num_classes
    return Dataset(name, train, test, classes)


def _scaled(images):
    return tf.cast(images, tf.float32) / 255.0
