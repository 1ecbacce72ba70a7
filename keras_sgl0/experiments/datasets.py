"""Loads data sets into memory and makes batches of them."""

import dataclasses
import os

import numpy as np

from keras_sgl0.experiments import digits, image_folder, tiny_imagenet
from keras_sgl0.experiments.augmentation import draw_moves, moved
from keras_sgl0.experiments.choices import (
    AUGMENTATIONS,
    DATASETS,
    PIXELS,
    data_set,
)
from keras_sgl0.experiments.pipelines import untuned
from keras_sgl0.utils.extras import name_extra
from keras_sgl0.utils.validation import (
    InputError,
    choice,
    finite_float,
    integer,
    require,
)

with name_extra():
    import tensorflow as tf

# The mean and the deviation with which pixels in [0, 1] get a range.
_RANGES = {"unit": (0.0, 1.0), "symmetric": (0.5, 0.5), "bytes": (0.0, 1 / 255)}
# No tensor decides what a pipeline does, so nothing has to be rewritten.
_as_written = tf.autograph.experimental.do_not_convert


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """Images and labels in memory, with batches as `tf.data` pipelines.

    Attributes:
        name: The data set's name.
        train: The training images, uint8 of shape `(n, height, width,
            channels)`, and their labels of shape `(n,)`.
        test: The test images and labels.
        num_classes: The number of classes.
        mean: The mean of each channel, which is subtracted from images scaled
            to [0, 1].
        stddev: The standard deviation of each channel, by which they are then
            divided.
    """

    name: str
    train: tuple[np.ndarray, np.ndarray]
    test: tuple[np.ndarray, np.ndarray]
    num_classes: int
    mean: tuple[float, ...] = (0.0,)
    stddev: tuple[float, ...] = (1.0,)

    def __str__(self) -> str:
        shape = "x".join(map(str, self.train[0].shape[1:]))
        return (
            f"{self.name}: {len(self.train[1]):,} training and "
            f"{len(self.test[1]):,} test images of {shape} in "
            f"{self.num_classes} classes"
        )

    def normalized(self) -> "Dataset":
        """Returns the data set, normalized by its training images."""
        levels = np.arange(256) / 255
        shares = _histograms(self.train[0]) / self.train[0][..., 0].size
        mean = shares @ levels
        variance = (shares * (levels - mean[:, None]) ** 2).sum(1)
        return dataclasses.replace(
            self,
            mean=tuple(mean.tolist()),
            stddev=tuple(np.sqrt(variance).tolist()),
        )

    def with_pixels(self, pixels: str) -> "Dataset":
        """Returns the data set with pixels as a model wants them.

        Args:
            pixels: `"unit"` for values from 0 to 1, `"symmetric"` from -1 to
                1, `"bytes"` from 0 to 255, and `"normalized"` as by
                `normalized`.

        Raises:
            ValueError: If it is something else.
        """
        if choice("pixels", pixels, PIXELS) == "normalized":
            return self.normalized()
        mean, stddev = _RANGES[pixels]
        return dataclasses.replace(self, mean=(mean,), stddev=(stddev,))

    def held_out(self, share: float) -> "Dataset":
        """Returns the data set with held-out training images as test set.

        Use it to choose settings, so that the test set is used only once.
        The images are drawn at random, always the same ones for a share and a
        number of training images.

        Args:
            share: The share of the training images to hold out, in (0, 1).

        Raises:
            ValueError: If the share is out of range, or if no image would be
                left for training or for testing.
        """
        share = finite_float("share", share, above=0, below=1)
        number = round(share * self.num_train)
        require(
            0 < number < self.num_train,
            "share",
            "a share that leaves images for training and for testing, of "
            f"{self.num_train}",
            share,
        )
        order = np.random.default_rng(0).permutation(self.num_train)
        return dataclasses.replace(
            self,
            train=_part(self.train, np.sort(order[number:])),
            test=_part(self.train, np.sort(order[:number])),
        )

    def divisible_by(self, number: int) -> "Dataset":
        """Returns the data set without the last few images.

        The numbers of training and of test images become multiples of
        `number`.

        Args:
            number: A positive integer.
        """

        def whole(pair):
            return _part(pair, slice(len(pair[1]) // number * number))

        return dataclasses.replace(
            self, train=whole(self.train), test=whole(self.test)
        )

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """The height, width and channels of an image."""
        return self.train[0].shape[1:]

    @property
    def num_train(self) -> int:
        """The number of training images, N in the papers."""
        return len(self.train[1])

    def steps_per_epoch(self, batch_size: int) -> int:
        """Returns the number of batches; the last one may be smaller."""
        return -(-self.num_train // batch_size)

    def train_batches(
        self,
        batch_size: int,
        epochs: int,
        seed: int,
        first_epoch: int = 0,
        augment: str = "none",
    ) -> tf.data.Dataset:
        """Returns shuffled training batches of the remaining epochs.

        The order depends only on `seed` and the epoch; the augmentation of an
        image only on `seed`, the epoch and the image. So a resumed run sees
        the same batches as an uninterrupted one. Pass `steps_per_epoch` to
        `fit` as well, since the pipeline does not mark the end of an epoch.

        Args:
            batch_size: The number of images in a batch. The last batch of an
                epoch may be smaller.
            epochs: The number of epochs of the whole run.
            seed: The seed of the order and the augmentation.
            first_epoch: The first epoch, counted from 0.
            augment: One of `"none"`, `"crop"` (pad each image with 4 black
                pixels on all sides and crop it to its size at a random
                position) and `"crop_flip"` (also mirror it left to right with
                probability 1/2; not for digits).

        Returns:
            Batches of float32 images and labels. Images are in [0, 1] unless
            the data set is normalized or has other pixels.

        Raises:
            ValueError: If `batch_size` is not positive or `augment` unknown.
        """
        batch_size = integer("batch_size", batch_size, at_least=1)
        choice("augment", augment, AUGMENTATIONS)
        steps = self.steps_per_epoch(batch_size)
        images, labels = (tf.constant(array) for array in self.train)

        @_as_written
        def plan(epoch):
            seeds = tf.stack([seed, epoch])
            order = tf.random.experimental.stateless_shuffle(
                tf.range(self.num_train), seeds
            )
            plans = [order]
            if augment != "none":
                moves = draw_moves(
                    self.num_train, seeds, augment == "crop_flip"
                )
                plans.append(tf.gather(moves, order))
            return tf.data.Dataset.range(steps).map(
                _as_written(
                    lambda i: tuple(
                        p[i * batch_size : (i + 1) * batch_size] for p in plans
                    )
                )
            )

        @_as_written
        def batch(indices, moves=None):
            x = tf.gather(images, indices)
            if moves is not None:
                x = moved(x, moves)
            return self._scaled(x), tf.gather(labels, indices)

        return _with_options(
            tf.data.Dataset.range(first_epoch, epochs)
            .flat_map(plan)
            .map(batch, num_parallel_calls=tf.data.AUTOTUNE)
            .prefetch(tf.data.AUTOTUNE)
        )

    def epoch_batches(
        self, batch_size: int, seed: int, augment: str = "none"
    ) -> tf.data.Dataset:
        """Returns the batches of one epoch, in a new order at each pass.

        For what calls `fit` itself, such as `compress`. The order follows the
        seed and the number of the pass.

        Args:
            batch_size: As in `train_batches`.
            seed: As in `train_batches`.
            augment: As in `train_batches`.

        Raises:
            ValueError: As in `train_batches`.
        """
        batch_size = integer("batch_size", batch_size, at_least=1)
        choice("augment", augment, AUGMENTATIONS)
        images, labels = (tf.constant(array) for array in self.train)

        @_as_written
        def batch(indices):
            x = tf.gather(images, indices)
            if augment != "none":
                seeds = tf.random.uniform((2,), maxval=2**30, dtype=tf.int32)
                number = tf.shape(indices)[0]
                x = moved(x, draw_moves(number, seeds, augment == "crop_flip"))
            return self._scaled(x), tf.gather(labels, indices)

        return _with_options(
            tf.data.Dataset.range(self.num_train)
            .shuffle(self.num_train, seed=seed)
            .batch(batch_size)
            .map(batch, num_parallel_calls=tf.data.AUTOTUNE)
            .prefetch(tf.data.AUTOTUNE)
        )

    def sample(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the first training images, scaled as in training.

        Args:
            number: The number of images.
        """
        images, labels = (array[:number] for array in self.train)
        return self._scaled(images).numpy(), labels

    def test_batches(self, batch_size: int = 1000) -> tf.data.Dataset:
        """Returns batches of the test set in order, scaled as in training.

        Args:
            batch_size: The number of images in a batch. The last batch may be
                smaller.
        """
        return _with_options(
            tf.data.Dataset.from_tensor_slices(self.test)
            .batch(batch_size)
            .map(_as_written(lambda x, labels: (self._scaled(x), labels)))
            .cache()
            .prefetch(tf.data.AUTOTUNE)
        )

    def _scaled(self, images):
        scaled = tf.cast(images, tf.float32) / 255.0
        return (scaled - self.mean) / self.stddev


def _with_options(batches):
    """Returns batches that workers split among them, and that end at once."""
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = (
        tf.data.experimental.AutoShardPolicy.DATA
    )
    return untuned(batches.with_options(options))


def _part(pair, part):
    """Returns some of the images and their labels."""
    images, labels = pair
    return images[part], labels[part]


def _histograms(images) -> np.ndarray:
    """Returns the histogram of each channel, of shape `(channels, 256)`."""
    counts = np.zeros((images.shape[-1], 256))
    for start in range(0, len(images), 1000):
        for channel, count in enumerate(counts):
            levels = images[start : start + 1000, ..., channel].ravel()
            count += np.bincount(levels, minlength=256)
    return counts


def load(
    name: str, data_dir: str | None = None, download: bool = False
) -> Dataset:
    """Loads a data set into memory.

    `"digits"` are the 1,797 handwritten digits of scikit-learn, which need no
    download: 8x8 images enlarged to 28x28, every fifth one a test image.
    `"tiny_imagenet"` is read from its unpacked archive, with the images in
    `val` as test set. A folder is a data set of your own, with one folder of
    images a class, in `train` and `test` or without these two; then every
    fifth image of a class is a test image. All images get the size of the
    first one. All others are read by tensorflow-datasets.

    Args:
        name: One of `DATASETS`, or a folder.
        data_dir: The folder of tensorflow-datasets. Default: the environment
            variable `TFDS_DATA_DIR`, or `~/tensorflow_datasets`. For Tiny
            ImageNet, the folder `tiny-imagenet-200`, without default.
        download: Whether to download a missing data set. Must be false for
            Tiny ImageNet.

    Raises:
        ValueError: If the name is unknown, or if the data set is missing or
            incomplete. The message names the folder, and the command that
            downloads the data set.

    Example:
        >>> load("digits").input_shape
        (28, 28, 1)
    """
    name = data_set("name", name)
    if name not in DATASETS:
        return Dataset(name, *image_folder.read(name))
    if name == "digits":
        return Dataset(name, *digits.read())
    if data_dir is not None:
        data_dir = os.path.abspath(os.path.expanduser(data_dir))
    if name == "tiny_imagenet":
        require(not download, "download", "False for Tiny ImageNet", download)
        return Dataset(name, *tiny_imagenet.read(data_dir))
    return _load_tfds(name, data_dir, download)


def _load_tfds(name: str, data_dir: str | None, download: bool) -> Dataset:
    with name_extra():
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
            raise FileNotFoundError("it is missing")
        train, test = tfds.as_numpy(
            builder.as_dataset(
                split=["train", "test"], batch_size=-1, as_supervised=True
            )
        )
    except (OSError, tf.errors.OpError) as problem:
        root = builder.data_dir_root
        raise InputError(
            f"The data set {name!r} cannot be read from {builder.data_dir} "
            f"({problem}). To download it, run: tfds build {name} "
            f"--data_dir={root}"
        ) from problem
    classes = builder.info.features["label"].num_classes
    return Dataset(name, train, test, classes)
