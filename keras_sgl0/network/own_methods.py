"""Methods of a model's own, which a smaller model, a plain one, lacks."""

import keras

from keras_sgl0.utils.validation import require, require_built

# What computes the losses and metrics of a step.
STEPS = ("train_step", "test_step", "compute_loss", "compute_metrics")
# What goes through the steps of a training.
LOOPS = ("make_train_function", "make_test_function", "fit")


def require_no_own(model: keras.Model, names: tuple[str, ...]):
    """Raises where a model has methods of its own in place of Keras's.

    Args:
        model: A model.
        names: The names of the methods.

    Raises:
        ValueError: If so.
    """
    own = [
        name
        for name in names
        if getattr(type(model), name) is not getattr(keras.Model, name)
    ]
    require(
        not own,
        "model",
        "one that Keras trains by its own methods, as the smaller model has no "
        f"others; {type(model).__name__} has its own {', '.join(own)}. A "
        "`keras.Model(model.inputs, model.outputs)`, compiled, has the same "
        "layers and none of them",
        model,
    )


def require_no_preprocessing(model: keras.Model):
    """Raises where a model is not built, or changes its data before its layers.

    Tasks of KerasHub do so in `fit`, `evaluate` and `predict`.

    Args:
        model: What the caller passed.

    Raises:
        ValueError: If so.
    """
    require_built(model)
    prepares = hasattr(model, "preprocess_samples")
    require(
        not prepares or getattr(model, "preprocessor", model) is None,
        "model",
        "one that takes what its layers take, as the smaller model does not "
        "preprocess data. Set `model.preprocessor = None`, and pass data that "
        "were preprocessed by what it was",
        model,
    )
