"""Measures the cost of penalties and input pipelines in one process.

python scripts/benchmark.py overhead
python scripts/benchmark.py pipeline --dataset=cifar10
python scripts/benchmark.py overhead --network=resnet --batch_size=128

The first needs no TensorFlow if KERAS_BACKEND is jax or torch.
"""

from _extras import name_extra

with name_extra():
    import keras
    import rich.console
    from absl import app, flags

    from keras_sgl0 import models
    from keras_sgl0.experiments import benchmark
    from keras_sgl0.experiments.flags import define_data_dir, start

flags.DEFINE_enum("network", "lenet5_caffe", list(models.BY_NAME), "Network.")
flags.DEFINE_integer("depth", None, "Its layers, if they can be chosen.")
flags.DEFINE_float("width", None, "Multiplier of its channels, likewise.")
flags.DEFINE_string(
    "dataset", "digits", "Data set for pipeline: a name, or a folder of images."
)
define_data_dir()
flags.DEFINE_enum(
    "precision",
    "float32",
    ["float32", "mixed_bfloat16", "mixed_float16"],
    "Floating-point type of the layers.",
)
flags.DEFINE_integer(
    "rounds", 50, "Number of times each variant is timed.", lower_bound=1
)
flags.DEFINE_integer(
    "steps", 10, "Number of training steps per timing.", lower_bound=1
)
flags.DEFINE_integer(
    "batch_size", 100, "Number of images in a batch.", lower_bound=1
)


def main(words):
    values = flags.FLAGS
    turns = values.batch_size, values.rounds, values.steps
    if words == ["overhead"]:
        keras.config.set_dtype_policy(values.precision)
        build = benchmark.network(values.network, values.depth, values.width)
        times = benchmark.overhead(build, *turns)
        bases = "plain", "group lasso"
    elif words == ["pipeline"]:
        times = benchmark.pipeline(values.dataset, values.data_dir, *turns)
        bases = "none", "arrays"
    else:
        raise app.UsageError("Expected one command: overhead, pipeline.")
    console = rich.console.Console(width=100)
    console.print(benchmark.table(times, bases, values.batch_size))
    console.print(benchmark.peak_memory(), end="")


if __name__ == "__main__":
    start(main)
