r"""Transformers trained under a penalty on structures, beside narrower ones.

    python benchmarks/transformers.py --task=images --method=coupled \
      --workdir=runs/images-coupled-0

Two tasks: `images`, a vision transformer on CIFAR-10; and `text`, a language
model on the characters of Python's own standard library. Three methods:
`whole`; `narrower`, the widest network of the kind with at most `density` of
the multiply-adds; and `coupled`, the whole network under group lasso on its
structures: sizes of keys and values (with `--inside=heads` whole heads), hidden
units of the feed-forward parts and the width of the stream. It is asked for as
many multiply-adds as the narrower one has. A run that was killed goes on, with
other images than an uninterrupted one. Its figures are in `figures.json` in its
folder.
"""

import json
import pathlib
import sysconfig

import keras
import numpy as np
from absl import app, flags
from keras import layers
from networks.transformers import Positions
from networks.transformers import encoder as any_encoder

import keras_sgl0 as ks
from keras_sgl0.experiments.versions import versions

FLAGS = flags.FLAGS
flags.DEFINE_enum("task", "images", ["images", "text"], "What is learned.")
flags.DEFINE_enum("method", "coupled", ["whole", "narrower", "coupled"], "How.")
flags.DEFINE_float("density", 0.5, "The share of the multiply-adds to keep.")
flags.DEFINE_float(
    "factor", 3000.0, "Coefficient of the penalty, times 50,000."
)
flags.DEFINE_enum(
    "training",
    "proximal",
    ["proximal", "subgradient"],
    "How the penalty acts: by steps of its own, or by its gradient.",
)
flags.DEFINE_enum(
    "inside",
    "dimensions",
    ["all", "heads", "dimensions"],
    "What of attention layers has the penalty.",
)
flags.DEFINE_float("weight_decay", 0.0, "That of AdamW; 0 for Adam.")
flags.DEFINE_integer("epochs", 20, "Epochs; of 500 steps with text.")
flags.DEFINE_integer("seed", 0, "Seed.")
flags.DEFINE_float("held_out", 0.0, "Share of the training images to test on.")
flags.DEFINE_string("data_dir", None, "Where CIFAR-10 is.")
flags.DEFINE_string("workdir", None, "Folder of the run.", required=True)

LENGTH, BATCH = 128, 32  # of the text


def encoder(x, **call):
    """Adds a block with RMS normalizations, so that the width can be cut."""
    return any_encoder(x, norm=layers.RMSNormalization, **call)


def vision_transformer(width=64, depth=4):
    """Takes 32x32 images as 64 patches."""
    x = inputs = keras.Input((32, 32, 3))
    x = layers.Conv2D(width, 4, 4)(x)
    x = Positions()(layers.Reshape((64, width))(x))
    for _ in range(depth):
        x = encoder(x)
    x = layers.GlobalAveragePooling1D()(layers.RMSNormalization()(x))
    return keras.Model(inputs, layers.Dense(10, name="logits")(x))


def language_model(width=96, depth=4):
    """Predicts each character from those before it."""
    x = tokens = keras.Input((LENGTH,), dtype="int32")
    x = Positions()(layers.Embedding(128, width)(x))
    for _ in range(depth):
        x = encoder(x, use_causal_mask=True)
    x = layers.RMSNormalization()(x)
    return keras.Model(tokens, layers.Dense(128, name="logits")(x))


def narrowed(build, density):
    """Returns the widest network with at most that share of the MACs."""
    most = density * ks.count_macs(build()).macs
    for width in range(4, 1000, 4):
        if ks.count_macs(build(width + 4)).macs > most:
            return build(width)


def images():
    """Returns batches, steps, and what to test on."""
    data = ks.datasets.load("cifar10", FLAGS.data_dir).normalized()
    if FLAGS.held_out:
        data = data.held_out(FLAGS.held_out)
    train = data.train_batches(
        128, FLAGS.epochs, FLAGS.seed, augment="crop_flip"
    )
    return train, data.steps_per_epoch(128), (data.test_batches(),)


