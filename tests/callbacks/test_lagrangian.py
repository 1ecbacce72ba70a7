import pytest
from helpers import to_numpy
from keras import ops

import keras_sgl0 as ks
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
