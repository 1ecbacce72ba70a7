r"""LeNet-5-Caffe on MNIST: the error that few multiply-adds can reach.

    python benchmarks/frontier.py --macs=.0462 --workdir=runs/frontier-0

1. A whole network is trained with dropout: the teacher.
2. A copy of it learns the labels and the teacher's outputs, without dropout,
   under group lasso on coupled channels whose weights are their multiply-adds,
   with a target. What dies is cut on the way.
3. With `--weights`, the smaller network goes on under a penalty on its single
   weights until so many are left.

With `--widths` a network that is narrow from the start, trained alike but for
the penalty, takes the place of 2 and 3.

There is no augmentation, and the error is that of the last epoch. With
`--held_out` it is measured on training images that were left out. A run that
was killed goes on. The figures are in `figures.json` in its folder.
"""

import json
import pathlib

import keras
import numpy as np
from absl import app, flags
from keras import ops

import keras_sgl0 as ks
from keras_sgl0.experiments.run import percent_wrong
from keras_sgl0.experiments.versions import versions

FLAGS = flags.FLAGS
flags.DEFINE_float("macs", 0.0924, "Share of the multiply-adds to keep.")
flags.DEFINE_integer("weights", 0, "Weights of kernels to keep; 0 for all.")
flags.DEFINE_integer("epochs", 120, "Epochs under the penalty.")
flags.DEFINE_integer("teacher_epochs", 40, "Epochs of the whole network.")
flags.DEFINE_float("factor", 7.0, "Coefficient of the penalty, times N.")
flags.DEFINE_float("learning_rate", 0.03, "Its largest value.")
flags.DEFINE_float("settle", 0.3, "Share of the epochs to reach the target in.")
flags.DEFINE_integer("minimum", 1, "Channels that each layer keeps.")
flags.DEFINE_float("distillation", 0.9, "Share of the teacher in the loss.")
flags.DEFINE_float("temperature", 2.0, "By which both outputs are divided.")
flags.DEFINE_list("widths", [], "Widths of a narrow network, such as 4,12,383.")
flags.DEFINE_integer("seed", 0, "Seed.")
flags.DEFINE_float("held_out", 0.0, "Share of the training images to test on.")
flags.DEFINE_string("data_dir", None, "Where MNIST is.")
flags.DEFINE_string("workdir", None, "Folder of the run.", required=True)

BATCH = 100


def distilled(y, logits):
    """Mixes the loss of the labels with that of a teacher's outputs.

    Args:
        y: A column of labels, then the outputs of the teacher.
        logits: The outputs.
    """
    labels, teacher = ops.cast(y[:, 0], "int32"), y[:, 1:]
    hard = keras.losses.sparse_categorical_crossentropy(
        labels, logits, from_logits=True
    )
    warm = FLAGS.temperature
    soft = keras.losses.categorical_crossentropy(
        ops.softmax(teacher / warm), logits / warm, from_logits=True
    )
    share = FLAGS.distillation
    return (1 - share) * hard + share * warm**2 * soft


def accuracy(y, logits):
    """Returns which examples are classified as their labels say."""
    return ops.equal(ops.cast(y[:, 0], "int32"), ops.argmax(logits, -1))


