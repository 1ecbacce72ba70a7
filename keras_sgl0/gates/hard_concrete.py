r"""Hard-concrete gates: switches with a differentiable l0 norm.

A gate `z` in [0, 1] is 0 with a probability of its own. With `u ~ U(0, 1)`,
temperature `b` and the stretch `(low, high)`, `low < 0 < 1 < high`,

    s = sigmoid((log u - log(1 - u) + log_alpha) / b)
    z = clip(s * (high - low) + low, 0, 1)
    P(z != 0) = sigmoid(log_alpha - b * log(-low / high))

(Louizos et al., arXiv 1712.01312, section 2.)
"""

import math
import numbers

import keras
from keras import ops

from keras_sgl0.gates.wiring import gated_by
from keras_sgl0.groups import wide_dtype
from keras_sgl0.utils.validation import (
    InputError,
    choice,
    finite_float,
    get_regularizer,
    integer,
    require,
)

TEST_GATES = ("median", "mean")
TEMPERATURE = 2 / 3
STRETCH = (-0.1, 1.1)
# P(z != 0) stays between .047 and .998, so every gate can still change.
LOG_ALPHA_RANGE = (math.log(0.01), math.log(100.0))
_SMALLEST_U = 1e-6
_SEED = "seed_generator"


def probability_active(
    log_alpha,
    temperature: float = TEMPERATURE,
    stretch: tuple[float, float] = STRETCH,
):
    """Returns `P(z != 0)` of each gate, between 0 and 1.

    Args:
        log_alpha: Tensor or variable.
        temperature: The temperature of the gates.
        stretch: The stretch of the gates.
    """
    low, high = stretch
    log_alpha = ops.convert_to_tensor(log_alpha)
    return ops.sigmoid(log_alpha - temperature * math.log(-low / high))


@keras.saving.register_keras_serializable("keras_sgl0")
class ExpectedL0(keras.regularizers.Regularizer):
    r"""The expected l0 norm of gated weights, a regularizer of `log_alpha`.

    `factor * group_size * sum_g P(z_g != 0)`, with weight decay
    `sum_g P(z_g != 0) * sum_{j in g} (factor + weight_decay / 2 * w_j^2)`.

    A model whose gates have it is trained by `fit` alone.

    Args:
        factor: What one expected weight costs, lambda in the papers (`.1 / N`
            for `N` training images). Greater than 0.
        group_size: The parameters one gate rules: `cin * kh * kw + 1` for a
            convolution with biases, the number of outputs for a dense layer.
        weight_decay: Coefficient of the expected squared weights; a closed
            gate's weights do not decay. The gate finds the weights it rules
            in the model's graph. At least 0.
        temperature: The temperature of the gates.
        stretch: The stretch of the gates.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> layer = keras.layers.Dense(300)
        >>> gate = HardConcrete(regularizer=ExpectedL0(0.1 / 60000, 300))
        >>> outputs = layer(gate(inputs))

    Reference:
        Louizos, Welling, Kingma: Learning sparse neural networks through l0
        regularization, ICLR 2018, section 2.
    """

    def __init__(
        self,
        factor: float,
        group_size: int,
        weight_decay: float = 0.0,
        temperature: float = TEMPERATURE,
        stretch: tuple[float, float] = STRETCH,
    ):
        self.factor = finite_float("factor", factor, above=0)
        self.group_size = integer("group_size", group_size, at_least=1)
        self.weight_decay = finite_float(
            "weight_decay", weight_decay, at_least=0
        )
        self.temperature = finite_float("temperature", temperature, above=0)
        self.stretch = _stretch(stretch)

    def __call__(self, log_alpha):
        """Returns the expected cost of the weights behind `log_alpha`."""
        active = probability_active(log_alpha, self.temperature, self.stretch)
        return self.factor * self.group_size * ops.sum(active)

    def get_config(self):
        """Returns the constructor's arguments."""
        return {
            "factor": self.factor,
            "group_size": self.group_size,
            "weight_decay": self.weight_decay,
            "temperature": self.temperature,
            "stretch": list(self.stretch),
        }


class _Clamp(keras.constraints.Constraint):
    """Keeps `log_alpha` where a gate can still open and close."""

    def __call__(self, w):
        return ops.clip(w, *LOG_ALPHA_RANGE)


