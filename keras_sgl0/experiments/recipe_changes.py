"""Changes recipes, and reads the settings of old runs."""

import dataclasses
import types

from keras_sgl0.experiments.recipe import Recipe
from keras_sgl0.experiments.recipe_fields import as_json, why_unused


def adapt(recipe: Recipe, **changes: object) -> Recipe:
    """Returns a recipe with some settings replaced.

    Other settings that the new recipe does not use get their defaults. A new
    setting that is unused is refused.

    Args:
        recipe: The recipe to start from.
        **changes: The new settings, by name.

    Raises:
        ValueError: If a new setting is out of range, or unused.

    Example:
        >>> adapt(RECIPES["digits"], penalty="none", training="subgradient")
    """
    settings = {
        field.name: getattr(recipe, field.name)
        for field in dataclasses.fields(Recipe)
    }
    return Recipe(**_without_unused(settings | changes, kept=changes))


def upgrade_settings(settings: dict) -> dict:
    """Returns the settings of an old run as a recipe of today has them.

    Settings that are newer than the run get their defaults, which mean what
    was done before. So do settings that the run did not use, which recipes
    once accepted.

    Args:
        settings: The result of `Recipe.to_dict` when the run was made.

    Raises:
        KeyError: If they are not the settings of a recipe.
    """
    settings = dict(settings)
    if "beta" in settings:  # until beta_ratio took its place
        ratio = settings.pop("beta") / settings["factor"]
        settings["beta_ratio"] = round(ratio, 9)
    settings = _without_unused(Recipe().to_dict() | settings)
    return {name: as_json(value) for name, value in settings.items()}


def _without_unused(settings, kept=()):
    """Returns settings in which unused ones have their defaults."""
    settings = dict(settings)
    while True:
        recipe = types.SimpleNamespace(**settings)
        reset = {
            field.name: field.default
            for field in dataclasses.fields(Recipe)
            if field.name not in kept
            and settings[field.name] != as_json(field.default)
            and settings[field.name] != field.default
            and why_unused(field, recipe)
        }
        if not reset:
            return settings
        # Others may depend on these: `settle` is unused without `density`.
        settings |= reset
