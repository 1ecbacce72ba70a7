"""Pictures of finished runs, drawn from the files they left.

Each function returns a `matplotlib.figure.Figure`, which notebooks show and
`save` writes.
"""

from keras_sgl0.experiments.plots.drawing import save
from keras_sgl0.experiments.plots.histories import epochs
from keras_sgl0.experiments.plots.methods import against, pareto
from keras_sgl0.experiments.plots.models import filters, structures, weights

__all__ = [
    "against",
    "epochs",
    "filters",
    "pareto",
    "save",
    "structures",
    "weights",
]