def text():
    """Returns batches, steps, and what to test on.

    The text is the standard library without its tests; every tenth file is
    for the test.
    """
    root = pathlib.Path(sysconfig.get_paths()["stdlib"])
    parts = {"train": [], "test": []}
    files = [
        f
        for f in sorted(root.rglob("*.py"))
        if not {"site-packages", "test", "tests"} & set(f.parts)
    ]
    for i, file in enumerate(files):
        ascii_only = file.read_bytes().decode("ascii", "ignore").encode()
        parts["test" if i % 10 == 9 else "train"].append(ascii_only)
    train, test = (
        np.frombuffer(b"".join(parts[name]), np.uint8).astype("int32")
        for name in ("train", "test")
    )

    class Pieces(keras.utils.PyDataset):
        def __len__(self):
            return 500

        def __getitem__(self, number):
            # The same pieces in the same order, whenever the run began.
            rng = np.random.default_rng((FLAGS.seed, self.epoch, number))
            starts = rng.integers(len(train) - LENGTH - 1, size=BATCH)
            rows = train[starts[:, None] + np.arange(LENGTH + 1)]
            return rows[:, :-1], rows[:, 1:]

        epoch = 0

        def on_epoch_end(self):
            self.epoch += 1

    number = min(2000, (len(test) - 1) // LENGTH)
    end = number * LENGTH
    held = test[:end].reshape(-1, LENGTH), test[1 : end + 1].reshape(-1, LENGTH)
    return Pieces(), 500, held


def main(_):
    folder = pathlib.Path(FLAGS.workdir)
    folder.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(FLAGS.seed)
    build = vision_transformer if FLAGS.task == "images" else language_model
    train, steps, test = images() if FLAGS.task == "images" else text()
    model, narrower = build(), narrowed(build, FLAGS.density)
    whole = ks.count_macs(model).macs
    density = ks.count_macs(narrower).macs / whole
    if FLAGS.method == "narrower":
        model = narrower
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, steps * (FLAGS.epochs - 1), warmup_target=2e-3, warmup_steps=steps
    )
    model.compile(
        keras.optimizers.AdamW(
            rate, weight_decay=FLAGS.weight_decay, clipnorm=1.0
        ),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    callbacks = [
        keras.callbacks.BackupAndRestore(folder / "backup"),
        keras.callbacks.CSVLogger(folder / "epochs.csv", append=True),
    ]
    if FLAGS.method == "coupled":
        penalty = ks.GroupLasso(FLAGS.factor / 50_000)
        step = [ks.ProximalStep()] if FLAGS.training == "proximal" else []
        callbacks[:0] = [
            ks.CoupledGroups(penalty, inside=FLAGS.inside),
            *step,
            ks.TargetDensity(density, of="macs"),
        ]
    model.fit(
        train,
        steps_per_epoch=steps,
        epochs=FLAGS.epochs,
        callbacks=callbacks,
        verbose=2,
    )
    small, report = ks.shrink(model)
    print(report)
    small.compile(loss=model.loss, metrics=["accuracy"])
    loss, accuracy = small.evaluate(*test, verbose=0)
    result = {
        "task": FLAGS.task,
        "method": FLAGS.method,
        "training": FLAGS.training if FLAGS.method == "coupled" else "",
        "inside": FLAGS.inside if FLAGS.method == "coupled" else "",
        "factor": FLAGS.factor if FLAGS.method == "coupled" else 0,
        "weight_decay": FLAGS.weight_decay,
        "seed": FLAGS.seed,
        "epochs": FLAGS.epochs,
        "macs_whole": whole,
        "macs": ks.count_macs(small).macs,
        "parameters": small.count_params(),
        "loss": loss,
        "accuracy": accuracy,
        "held_out": FLAGS.held_out,
        "versions": versions(),
    }
    (folder / "figures.json").write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    app.run(main)
