"""What stands in for a penalty, by itself."""

import copy

import keras
import numpy as np
import pytest
from helpers import two_layers
from keras import ops

import keras_sgl0 as ks
from keras_sgl0.callbacks.lending import (
    LendingCallback,
    LentPenalty,
    by_path,
    penalty_of,
    value_of,
)

W = np.array([[1.0, -2.0], [3.0, 0.0]], "float32")


class Doubled(LentPenalty):
    def value(self, w):
        return 2 * value_of(self.original, w)


def test_the_regularizer_beside_it_counts_once():
    penalty = ks.L1(0.5)
    plain = Doubled(penalty)
    assert plain.rest is None
    assert float(plain.stand_in(W)) == 6
    lent = Doubled(penalty)
    lent.rest = keras.regularizers.L2(0.1)
    assert float(lent.stand_in(W)) == pytest.approx(6 + 1.4)
    # One that stands in for it hands it on.
    twice = Doubled(lent)
    assert twice.rest is lent.rest
    assert float(twice.stand_in(W)) == pytest.approx(12 + 1.4)
    assert float(value_of(twice, W)) == 12
    assert float(value_of(penalty, W)) == 3
    with pytest.raises(NotImplementedError):
        LentPenalty(penalty).value(W)


def test_the_penalty_of_a_variable_is_found_below_what_is_lent():
    variable = keras.Variable(W)
    for regularizer, penalty in (
        (None, None),
        (keras.regularizers.L2(0.1), None),
        (Doubled(None), None),
    ):
        variable.regularizer = regularizer
        assert penalty_of(variable) is penalty
    penalty = ks.GroupLasso(0.1)
    for regularizer in (penalty, Doubled(penalty), Doubled(Doubled(penalty))):
        variable.regularizer = regularizer
        assert penalty_of(variable) is penalty


def test_values_by_path():
    first, second = (keras.Variable(W, name="w") for _ in range(2))
    assert by_path([(first, 1), (second, 2)]) == {"w": 1, "w_1": 2}
    assert by_path([]) == {}


class Nothing(LendingCallback):
    """Lends nothing."""


class Sum(LentPenalty):
    def value(self, w):
        return ops.sum(ops.abs(w))


class ToBiases(LendingCallback):
    """Lends biases a penalty, and notes what it is asked."""

    def survey(self, transfer=None):
        self.asked, self.prepared = [], []

    def lend(self, variable, original):
        self.asked.append((variable, original))
        is_bias = variable.name == "bias"
        return {"regularizer": Sum(original)} if is_bias else {}

    def prepare(self, variables):
        self.prepared = variables


def test_who_is_asked_and_who_is_lent_to(images):
    penalty = ks.GroupLasso(0.1)
    model = two_layers(penalty)
    callback, seen = ToBiases(), []
    look = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: seen.extend(
            v.regularizer for v in model.trainable_variables
        )
    )
    model.fit(*images, verbose=0, callbacks=[callback, look])
    kernels = [layer.kernel for layer in model.layers]
    biases = [layer.bias for layer in model.layers]
    assert [id(v) for v, _ in callback.asked] == [
        id(v) for pair in zip(kernels, biases, strict=True) for v in pair
    ]
    assert [original for _, original in callback.asked] == [penalty, None] * 2
    assert [id(v) for v in callback.prepared] == [id(v) for v in biases]
    assert [type(r) for r in seen] == [ks.GroupLasso, Sum] * 2
    assert (seen[1].lender, seen[1].fit) == ("ToBiases", callback.fit)
    assert [b.regularizer for b in biases] == [None, None]
    assert callback._loans == ()


def test_a_callback_with_nothing_to_lend_names_what_there_is(images):
    model = two_layers(keras.regularizers.L2(0.1))
    model.layers[0].kernel.regularizer = ks.L1(0.1)
    with pytest.raises(ValueError) as caught:
        model.fit(*images, verbose=0, callbacks=[Nothing()])
    assert str(caught.value).startswith(
        "`Nothing` found no trainable variable with a regularizer"
    )
    assert str(caught.value).endswith("the regularizers: ['L1', 'L2']")


def test_a_callback_whose_penalties_were_taken_says_so(images):
    model = two_layers(ks.L1(0.1))
    callbacks = [ks.ProximalStep(), Nothing()]
    with pytest.raises(ValueError) as caught:
        model.fit(*images, verbose=0, callbacks=callbacks)
    assert str(caught.value) == (
        "`Nothing` found that a callback before it has taken the penalties. "
        "List it before that one."
    )


@pytest.mark.parametrize("use_ema", [False, True])
def test_zeros_are_noted_only_where_averages_follow(images, use_ema):
    model = two_layers(None, keras.optimizers.SGD(0.1, use_ema=use_ema))
    callback, noted = ToBiases(), []
    look = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: noted.append(len(callback._zeros))
    )
    model.fit(*images, verbose=0, callbacks=[callback, look])
    assert noted == [2 * use_ema]
    assert callback._zeros == []


def test_what_was_zero_becomes_zero_again(images):
    model = two_layers(None)
    callback, bias = ToBiases(), model.layers[0].bias
    bias.assign(np.arange(16.0) - 8)
    callback.set_model(model)
    callback.set_params({"epochs": 1})
    callback.on_train_begin()
    callback._zeros = [(bias, np.arange(16) < 12)]
    callback.on_train_end()
    expected = [0.0] * 12 + [4.0, 5.0, 6.0, 7.0]
    assert ops.convert_to_numpy(bias).tolist() == expected


def test_one_penalty_that_was_taken_is_enough(images):
    model = two_layers(None)
    model.layers[0].kernel.regularizer = ks.L1(0.1)
    model.layers[1].kernel.regularizer = keras.regularizers.L2(0.1)
    with pytest.raises(ValueError, match="has taken the penalties"):
        model.fit(*images, verbose=0, callbacks=[ks.ProximalStep(), Nothing()])


def test_a_copy_belongs_to_no_model(images):
    callback = ToBiases()
    callback.note = "before"
    two_layers(None).fit(*images, verbose=0, callbacks=[callback])
    callback.note = "after"
    again = copy.copy(callback)
    assert (again.model, again.params, again.note) == (None, None, "before")
    two_layers(None).fit(*images, verbose=0, callbacks=[callback])
    # What it is as new is from before the first fit.
    assert copy.copy(callback).note == "before"
    assert not hasattr(copy.copy(callback), "asked")
    new = ToBiases()
    new.set_params({"epochs": 3})
    assert copy.copy(new).params is None


def test_a_model_that_is_not_built_is_refused():
    callback = Nothing()
    callback.set_model(keras.Sequential([keras.layers.Dense(3)]))
    callback.set_params({"epochs": 1})
    with pytest.raises(ValueError, match="built"):
        callback.on_train_begin()
