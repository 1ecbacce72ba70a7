"""The rows and columns of a comparison of importances, and their files."""

import dataclasses
import json
import os
import pathlib
from collections.abc import Iterable

from keras_sgl0.compression.search import METHODS
from keras_sgl0.experiments.versions import versions
from keras_sgl0.utils.validation import InputError

SEARCHES = tuple(name for name in METHODS if name != "importance")
ROWS = (
    "random",
    "l1",
    "l2",
    "bn_scale",
    "taylor",
    "apoz",
    "fpgm",
    "dcp",
    "obs",
    *SEARCHES,
)
# What is done after the cut, from nothing to the most.
COLUMNS = {
    "cut": "one shot",
    "statistics": "batch norm",
    "repaired": "repair",
    "trained": "trained",
    "distilled": "distilled",
}


@dataclasses.dataclass
class Row:
    """One row of the comparison, for one seed.

    Attributes:
        row: A name in `ROWS`.
        seed: The seed.
        dataset: The data set.
        share: The share of the multiply-adds that is kept.
        epochs: How many epochs the last two columns are trained.
        validation: The share of the training images that was held out.
        original: The test error of the original, in percent.
        scope: What importance is relative to, chosen on the held-out images
            after the repair; empty for a training.
        macs: The multiply-adds that are left, as a share.
        errors: The test errors in percent, by column; `None` where a column
            does not apply.
        held_out: The same on the held-out images.
        versions: The versions of what it was made with.
    """

    row: str
    seed: int
    dataset: str
    share: float
    epochs: int
    validation: float
    original: float
    scope: str = ""
    macs: float = 0.0
    errors: dict[str, float | None] = dataclasses.field(default_factory=dict)
    held_out: dict[str, float | None] = dataclasses.field(default_factory=dict)
    versions: dict[str, str] = dataclasses.field(default_factory=versions)


def read_rows(paths: Iterable[str | os.PathLike]) -> list[Row]:
    """Returns rows from their files.

    Args:
        paths: JSON files, or folders of them.

    Raises:
        ValueError: If there is no such file, or it is of something else.
    """
    rows = []
    for path in map(pathlib.Path, paths):
        files = sorted(path.glob("*.json")) if path.is_dir() else [path]
        for file in files:
            try:
                rows.append(Row(**json.loads(file.read_text())))
            except (OSError, TypeError, ValueError) as problem:
                raise InputError(
                    f"The file {file} has no row of the comparison: {problem}"
                ) from problem
    return rows
