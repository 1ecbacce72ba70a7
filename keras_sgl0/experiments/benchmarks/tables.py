"""Times of variants that took turns, and their table."""

import dataclasses
import statistics

import keras
import numpy as np

from keras_sgl0.utils.tables import Report, as_text, new_table

# The seconds of each turn, by the variant's name.
Times = dict[str, list[float]]


@dataclasses.dataclass(frozen=True)
class StepTimes(Report):
    """What a step takes under each of several variants.

    `print(report)` shows medians in ms and the medians of the rounds' ratios,
    `to_dict()` gives plain values.

    Attributes:
        times: The seconds a step took in each turn, by the variant's name.
        bases: The variants to give the ratios to.
        batch_size: Images a step.
    """

    times: Times
    bases: tuple[str, ...]
    batch_size: int

    def to_dict(self) -> dict:
        """Returns the report as plain values, ready for JSON."""
        return dataclasses.asdict(self)

    def ratios(self, name: str, base: str) -> list[float]:
        """Returns the ratio of each round.

        Args:
            name: A variant.
            base: Another one.
        """
        pairs = zip(self.times[name], self.times[base], strict=True)
        return [own / other for own, other in pairs]

    def __str__(self) -> str:
        table = new_table()
        table.add_column("variant", no_wrap=True)
        headers = ["ms a step", "min", "max", "images/s"]
        for base in self.bases:
            headers += [f"to {base}", "quartiles"]
        for header in headers:
            table.add_column(header, justify="right", no_wrap=True)
        for name, seconds in self.times.items():
            median = statistics.median(seconds)
            cells = [
                f"{1e3 * median:#.4g}",
                f"{1e3 * min(seconds):#.4g}",
                f"{1e3 * max(seconds):#.4g}",
                f"{self.batch_size / median:,.0f}",
            ]
            for base in self.bases:
                ratios = self.ratios(name, base)
                low, high = np.quantile(ratios, (0.25, 0.75))
                cells += [
                    f"{statistics.median(ratios):.3f}",
                    f"{low:.3f}-{high:.3f}",
                ]
            table.add_row(name, *cells)
        return as_text(table, width=120)


def peak_memory() -> str:
    """Returns the most memory an accelerator used, in words, if it is known.

    It is that of all variants together, which stay on the device in turns.
    """
    if keras.backend.backend() != "jax":
        return ""
    import jax

    peak = (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    return f"peak memory {peak / 2**30:.2f} GiB" if peak else ""
