"""Draws finished runs as PNG and SVG files; needs pip install '.[plot]'.

python scripts/plot.py against runs/sweep     # sparsities and error by factor
python scripts/plot.py pareto runs/sweep      # error against sparsity
python scripts/plot.py front runs/search runs/sweep # a search, and other runs
python scripts/plot.py epochs runs/digits-0   # the history of a run
python scripts/plot.py importances docs/results/importances/digits
python scripts/plot.py frontier docs/results/frontier/*/*.json
python scripts/plot.py shrink_costs docs/results/shrink_costs.json
python scripts/plot.py filters runs/digits-0 --layer=conv2
python scripts/plot.py weights runs/digits-0/checkpoint.keras
python scripts/plot.py structures model.keras # what of a model can be cut
"""

from _extras import name_extra

with name_extra():
    from absl import app, flags

    from keras_sgl0.experiments import plots
    from keras_sgl0.experiments.flags import start

_OUTPUT = flags.DEFINE_string(
    "output", None, "Output path without suffix. Default: plots/COMMAND."
)
_SETTING = flags.DEFINE_string(
    "setting", "factor", "Setting on the axis, for against."
)
_UNIT = flags.DEFINE_float(
    "unit", 1.0, "Unit of the setting on the axis, for against."
)
_LAYER = flags.DEFINE_string(
    "layer", None, "Convolution, default: the first, for filters."
)
# Commands that draw the runs in several folders, or one model or file.
_RUNS = {
    "against": lambda paths: plots.against(paths, _SETTING.value, _UNIT.value),
    "pareto": plots.pareto,
    "front": lambda paths: plots.front(paths[0], paths[1:]),
    "epochs": plots.epochs,
    "importances": plots.importances,
    "frontier": plots.frontier,
}
_MODEL = {
    "filters": lambda path: plots.filters(path, _LAYER.value),
    "weights": plots.weights,
    "structures": plots.structures,
    "shrink_costs": plots.shrink_costs,
}


def main(words):
    command, paths = "".join(words[:1]), words[1:]
    if command in _RUNS and paths:
        draw, arguments = _RUNS[command], [paths]
    elif command in _MODEL and len(paths) == 1:
        draw, arguments = _MODEL[command], paths
    else:
        raise app.UsageError(
            f"Expected one of {', '.join(_RUNS)} and folders of runs, or one "
            f"of {', '.join(_MODEL)} and one folder or file."
        )
    figure = draw(*arguments)
    files = plots.save(figure, _OUTPUT.value or f"plots/{command}")
    print(*files, sep="\n")


if __name__ == "__main__":
    start(main)
