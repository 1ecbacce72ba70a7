"""Measures what things cost: variants that take turns in one process.

python scripts/benchmark.py overhead   # a training step, by the penalty
python scripts/benchmark.py overhead --network=resnet --batch_size=128
python scripts/benchmark.py shrink --networks=WRN-16-1,ResNet152 --out=a.json
python scripts/benchmark.py inference --networks=ResNet-20 # before and after
python scripts/benchmark.py training --recipe=digits_group_lasso_coupled
python scripts/benchmark.py engines    # a training step, by backend and dtype
python scripts/benchmark.py pipeline --dataset=cifar10 # a training batch

overhead and shrink need no TensorFlow if KERAS_BACKEND is jax or torch.
"""

import json
import pathlib
import time

from _extras import name_extra

with name_extra():
    import keras
    from absl import app, flags

    from keras_sgl0 import models
    from keras_sgl0.experiments.benchmarks.engines import BACKENDS, engines
    from keras_sgl0.experiments.benchmarks.inference import inference
    from keras_sgl0.experiments.benchmarks.networks import NETWORKS, network
    from keras_sgl0.experiments.benchmarks.overhead import overhead
    from keras_sgl0.experiments.benchmarks.pipeline import pipeline
    from keras_sgl0.experiments.benchmarks.shrinking import shrink_costs
    from keras_sgl0.experiments.benchmarks.tables import peak_memory
    from keras_sgl0.experiments.flags import define_data_dir, show, start
    from keras_sgl0.experiments.versions import versions

_PRECISIONS = ["float32", "mixed_bfloat16", "mixed_float16"]
flags.DEFINE_enum(
    "network",
    "lenet5_caffe",
    list(models.BY_NAME),
    "Network for overhead and engines.",
)
flags.DEFINE_integer("depth", None, "Its layers, for overhead.")
flags.DEFINE_float("width", None, "Multiplier of its channels, likewise.")
flags.DEFINE_enum("precision", "float32", _PRECISIONS, "Dtype, likewise.")
flags.DEFINE_bool(
    "cpu_time", False, "Whether it counts CPU time, if others use the core."
)
flags.DEFINE_list(
    "networks",
    list(NETWORKS),
    "Networks for shrink and inference, such as WRN-16-4, ResNet-56, "
    "lenet5_caffe, or those of keras.applications.",
)
flags.DEFINE_list("formats", ["litert", "onnx"], "Files for inference.")
flags.DEFINE_list("backends", list(BACKENDS), "Backends for engines.")
flags.DEFINE_string(
    "dataset", "digits", "Data set for pipeline: a name, or a folder of images."
)
define_data_dir()
flags.DEFINE_string(
    "recipe", "digits_group_lasso_coupled", "Recipe for training."
)
flags.DEFINE_multi_string(
    "set", [], "A setting of it and its value, such as epochs=20."
)
flags.DEFINE_integer(
    "shrink_every", 5, "Epochs between two cuts, for training.", lower_bound=1
)
flags.DEFINE_integer("rounds", 50, "Turns of each variant.", lower_bound=1)
flags.DEFINE_integer(
    "steps", 10, "Training steps, or batches, of a turn.", lower_bound=1
)
flags.DEFINE_integer("batch_size", 100, "Images in a batch.", lower_bound=1)
flags.DEFINE_string("out", None, "JSON file for all that was measured.")


def _turns(values):
    return values.batch_size, values.rounds, values.steps


def _overhead(values):
    keras.config.set_dtype_policy(values.precision)
    build = network(values.network, values.depth, values.width)
    clock = time.process_time if values.cpu_time else None
    return overhead(build, *_turns(values), clock)


def _training(values):
    # Which needs TensorFlow for the data.
    from keras_sgl0.experiments.benchmarks.training import train_recipe

    settings = values.recipe, values.set, values.shrink_every
    return train_recipe(*settings, values.data_dir)


_COMMANDS = {
    "overhead": _overhead,
    "shrink": lambda v: shrink_costs(v.networks, v.rounds),
    "inference": lambda v: inference(v.networks, v.formats, v.rounds),
    "training": _training,
    "engines": lambda v: engines(v.network, *_turns(v), v.backends),
    "pipeline": lambda v: pipeline(v.dataset, v.data_dir, *_turns(v)),
}


def main(words):
    if len(words) != 1 or words[0] not in _COMMANDS:
        raise app.UsageError(f"Expected one command: {', '.join(_COMMANDS)}.")
    report = _COMMANDS[words[0]](flags.FLAGS)
    show(report)
    used = versions()
    notes = [f"{name} {version}" for name, version in used.items()]
    print("", ", ".join(filter(None, [*notes, peak_memory()])))
    if flags.FLAGS.out is not None:
        content = json.dumps(report.to_dict() | {"versions": used}, indent=1)
        pathlib.Path(flags.FLAGS.out).write_text(content + "\n")


if __name__ == "__main__":
    start(main)
