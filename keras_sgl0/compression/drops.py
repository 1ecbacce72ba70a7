"""By how much a smaller model is worse than the original."""

import keras

from keras_sgl0.compression.report import CompressReport
from keras_sgl0.network.compilation import is_higher_better
from keras_sgl0.utils.validation import invalid, require


def monitored(
    original: keras.Model, values: dict[str, float], metric: str | None
) -> tuple[str, bool]:
    """Returns the metric that tells how good a model is, and if it is high.

    Args:
        original: The original, after it was evaluated.
        values: Its loss and metrics on the validation data.
        metric: As in `Path.pick`.

    Raises:
        ValueError: As in `Path.pick`.
    """
    require(values, "validation", "data to measure the drop on", None)
    if metric is None:
        names = [name for name in values if not name.endswith("loss")]
        metric = names[0] if len(names) == 1 else "loss"
    known = isinstance(metric, str) and metric in values
    require(known, "metric", f"one of {', '.join(values)}", metric)
    higher = is_higher_better(original, metric)
    if higher is None:
        raise invalid(
            "metric",
            "a metric of which Keras knows whether it should be high or low. "
            'Give one of your own the attribute `_direction = "up"` or '
            '`"down"`, as those of Keras have it, or pass metric="loss"',
            metric,
        )
    return metric, higher


def drop(
    original: keras.Model, report: CompressReport, metric: str | None
) -> float:
    """Returns by how much a model is worse than the original.

    Args:
        original: The original.
        report: That of the smaller model.
        metric: As in `Path.pick`.

    Raises:
        ValueError: As in `Path.pick`.
    """
    name, higher = monitored(original, report.original, metric)
    change = report.recovered[name] - report.original[name]
    return -change if higher else change
