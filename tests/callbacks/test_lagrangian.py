import numpy as np
import pytest
from helpers import to_numpy, two_gated_layers
from keras import ops

import keras_sgl0 as ks
from keras_sgl0.callbacks.l0_constraint import _some
from keras_sgl0.callbacks.lagrangian import Constraint, Lagrangian


@pytest.mark.parametrize(
    ("violation", "restart", "expected"),
    [
        (0.5, True, 2.05),
        (0.0, True, 2.0),  # met, not satisfied by more: no restart
        (-0.5, True, 0.0),
        (-0.5, False, 1.95),
        (-30.0, False, 0.0),
    ],
)
def test_the_dual_step(violation, restart, expected):
    own = Lagrangian(None, [], learning_rate=0.1, restart=restart)
    values = (ops.convert_to_tensor(x) for x in (2.0, violation))
    assert to_numpy(own._ascend(*values)) == pytest.approx(expected)


def test_whether_it_restarts_is_true_or_false():
    with pytest.raises(ValueError, match="`restart`"):
        ks.L0Constraint(0.5, restart="no")


@pytest.mark.parametrize(
    ("densities", "target", "met"),
    [
        ([], 0.5, False),
        ([0.2, 0.505], 0.5, True),
        ([0.2, 0.51], 0.5, False),
        ([0.6], 0.5, False),
        ([0.0], 0.0, True),  # exactly, in any precision
    ],
)
def test_met_is_one_percent_above_the_target_at_most(densities, target, met):
    constraint = ks.L0Constraint(0.5)
    constraint.constraints = tuple(
        Constraint("", [], target, lambda d=d: ops.convert_to_tensor(d), ())
        for d in densities
    )
    assert constraint.is_met() is met


def test_a_layer_without_gates_is_refused_by_name():
    model = two_gated_layers()
    constraint = ks.L0Constraint({"nowhere": 0.5}, "layer")
    data = np.ones((4, *model.input_shape[1:])), np.zeros(4)
    with pytest.raises(ValueError, match=r"argument `density`.*nowhere"):
        model.fit(*data, verbose=0, callbacks=[constraint])


@pytest.mark.parametrize(
    ("number", "text"),
    [(2, "`0`, `1`"), (6, "`0`, `1`, `2`, `3`, `4` and 1 more")],
)
def test_five_names_are_shown(number, text):
    assert _some([str(i) for i in range(number)]) == text
