"""Recipes by name: the experiments of the papers, and variants of them."""

import functools

from keras_sgl0.experiments.penalties import trainings_of
from keras_sgl0.experiments.recipe import Recipe
from keras_sgl0.experiments.recipe_changes import adapt

_MNIST = Recipe()
_DIGITS = Recipe(dataset="digits", factor=0.3, batch_size=32, epochs=60)
# With Adam the factor would have to be larger by orders of magnitude: Adam
# rescales the gradient, but not the proximal step. The size of a proximal step
# is proportional to the learning rate, so the rate drops late.
_PROXIMAL = {
    "training": "proximal",
    "factor": 0.7,
    "optimizer": "sgd",
    "learning_rate": 0.1,
    "milestones": (0.6, 0.8),
}
_COUPLED = {"groups": "coupled"}


def _with_penalty(base, penalty, **settings):
    """Returns a recipe with another penalty and its usual training."""
    settings = {"training": trainings_of(penalty)[0]} | settings
    return adapt(base, penalty=penalty, **settings)


def _variants(name, base):
    """Returns the recipes of a data set: the penalties and their trainings."""
    recipe = functools.partial(_with_penalty, base)

    return {
        f"{name}_plain": recipe("none"),
        f"{name}_group_lasso": recipe("group_lasso"),
        f"{name}_group_lasso_proximal": recipe("group_lasso", **_PROXIMAL),
        f"{name}_cges": recipe("cges"),
        f"{name}_sparse_group_lasso": recipe("sparse_group_lasso"),
        f"{name}_sparse_group_lasso_splitting": recipe(
            "sparse_group_lasso", training="splitting"
        ),
        f"{name}_sparse_group_lasso_proximal": recipe(
            "sparse_group_lasso", **_PROXIMAL
        ),
        f"{name}_sgl0": recipe("sgl0"),
        f"{name}_sgl0_admm": recipe("sgl0", training="admm", growth=1.0),
        f"{name}_sgl0_proximal": recipe("sgl0", **_PROXIMAL | {"factor": 0.5}),
        f"{name}_sgl0_density": recipe("sgl0", density=(0.1,)),
        f"{name}_group_lasso_coupled": recipe(
            "group_lasso", **_PROXIMAL | _COUPLED
        ),
        f"{name}_sparse_group_lasso_coupled": recipe(
            "sparse_group_lasso", **_PROXIMAL | _COUPLED
        ),
        f"{name}_sgl0_coupled": recipe("sgl0", **_COUPLED),
    }


_GATES = {
    "penalty": "l0_gates",
    "training": "subgradient",
    "normalize": True,
    "learning_rate": 7e-4,
    "milestones": (),
    "batch_size": 128,
}
_DIGITS_GATES = _GATES | {
    "learning_rate": 1e-3,
    "gate_learning_rate": 1e-2,
    "batch_size": 32,
    "epochs": 100,
}
_MLP = {"model": "mlp", "droprate": (0.2, 0.5, 0.5)}
# Target densities of the layers in Gallego-Posada et al., NeurIPS 2022.
_LENET_DENSITIES = (0.5, 0.3, 0.7, 0.1)
_MLP_DENSITIES = (0.3,)


def _gated(name, base, settings, factor, model_rate, layer_rate):
    """Returns the recipes of a data set with gates: penalty or constraint.

    Args:
        name: The data set.
        base: The recipe to start from.
        settings: The settings they have in common.
        factor: The coefficient of the penalty times N.
        model_rate: The dual learning rate with one constraint on the model.
        layer_rate: The dual learning rate with one constraint on each layer.
    """

    def recipes(network, model_density, layer_densities, **own):
        shared = settings | own
        return {
            f"{name}_{network}_l0": adapt(base, **shared, factor=factor),
            f"{name}_{network}_l0_constrained": adapt(
                base,
                **shared,
                density=model_density,
                dual_learning_rate=model_rate,
            ),
            f"{name}_{network}_l0_constrained_layers": adapt(
                base,
                **shared,
                density=layer_densities,
                scope="layer",
                dual_learning_rate=layer_rate,
            ),
        }

    coupled = adapt(
        base,
        **settings | _COUPLED,
        density=(0.1,),
        density_of="macs",
        dual_learning_rate=model_rate,
    )
    return (
        recipes("mlp", (0.33,), _MLP_DENSITIES, **_MLP)
        | recipes("lenet", (0.1,), _LENET_DENSITIES)
        | {f"{name}_lenet_l0_coupled_macs": coupled}
    )


