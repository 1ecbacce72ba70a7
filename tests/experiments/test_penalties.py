import pytest

import keras_sgl0 as ks
from keras_sgl0.experiments.penalties import make_penalty


class WithoutFactor(ks.GroupLasso):
    def __init__(self):
        super().__init__(1.0)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("none", "a penalty to make"),
        (f"{__name__}:WithoutFactor", "constructed as Class"),
        (f"{__name__}:Missing", "or package.module:Class"),
        (f"{__name__}:pytest", "a subclass of Penalty"),
    ],
)
def test_what_makes_no_penalty_is_refused(name, expected):
    with pytest.raises(ValueError, match=f"`penalty`. Expected .*{expected}"):
        make_penalty(name, 0.1, "auto")
