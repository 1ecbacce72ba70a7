import pytest
from helpers import to_numpy
from keras import ops

from keras_sgl0.callbacks.lagrangian import Lagrangian


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
