"""Trains recipes with several seeds and settings, and averages over seeds.

python scripts/sweep.py --recipes=digits,digits_group_lasso --seeds=0,1,2 \
    --set factor=.1,.3 --parallel=2
python scripts/sweep.py --recipes=cifar10_resnet_20_sgl0 --seeds=0,1,2,3,4 \
    --cluster=slurm --gpus=1 --partition=gpu --minutes=120
"""

import os
import pathlib
import signal
import sys

from _extras import name_extra

with name_extra():
    from absl import flags

    from keras_sgl0.experiments.cluster import CLUSTERS, SubmititExecutor
    from keras_sgl0.experiments.executors import LocalExecutor
    from keras_sgl0.experiments.flags import (
        announce,
        define_callbacks,
        define_data_flags,
        show,
        start,
    )
    from keras_sgl0.experiments.grid import grid_from_text, plan
    from keras_sgl0.experiments.recipes import RECIPES
    from keras_sgl0.experiments.sweep import (
        MARKDOWN,
        command_of,
        require_data,
        sweep,
        unfinished,
    )

flags.DEFINE_list("recipes", ["digits"], f"Any of: {', '.join(RECIPES)}.")
flags.DEFINE_list("seeds", ["0"], "Seeds of every recipe.")
flags.DEFINE_multi_string(
    "set",
    [],
    "A setting and its values, such as factor=.1,.3 (see train.py --help). "
    "Several --set make a grid. Separate the numbers of a list by +, as in "
    "milestones=.2+.4.",
)
flags.DEFINE_integer(
    "parallel",
    None,
    "Number of trainings at a time, which share the cores of this machine. "
    "Default: 1; on Slurm as many as it gives.",
    lower_bound=1,
)
flags.DEFINE_enum(
    "cluster",
    None,
    CLUSTERS,
    "Train each run as a job: of Slurm, or of submitit on this machine. The "
    "flags below are for jobs.",
)
flags.DEFINE_integer("minutes", 240, "Time limit of a job.", lower_bound=1)
flags.DEFINE_string("partition", None, "Partition of Slurm.")
flags.DEFINE_integer("cpus", None, "Cores of a job.", lower_bound=1)
flags.DEFINE_integer("gpus", None, "GPUs of a job.", lower_bound=0)
flags.DEFINE_float("memory", None, "Memory of a job in GB.", lower_bound=0)
flags.DEFINE_multi_string(
    "slurm", [], "Another parameter of Slurm's jobs, such as account=physics."
)
flags.DEFINE_string(
    "workdir", "runs/sweep", "Folder for the runs and the tables."
)
define_data_flags()
define_callbacks()
_TRAIN = pathlib.Path(__file__).with_name("train.py")


def executor():
    """Returns what the flags ask for."""
    values = flags.FLAGS
    if not values.cluster:
        return LocalExecutor(values.parallel or 1)
    slurm = dict(pair.partition("=")[::2] for pair in values.slurm)
    parameters = {
        "cpus_per_task": values.cpus,
        "gpus_per_node": values.gpus,
        "mem_gb": values.memory,
        "slurm_partition": values.partition,
        **{f"slurm_{name}": value for name, value in slurm.items()},
    }
    return SubmititExecutor(
        os.path.join(values.workdir, "jobs"),
        values.cluster,
        values.parallel or (1 if values.cluster == "local" else None),
        values.minutes,
        **{name: v for name, v in parameters.items() if v is not None},
    )


def main(_):
    values = flags.FLAGS
    # SIGTERM stops the sweep like Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    data = values.data_dir, values.download
    command = command_of(_TRAIN, *data, values.callbacks)
    try:
        runs = plan(values.recipes, values.seeds, grid_from_text(values.set))
        left = unfinished(runs, values.workdir)
        require_data(left, *data)
        announce(
            f"{len(left)} of {len(runs)} runs to train, "
            f"{sum(run.recipe.epochs for run in left):,} epochs in all; files "
            f"in {values.workdir}"
        )
        report, failed = sweep(runs, values.workdir, command, executor())
    except KeyboardInterrupt:
        sys.exit("sweep.py: stopped. The same command resumes the sweep.")
    show(report)
    print(f" tables in {os.path.join(values.workdir, MARKDOWN)} and beside it")
    if failed:
        lines = "".join(f"\n {name}: {how}" for name, how in failed.items())
        sys.exit(f"sweep.py: {len(failed)} of {len(runs)} runs failed{lines}")


if __name__ == "__main__":
    start(main, takes_words=False)
