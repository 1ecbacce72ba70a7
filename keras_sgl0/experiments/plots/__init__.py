"""Pictures of finished runs, of models and of paths.

Each function returns a `matplotlib.figure.Figure`, which notebooks show and
`save` writes.
"""

from keras_sgl0.experiments.plots.changes import before_and_after, shrunk
from keras_sgl0.experiments.plots.drawing import save
from keras_sgl0.experiments.plots.frontier import frontier
from keras_sgl0.experiments.plots.fronts import front
from keras_sgl0.experiments.plots.histories import epochs
from keras_sgl0.experiments.plots.importances import importances
from keras_sgl0.experiments.plots.methods import against, pareto
from keras_sgl0.experiments.plots.models import filters, structures, weights
from keras_sgl0.experiments.plots.paths import path
from keras_sgl0.experiments.plots.shrink_costs import shrink_costs

__all__ = [
    "against",
    "before_and_after",
    "epochs",
    "filters",
    "front",
    "frontier",
    "importances",
    "pareto",
    "path",
    "save",
    "shrink_costs",
    "shrunk",
    "structures",
    "weights",
]
