"""What a smaller network gains in each runtime."""

import dataclasses
from collections.abc import Sequence

import keras

from keras_sgl0.deployment.comparison import compare
from keras_sgl0.deployment.report import Comparison
from keras_sgl0.experiments.benchmarks.networks import by_title, kill_half
from keras_sgl0.shrinking import shrink
from keras_sgl0.utils.tables import Report


@dataclasses.dataclass(frozen=True)
class Inference(Report):
    """Networks before and after a shrink; `print(report)` shows tables.

    Attributes:
        comparisons: One a network, by its name.
    """

    comparisons: dict[str, Comparison]

    def to_dict(self) -> dict:
        """Returns the report as plain values, ready for JSON."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        return "\n\n".join(
            f"{name}\n{comparison}"
            for name, comparison in self.comparisons.items()
        )


def inference(
    titles: Sequence[str],
    formats: Sequence[str],
    rounds: int,
    batch_sizes: Sequence[int] = (1, 32),
) -> Inference:
    """Compares networks with what is left without half of their channels.

    Args:
        titles: The networks, see `by_title`. Half of each family of their
            structures is dead.
        formats: What to export to, see `export`: `"litert"` and `"onnx"` are
            timed beside the backend.
        rounds: How many turns each model gets.
        batch_sizes: What to measure the latency at.

    Example:
        >>> print(inference(["ResNet-20"], ["litert"], rounds=100))
    """
    comparisons = {}
    for title in titles:
        keras.utils.set_random_seed(0)
        model = by_title(title)
        kill_half(model)
        small, _ = shrink(model, 0)
        comparisons[title] = compare(
            model,
            small,
            format=formats,
            batch_sizes=batch_sizes,
            rounds=rounds,
        )
    return Inference(comparisons)
