"""The picture of a search shows its trials and its front."""

import pathlib

import pytest

from keras_sgl0.experiments import plots
from keras_sgl0.experiments.search_report import SearchReport, Trial

pytestmark = pytest.mark.tensorflow

DIGITS = pathlib.Path(__file__).parents[2] / "docs" / "results" / "digits-0"


def trial(number, *values):
    state = "complete" if values else "pruned"
    return Trial(number, state, {}, list(values), 1, 1.0)


@pytest.mark.parametrize(
    ("objectives", "x", "panels"),
    [
        (("validation_error",), [0], 1),
        (("validation_error", "macs"), [50.0, 90.0], 1),
        (("validation_error", "macs", "parameters"), [50.0, 90.0], 2),
    ],
)
def test_a_front_is_joined(objectives, x, panels):
    number = len(objectives)
    report = SearchReport(
        objectives,
        (
            trial(0, *[1.0, 90.0, 9.0][:number]),
            trial(1, *[2.0, 50.0, 5.0][:number]),
            trial(2, *[3.0, 95.0, 9.5][:number]),
            trial(3),
        ),
    )
    figure = plots.front(report)
    assert len(figure.axes) == panels
    trials, front = figure.axes[0].lines
    assert len(trials.get_xdata()) == 3
    assert list(front.get_xdata()) == x
    assert figure.axes[0].get_ylabel() == "validation error"


def test_other_runs_are_drawn_beside_a_front():
    report = SearchReport(("validation_error", "macs"), (trial(0, 1.0, 90.0),))
    others = [DIGITS]
    runs, *_ = plots.front(report, others).axes[0].lines
    assert len(runs.get_xdata()) == 1


def test_bad_fronts(tmp_path):
    with pytest.raises(ValueError, match="without a complete trial"):
        plots.front(SearchReport(("macs",), (trial(0),)))
    with pytest.raises(ValueError, match=r"`folder`. Expected the folder of a"):
        plots.front(tmp_path)
