"""Gradients in closed form.

Penalties pass over every weight in every step, and their cost is these passes.
What a backend derives by itself makes more of them than the formula needs.
"""

from collections.abc import Callable

from keras import ops


def with_gradient(function: Callable[..., tuple], x):
    """Returns `f(x)`, differentiated by its own formula on every backend.

    Args:
        function: A function of a tensor that returns `f(x)` and, by the chain
            rule, what the gradient by `f(x)` makes the gradient by `x`: a
            function of one tensor. Nothing else is differentiated by, so it
            must read no trainable variable, which TensorFlow refuses.
        x: Tensor of a floating dtype, no variable.

    Example:
        >>> def half_square(x):
        ...     return ops.sum(x * x) / 2, lambda upstream: upstream * x
        >>> with_gradient(half_square, keras.ops.array([3.0, 4.0]))
        12.5
    """

    @ops.custom_gradient
    def call(x):
        value, chain = function(x)

        def backward(*args, upstream=None):
            # PyTorch gives it by name, after `x`.
            return chain(args[0] if upstream is None else upstream)

        return value, backward

    return call(x)
