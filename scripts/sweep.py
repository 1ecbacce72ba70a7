"""Trains recipes with several seeds and settings, and averages over seeds.

python scripts/sweep.py --recipes=digits,digits_group_lasso --seeds=0,1,2 \
    --set factor=.1,.3 --parallel=2
"""

import os
import pathlib
import signal
import sys

from _extras import name_extra

with name_extra():
    from absl import flags

    from keras_sgl0.experiments.flags import define_data_flags, start
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
    1,
    "Number of trainings at a time; they share the cores.",
    lower_bound=1,
)
flags.DEFINE_string(
    "workdir", "runs/sweep", "Folder for the runs and the tables."
)
define_data_flags()
_TRAIN = pathlib.Path(__file__).with_name("train.py")


def main(_):
    values = flags.FLAGS
    # SIGTERM stops the sweep like Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    data = values.data_dir, values.download
    command = command_of(_TRAIN, *data)
    try:
        runs = plan(values.recipes, values.seeds, grid_from_text(values.set))
        require_data(unfinished(runs, values.workdir), *data)
        report, failed = sweep(runs, values.workdir, command, values.parallel)
    except KeyboardInterrupt:
        sys.exit("sweep.py: stopped. The same command resumes the sweep.")
    print(report)
    print(f" tables in {os.path.join(values.workdir, MARKDOWN)} and beside it")
    if failed:
        lines = "".join(f"\n {name}: {how}" for name, how in failed.items())
        sys.exit(f"sweep.py: {len(failed)} of {len(runs)} runs failed{lines}")


if __name__ == "__main__":
    start(main, takes_words=False)
