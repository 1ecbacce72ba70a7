"""Shrinks a saved model, exports it and measures both, as files."""

import functools
import json
import os
from collections.abc import Callable, Sequence

import keras

from keras_sgl0.deployment.comparison import compare
from keras_sgl0.experiments.versions import versions
from keras_sgl0.network.sparsity import TOLERANCE, apply_threshold
from keras_sgl0.shrinking import shrink
from keras_sgl0.utils.validation import require

REPORT = "shrink.json"


def shrink_file(
    path: str,
    folder: str | None = None,
    *,
    tolerance: float = TOLERANCE,
    round_to: int | None = None,
    on_constant: str = "keep",
    formats: Sequence[str] = ("keras", "litert"),
    dataset: str | None = None,
    data_dir: str | None = None,
    pixels: str = "unit",
    batch_sizes: Sequence[int] = (1, 128),
    rounds: int = 500,
) -> str:
    """Shrinks the model in a `.keras` file and compares the two models.

    The folder gets the shrunk model in each format, and `shrink.json` with
    all that was measured.

    Args:
        path: The `.keras` file.
        folder: Where the files go. Default: the folder of the model.
        tolerance: Weights smaller than this count as zero.
        round_to: Keep a multiple of this many channels.
        on_constant: As in `shrink`.
        formats: As in `export`.
        dataset: The data set to measure the test error on, a name or a folder
            as for `datasets.load`; `None` for none. It needs the extra
            `experiments`.
        data_dir: The folder of the data set, as for `datasets.load`.
        pixels: What the model takes, as for `Dataset.with_pixels`.
        batch_sizes: The batch sizes to measure the latency at.
        rounds: How often each model is timed.

    Returns:
        The comparison as text.

    Raises:
        ValueError: If there is no such file or data set, or if the model
            cannot be shrunk or exported.

    Example:
        >>> print(shrink_file("runs/digits-0/model.keras", formats=["keras"]))
    """
    path = os.path.expanduser(path)
    require(
        path.endswith(".keras") and os.path.isfile(path),
        "model",
        "a .keras file that exists",
        path,
    )
    error = _test_error(dataset, data_dir, pixels) if dataset else None
    model = keras.saving.load_model(path, compile=False)
    apply_threshold(model, tolerance)
    small, report = shrink(
        model, tolerance=0, round_to=round_to, on_constant=on_constant
    )
    folder = os.path.expanduser(folder or os.path.dirname(path))
    comparison = compare(
        model,
        small,
        folder,
        format=formats,
        error=error,
        batch_sizes=batch_sizes,
        rounds=rounds,
    )
    conditions = {
        "rounds": rounds,
        "cores": os.cpu_count(),
        "versions": versions(),
    }
    content = comparison.to_dict()
    for file in content["files"]:
        file["path"] = os.path.basename(file["path"])
    content |= {
        "shrink": report.to_dict(),
        **conditions,
    }
    with open(os.path.join(folder, REPORT), "w") as out:
        json.dump(content, out, indent=2)
        out.write("\n")
    return f"{comparison}\n {_conditions_text(**conditions)}"


def _test_error(
    name: str, data_dir: str | None, pixels: str
) -> Callable[[keras.Model], float]:
    # Here, since these need TensorFlow and the rest does not.
    from keras_sgl0.experiments import datasets
    from keras_sgl0.experiments.run import percent_wrong

    dataset = datasets.load(name, data_dir).with_pixels(pixels)
    return functools.partial(percent_wrong, batches=dataset.test_batches())


def _conditions_text(rounds, cores, versions):
    text = f"{rounds} rounds, {cores} cores, Keras {versions['keras']}"
    if "tensorflow" in versions:
        return f"{text}, TensorFlow {versions['tensorflow']}"
    return f"{text} on {versions['backend']}"
