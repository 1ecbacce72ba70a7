"""The arguments that `compress` and `path` share."""

import os
from collections.abc import Mapping

import keras

from keras_sgl0.compression.importance import Importance
from keras_sgl0.compression.prune import SCOPES, Criteria
from keras_sgl0.network.own_methods import (
    STEPS,
    require_no_own,
    require_no_preprocessing,
)
from keras_sgl0.utils.validation import choice, require

# Try every scope and keep the best cut.
BEST = "best"
DISTILL = ("outputs", "features")


def criteria(
    importance: Importance,
    scope: str,
    limits: float | Mapping[str, float],
    minimum: int,
    round_to: int | None,
    seed: int,
) -> tuple[Criteria, ...]:
    """Returns the criteria to choose the best cut from.

    Args:
        importance: As in `compress`.
        scope: As in `compress`.
        limits: As in `compress`.
        minimum: As in `compress`.
        round_to: As in `compress`.
        seed: As in `compress`.

    Raises:
        ValueError: If one is out of range.
    """
    choice("scope", scope, (BEST, *SCOPES))
    return tuple(
        Criteria(importance, own, limits, minimum, round_to, seed)
        for own in (SCOPES if scope == BEST else (scope,))
    )


def require_compiled(model: keras.Model) -> keras.Model:
    """Returns a model after checking that it is built and compiled.

    Args:
        model: What the caller passed.

    Raises:
        ValueError: If it is not, changes its data before its layers, or has
            steps of its own.
    """
    require_no_preprocessing(model)
    require_no_own(model, STEPS)
    require(
        model.compiled and model.optimizer is not None,
        "model",
        "a compiled model, whose losses and optimizer are used",
        model,
    )
    return model


def folder_of(workdir: str | os.PathLike | None) -> str | None:
    """Returns the path of a folder, `None` for none.

    Args:
        workdir: What the caller passed.

    Raises:
        ValueError: If it is no path.
    """
    if workdir is None:
        return None
    is_path = isinstance(workdir, str | os.PathLike) and workdir != ""
    require(is_path, "workdir", "the path of a folder", workdir)
    return os.fspath(workdir)