@keras.saving.register_keras_serializable("keras_sgl0")
class HardConcrete(keras.layers.Layer):
    r"""One gate for each slice of the last axis: `outputs = z * inputs`.

    In training one sample of the gates serves the whole batch, on every replica
    of a `MirroredStrategy`; otherwise they are deterministic. Put it behind a
    convolution to gate its output maps, or before a dense layer to gate its
    inputs:

    `Conv2D -> HardConcrete -> ... -> Flatten -> HardConcrete -> Dense`

    `add_gates` puts gates on the structures of any model, channels that can
    only be cut together.

    `log_alpha`, one number a gate, starts normal around
    `log((1 - droprate_init) / droprate_init)` with standard deviation .01 and
    is clamped to [log .01, log 100] by the optimizer's step, as a constraint.
    Weights behind a gate should start larger by `1 / (1 - droprate_init)`, as
    those of `models.MLP` and `models.LeNet5Caffe` do.

    Test-time gates, with `s = sigmoid(log_alpha)`:

    * `"median"` (default): `clip(sigmoid(log_alpha / temperature) * (high -
      low) + low, 0, 1)`, the median of z. It is 0 exactly where
      `P(z != 0) <= 1/2`: what is off more often than on in training is off in
      the network one ships.
    * `"mean"`: `clip(s * (high - low) + low, 0, 1)`, which Louizos et al. take
      for the mean. It is 0 only where `P(z != 0) <= .31` (for the default
      temperature and stretch), so it prunes less of the same `log_alpha`.

    Input shape: any with a known last axis, channels last.
    Output shape: that of the input.

    Args:
        droprate_init: The share of gates that are closed at the start, in
            [.01, .99].
        test_gate: `"median"` or `"mean"`.
        temperature: The temperature of the concrete distribution. Greater
            than 0.
        stretch: The interval `(low, high)` that s is stretched to, with
            `low < 0` and `high > 1`.
        regularizer: The penalty of `log_alpha`, usually an `ExpectedL0`.
        seed: The seed of `log_alpha` and of the samples.
        group_size: The number of parameters that one gate rules, for
            `L0Constraint` and `gate_report`. Default: that of the
            `ExpectedL0`, or what the model's graph says.
        **kwargs: Arguments of `keras.layers.Layer`, such as `name`.

    Attributes:
        log_alpha: Trainable vector in at least float32.
        multipliers: The Lagrange multipliers of the constraints these gates
            are under (see `L0Constraint`), 0 without one. Weights that are
            not trained, so that they are saved with the model.

    Raises:
        ValueError: If an argument is out of range or the regularizer's
            temperature or stretch is another; when built, if the last axis is
            not known; when called, if the regularizer has a weight decay and
            the weights are not to be found.

    Example:
        >>> inputs = keras.Input((784,))
        >>> x = keras.layers.Dense(10)(HardConcrete(droprate_init=0.2)(inputs))

    Reference:
        Louizos, Welling, Kingma, ICLR 2018, arXiv 1712.01312; Gallego-Posada
        et al., NeurIPS 2022, for the median.
    """

    def __init__(
        self,
        droprate_init: float = 0.5,
        test_gate: str = "median",
        temperature: float = TEMPERATURE,
        stretch: tuple[float, float] = STRETCH,
        regularizer: keras.regularizers.Regularizer | None = None,
        seed: int | None = None,
        group_size: int | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.droprate_init = finite_float(
            "droprate_init", droprate_init, at_least=0.01, at_most=0.99
        )
        self.test_gate = choice("test_gate", test_gate, TEST_GATES)
        self.temperature = finite_float("temperature", temperature, above=0)
        self.stretch = _stretch(stretch)
        self.regularizer = get_regularizer("regularizer", regularizer)
        if isinstance(self.regularizer, ExpectedL0):
            own = (self.temperature, self.stretch)
            its = (self.regularizer.temperature, self.regularizer.stretch)
            expected = f"one with the gates' temperature and stretch {own}"
            require(own == its, "regularizer", expected, its)
            same = group_size in (None, self.regularizer.group_size)
            expected = f"that of the regularizer: {self.regularizer.group_size}"
            require(same, "group_size", expected, group_size)
            group_size = self.regularizer.group_size
        if group_size is not None:
            group_size = integer("group_size", group_size, at_least=1)
        self.group_size = group_size
        if seed is not None:
            seed = integer("seed", seed, at_least=0)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.supports_masking = True

    def build(self, input_shape):
        """Makes `log_alpha` and `multipliers`."""
        gates = input_shape[-1]
        require(
            gates is not None,
            "input_shape",
            "a shape whose last axis is known",
            input_shape,
        )
        p = self.droprate_init
        self.log_alpha = self.add_weight(
            name="log_alpha",
            shape=(gates,),
            dtype=wide_dtype(self),
            autocast=False,
            initializer=keras.initializers.RandomNormal(
                math.log((1 - p) / p), 0.01, seed=self.seed
            ),
            regularizer=self.regularizer,
            constraint=_Clamp(),
        )
        self.multipliers = [
            self.add_weight(
                name=name,
                shape=(),
                dtype=wide_dtype(self),
                autocast=False,
                initializer="zeros",
                trainable=False,
                aggregation="mean",  # the replicas agree
            )
            for name in ("multiplier", "multiplier_2", "multiplier_3")
        ]

    @property
    def multiplier(self):
        """The multiplier of the first constraint."""
        return self.multipliers[0]

    def call(self, inputs, training=False):
        """Returns the inputs times the gates."""
        if getattr(self.regularizer, "weight_decay", 0):
            self._add_weight_decay()
        z = self.sample() if training else self.test_gates()
        return inputs * ops.cast(z, inputs.dtype)

    def sample(self):
        """Returns one sample of the gates."""
        u = keras.random.uniform(
            self.log_alpha.shape,
            _SMALLEST_U,
            1 - _SMALLEST_U,
            dtype=wide_dtype(self),
            seed=self.seed_generator,
        )
        noise = ops.log(u) - ops.log(1 - u)
        s = ops.sigmoid((noise + self.log_alpha) / self.temperature)
        return self._stretched(s)

    def test_gates(self):
        """Returns the gates of test time."""
        by = self.temperature if self.test_gate == "median" else 1.0
        return self._stretched(ops.sigmoid(self.log_alpha / by))

    def probability_active(self):
        """Returns `P(z != 0)` of each gate."""
        return probability_active(
            self.log_alpha, self.temperature, self.stretch
        )

    def save_own_variables(self, store):
        """Saves the weights and the state of the random numbers."""
        super().save_own_variables(store)
        store[_SEED] = self.seed_generator.state

    def load_own_variables(self, store):
        """Loads what `save_own_variables` saved."""
        self.seed_generator.state.assign(store[_SEED])
        weights = {name: store[name] for name in store.keys() - {_SEED}}
        # Before there were several constraints there was one multiplier.
        for number in range(len(weights), len(self.weights)):
            weights[str(number)] = 0.0
        super().load_own_variables(weights)

    def compute_output_shape(self, input_shape):
        """Returns the input's shape."""
        return input_shape

    def get_config(self):
        """Returns the constructor's arguments."""
        return super().get_config() | {
            "droprate_init": self.droprate_init,
            "test_gate": self.test_gate,
            "temperature": self.temperature,
            "stretch": list(self.stretch),
            "regularizer": keras.regularizers.serialize(self.regularizer),
            "seed": self.seed,
            "group_size": self.group_size,
        }

    def _stretched(self, s):
        low, high = self.stretch
        return ops.clip(s * (high - low) + low, 0.0, 1.0)

    def _add_weight_decay(self):
        gated = gated_by(self)
        if gated is None:
            raise InputError(
                f"The gates `{self.name}` have a weight decay and their "
                "weights are not to be found. Put them directly behind a "
                "convolution or before a dense layer."
            )
        decay = 0.5 * getattr(self.regularizer, "weight_decay", 0)
        self.add_loss(
            decay * ops.sum(self.probability_active() * gated.squares())
        )


def _stretch(stretch):
    valid = (
        isinstance(stretch, list | tuple)
        and len(stretch) == 2
        and all(isinstance(end, numbers.Real) for end in stretch)
        and -math.inf < stretch[0] < 0
        and 1 < stretch[1] < math.inf
    )
    require(valid, "stretch", "(low, high), low < 0 and high > 1", stretch)
    return float(stretch[0]), float(stretch[1])
