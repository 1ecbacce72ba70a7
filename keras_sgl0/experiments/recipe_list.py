"""The recipes as a table."""

import itertools

from keras_sgl0.experiments.recipe import Recipe
from keras_sgl0.experiments.recipes import RECIPES
from keras_sgl0.utils.tables import as_text, counted, new_table

# Measured on one core, see docs/run_times.md.
MINUTES = {
    "digits": 0.4,
    "mnist_tuned": 11,
    "mnist_mlp_l0": 15,
    "mnist_sgl0": 29,
    "mnist_lenet_l0_constrained": 79,
}


def recipe_list() -> str:
    """Returns the recipes as a table, by data set and network.

    Example:
        >>> print(recipe_list())
    """
    table = new_table()
    for header in ("recipe", "data set", "network", "penalty", "training"):
        table.add_column(header)
    for header in ("epochs", "minutes"):
        table.add_column(header, justify="right")

    def kind(name):
        return RECIPES[name].dataset, _network(RECIPES[name])

    # Data sets and networks in the order in which they come first.
    order = list(dict.fromkeys(map(kind, RECIPES)))
    names = sorted(RECIPES, key=lambda name: order.index(kind(name)))
    for (dataset, network), group in itertools.groupby(names, kind):
        table.add_section()
        for name in group:
            recipe = RECIPES[name]
            minutes = MINUTES.get(name)
            table.add_row(
                name,
                dataset,
                network,
                recipe.penalty,
                recipe.training if recipe.penalty != "none" else "",
                str(recipe.epochs),
                "" if minutes is None else f"{minutes:g}",
            )
    drop = ("training", "penalty", "network", "data set")
    return (
        f"{as_text(table, width=160, drop=drop)}\n"
        f" {counted(len(RECIPES), 'recipe')}; minutes on one core, where "
        "measured"
    )


def _network(recipe: Recipe) -> str:
    if recipe.model == "wide_resnet":
        return f"{recipe.model} {recipe.depth}-{recipe.width:g}"
    if recipe.model == "resnet":
        return f"{recipe.model} {recipe.depth}"
    return recipe.model
