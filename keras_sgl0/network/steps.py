"""A model or a block in `TimeDistributed`, as calls on all steps at once."""

import keras
from keras import ops, tree

from keras_sgl0.network.agreement import Recording
from keras_sgl0.network.calls import calls_behind
from keras_sgl0.network.guards import NotTraced, unchanged, uncounted_names
from keras_sgl0.network.specs import mask_of
from keras_sgl0.network.tracing import is_unfolded
from keras_sgl0.network.views import functional_view


def is_model_by_steps(operation: keras.Operation) -> bool:
    """Returns whether a layer calls a model or a block at every step.

    Other layers in `TimeDistributed` are cut by their own rule.

    Args:
        operation: A layer or another operation of a model.
    """
    if type(operation) is not keras.layers.TimeDistributed:
        return False
    layer = operation.layer
    return (
        functional_view(layer) is not None
        or is_unfolded(layer)
        or is_model_by_steps(layer)
    )


def record_by_steps(
    wrapper: keras.layers.TimeDistributed, args: tuple, kwargs: dict
) -> Recording:
    """Returns the calls that do what a wrapper does at every step.

    The steps become examples, which the layer is called on, and steps again.
    At inference that is the same.

    Args:
        wrapper: The wrapper.
        args: Its positional arguments.
        kwargs: Its keyword arguments, but for `training`.

    Raises:
        NotTraced: If it has a mask or several inputs, if sizes are not known,
            if the layer has another dtype, or if it returns no single tensor.
    """
    layer = wrapper.layer
    given = [x for x in tree.flatten((args, kwargs)) if x is not None]
    if len(given) != 1:
        raise NotTraced("it has a mask, or several inputs")
    (x,) = given
    if mask_of(x) is not None:
        raise NotTraced("it has a mask")
    if None in x.shape[1:]:
        raise NotTraced("sizes of its inputs are not known")
    if layer.compute_dtype != wrapper.compute_dtype:
        raise NotTraced("the layer in it has another dtype")
    with unchanged(wrapper), uncounted_names():
        y = layer(ops.reshape(x, (-1, *x.shape[2:])))
        if not isinstance(y, keras.KerasTensor) or None in y.shape[1:]:
            raise NotTraced("the layer in it returns no tensor of known sizes")
        outputs = ops.reshape(y, (-1, *x.shape[1:2], *y.shape[1:]))
        return Recording([x], calls_behind(outputs, {id(x)}), outputs)