def cosine(peak, epochs, examples):
    """Returns a schedule that rises for an epoch and falls to zero."""
    steps = -(-examples // BATCH)
    return keras.optimizers.schedules.CosineDecay(
        0.0,
        max(steps * (epochs - 1), 1),
        warmup_target=peak,
        warmup_steps=steps,
    )


def teacher_of(folder, train):
    """Returns the whole network, trained."""
    file = folder / "teacher.keras"
    if file.exists():
        return keras.models.load_model(file)
    model = ks.models.LeNet5Caffe(dropout=0.5)
    model.compile(
        keras.optimizers.Adam(
            cosine(1e-3, FLAGS.teacher_epochs, len(train[0]))
        ),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.fit(
        *train,
        batch_size=BATCH,
        epochs=FLAGS.teacher_epochs,
        callbacks=[keras.callbacks.BackupAndRestore(folder / "backup")],
        verbose=2,
    )
    model.save(file)
    return model


def trained(model, data, epochs, callbacks, backup):
    """Returns a model trained on labels and teacher, without what died."""
    x, y = data
    model.compile(
        keras.optimizers.SGD(
            cosine(FLAGS.learning_rate, epochs, len(x)),
            momentum=0.9,
            nesterov=True,
        ),
        distilled,
        metrics=[accuracy],
    )
    model, _ = ks.fit_shrinking(
        model,
        x,
        y,
        batch_size=BATCH,
        epochs=epochs,
        shrink_every=3,
        callbacks=callbacks,
        backup=backup,
        verbose=2,
    )
    return ks.shrink(model)[0]


def pruned(teacher, data, folder):
    """Returns what a penalty leaves of a copy of the teacher."""
    model = ks.models.LeNet5Caffe()
    model.set_weights(teacher.get_weights())
    penalty = FLAGS.factor / len(data[0])
    small = trained(
        model,
        data,
        FLAGS.epochs,
        [
            ks.CoupledGroups(ks.GroupLasso(penalty), weight="macs"),
            ks.ProximalStep(),
            ks.TargetDensity(
                FLAGS.macs,
                of="macs",
                settle=FLAGS.settle,
                minimum=FLAGS.minimum,
            ),
            keras.callbacks.CSVLogger(folder / "epochs.csv", append=True),
        ],
        folder / "structures.npz",
    )
    if FLAGS.weights:
        number = sum(kernel.size for kernel in kernels_of(small))
        ks.regularize(small, ks.L1(penalty))
        small = trained(
            small,
            data,
            FLAGS.epochs,
            [
                ks.ProximalStep(),
                ks.TargetDensity(FLAGS.weights / number, settle=FLAGS.settle),
                keras.callbacks.CSVLogger(folder / "more.csv", append=True),
            ],
            folder / "weights.npz",
        )
    return small


def kernels_of(model):
    """Returns the kernels of a model, as arrays."""
    layers = [layer for layer in model.layers if layer.weights]
    return [ops.convert_to_numpy(layer.kernel) for layer in layers]


def main(_):
    folder = pathlib.Path(FLAGS.workdir)
    folder.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(FLAGS.seed)
    data = ks.datasets.load("mnist", FLAGS.data_dir)
    if FLAGS.held_out:
        data = data.held_out(FLAGS.held_out)
    images, y = data.train
    x = images.astype("float32") / 255
    teacher = teacher_of(folder, (x, y))
    taught = teacher.predict(x, batch_size=1000, verbose=0)
    targets = np.concatenate([y[:, None], taught], axis=1).astype("float32")
    if FLAGS.widths:
        small = trained(
            ks.models.LeNet5Caffe(widths=[int(n) for n in FLAGS.widths]),
            (x, targets),
            FLAGS.epochs,
            [keras.callbacks.CSVLogger(folder / "epochs.csv", append=True)],
            folder / "narrow.npz",
        )
    else:
        small = pruned(teacher, (x, targets), folder)
    test = data.test_batches()
    kernels = kernels_of(small)
    result = {
        "macs": ks.count_macs(small).macs,
        "parameters": small.count_params(),
        "weights": int(
            sum((ops.convert_to_numpy(k) != 0).sum() for k in kernels)
        ),
        "channels": [int(kernel.shape[-1]) for kernel in kernels[:-1]],
        "error": percent_wrong(small, test),
        "teacher_error": percent_wrong(teacher, test),
        "settings": {
            name: FLAGS[name].value
            for name in (
                "macs",
                "weights",
                "epochs",
                "teacher_epochs",
                "factor",
                "learning_rate",
                "settle",
                "minimum",
                "distillation",
                "temperature",
                "seed",
                "held_out",
                "widths",
            )
        },
        "versions": versions(),
    }
    (folder / "figures.json").write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    app.run(main)
