"""Recipes from other recipes, and from the settings of old runs."""

import dataclasses
import types

from keras_sgl0.experiments.recipe import Recipe
from keras_sgl0.experiments.recipe_fields import as_json, why_unused


def adapt(recipe: Recipe, **changes: object) -> Recipe:
    """Returns a recipe with some settings replaced.

    Settings of the given recipe that the new one does not look at fall back to
    their defaults. The new settings do not: they are refused if unused.

    Args:
        recipe: The settings to begin with.
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
    """Returns the settings of an old run in the form a recipe has now.

    Settings that came after the run get their defaults, which stand for what
    was done before. Settings that the run did not look at, which recipes once
    accepted, get their defaults, too.

    Args:
        settings: What `Recipe.to_dict` returned when the run was made.

    Raises:
        KeyError: If they never were those of a recipe.
    """
    settings = dict(settings)
    if "beta" in settings:  # until beta_ratio took its place
        ratio = settings.pop("beta") / settings["factor"]
        settings["beta_ratio"] = round(ratio, 9)
    settings = _without_unused(Recipe().to_dict() | settings)
    return {name: as_json(value) for name, value in settings.items()}


def _without_unused(settings, kept=()):
    """Returns settings with the default for those that would not be used."""
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
        # Others may depend on these, as `settle` does on `density`.
        settings |= reset