# The schedule of Zagoruyko and Komodakis, used by all papers with WRN.
_WIDE_RESNET = Recipe(
    model="wide_resnet",
    normalize=True,
    augment="crop_flip",
    optimizer="sgd",
    momentum=0.9,
    learning_rate=0.1,
    milestones=(0.3, 0.6, 0.8),
    decay=0.2,
    ema=0.99,
    batch_size=128,
    grow_every=0.1,
)
_WIDE_RESNET_GATES = {
    "penalty": "l0_gates",
    "training": "subgradient",
    "droprate": (0.3,),
    "gate_learning_rate": 6.0,
}
_MOBILENET = adapt(_WIDE_RESNET, model="mobilenet_v2", learning_rate=0.05)
# He et al.'s schedule in epochs of 390 steps: lr / 10 after 82 and 123 of 164.
_RESNET_20 = adapt(
    _WIDE_RESNET,
    dataset="cifar10",
    model="resnet",
    depth=20,
    milestones=(0.5, 0.75),
    decay=0.1,
    ema=0.0,
    epochs=164,
)
_PENALISED = ("cges", "group_lasso", "sparse_group_lasso", "sgl0")
# Half of the multiply-adds. With batch normalization a penalty alone cuts
# little in a few epochs, so a target controls its strength.
_HALF = _COUPLED | {
    "factor": 10.0,
    "density": (0.5,),
    "density_of": "macs",
    "settle": 0.6,
}


def _methods(name, base, gates=None):
    """Returns the recipes of a network.

    The penalties on kernels are those of the paper's Figures 1 and 2, with
    alpha .1. Those with coupled groups leave half of the multiply-adds.
    """
    methods = {"plain": _with_penalty(base, "none")}
    methods |= {method: _with_penalty(base, method) for method in _PENALISED}
    methods |= {
        "group_lasso_coupled": _with_penalty(
            base, "group_lasso", training="proximal", **_HALF
        ),
        "sparse_group_lasso_coupled": _with_penalty(
            base, "sparse_group_lasso", training="proximal", **_HALF
        ),
        # With a factor of 10, beta is 250 / N, and nearly all weights, which
        # are below the threshold, decay to zero.
        "sgl0_coupled": _with_penalty(base, "sgl0", **_HALF | {"factor": 1.0}),
    }
    if gates:
        methods["l0"] = adapt(base, **gates, factor=0.001)
        methods["l0_constrained"] = adapt(
            base,
            **gates,
            density=(0.7,),
            scope="layer",
            dual_learning_rate=7e-4,
        )
    return {f"{name}_{method}": recipe for method, recipe in methods.items()}


def _wide_resnets():
    recipes: dict[str, Recipe] = {}
    for dataset in ("cifar10", "cifar100"):
        for depth, width in ((28, 10), (16, 2), (16, 1), (10, 1)):
            base = adapt(
                _WIDE_RESNET, dataset=dataset, depth=depth, width=width
            )
            name = f"{dataset}_wrn_{depth}_{width}"
            recipes |= _methods(name, base, _WIDE_RESNET_GATES)
    return recipes


def _mobilenets():
    svhn = adapt(_MOBILENET, dataset="svhn_cropped", augment="crop")
    tiny = adapt(_MOBILENET, dataset="tiny_imagenet")
    return _methods("svhn_mobilenet_v2", svhn) | _methods(
        "tiny_imagenet_mobilenet_v2", tiny
    )


# Tuned to be sparser than all methods of the paper's Table 1, with a lower
# error. Tuned on held-out training images, see docs/results.md.
_MNIST_TUNED = _with_penalty(
    _MNIST,
    "sparse_group_lasso",
    training="proximal",
    factor=7.0,
    layer_factors=(1.0, 1.0, 1.0, 2.0),
    density=(0.05,),
    settle=0.4,
    dropout=0.2,
    optimizer="sgd",
    momentum=0.9,
    learning_rate=0.05,
    milestones=(),
    ema=0.999,
    precision="mixed_bfloat16",
    epochs=80,
)

RECIPES = (
    {"digits": _DIGITS, "mnist_tuned": _MNIST_TUNED}
    | _variants("digits", _DIGITS)
    | _variants("mnist", _MNIST)
    | _gated("digits", _DIGITS, _DIGITS_GATES, 0.015, 2e-2, 5e-2)
    | _gated("mnist", _MNIST, _GATES, 0.1, 1e-4, 1e-4)
    | _wide_resnets()
    | _methods("cifar10_resnet_20", _RESNET_20)
    | _mobilenets()
)
del RECIPES["digits_sgl0"]  # the same as "digits"
