import json

import pytest

from keras_sgl0.experiments.result_figures import fill_figures


@pytest.fixture
def folder(tmp_path):
    for seed, error in enumerate((10.0, 12.5)):
        run = tmp_path / f"run-{seed}"
        run.mkdir()
        content = {"test_error": error, "shrunk": {"macs": [4_000_000, 7]}}
        (run / "result.json").write_text(json.dumps(content))
    (tmp_path / "own.json").write_text('{"loss": 0.25}')
    return tmp_path


@pytest.mark.parametrize(
    "mark, shown, expected",
    [
        ("test_error@run-0/", "9.99", "10.00"),
        ("test_error@run-{0,1}/", "9.9", "11.2"),
        ("test_error@{run,run}-{0,1}/", "9.99", "11.25"),
        ("stdev(test_error@run-{0,1}/)", ".99", "1.77"),
        ("100 * max(test_error@run-{0,1}/)", "9", "1,250"),
        ("1 + min( test_error@run-{0,1}/ )\n", "9", "11"),
        ("test_error@run-1/ - test_error@run-0/", ".1", "2.5"),
        ("test_error@run-0/ - test_error@run-1/", "+.1", "-2.5"),
        ("test_error@run-1/ - test_error@run-0/", "+.1", "+2.5"),
        ("loss@own.json", ".99", ".25"),
        ("loss@own.json", "0.9", "0.2"),
        ("-loss@own.json", ".9", "-.2"),
        ("shrunk.macs.0@run-0/", "1,234", "4,000,000"),
        ("shrunk.macs.0@run-0/", "1234", "4000000"),
        ("100 * (1 - loss@own.json)\n / 3", "1", "25"),
    ],
)
def test_figures(mark, shown, expected, folder):
    before, after = f"Before <!--= {mark} -->", "<!--/--> % after."
    found = fill_figures(before + shown + after, folder)
    assert found == before + expected + after
    assert fill_figures(found, folder) == found


def test_text_without_marks_stays(folder):
    text = "An error of 10.00 <!-- a comment --> percent.\n"
    assert fill_figures(text, folder) == text


@pytest.mark.parametrize(
    "mark, shown, words",
    [
        ("test_error@nowhere/", "1", "cannot be filled in"),
        ("seconds@run-0/", "1", "seconds"),
        ("shrunk@run-0/", "1", "cannot be filled in"),
        ("shrunk.macs.9@run-0/", "1", "cannot be filled in"),
        ("10.0", "1", "Invalid mark"),
        ("test_error@run-0/ -", "1", "Invalid mark"),
        ("test_error@run-0/ / 0", "1", "Invalid mark"),
        ("max(test_error@run-0/ - 1)", "1", "Invalid mark"),
        ("stdev(test_error@run-0/)", "1", "cannot be filled in"),
        ("__import__('os') + test_error@run-0/", "1", "Invalid mark"),
        ("test_error@run-0/", "ten", "Invalid figure"),
        ("test_error@run-0/", "", "Invalid figure"),
    ],
)
def test_marks_that_cannot_be_filled_in(mark, shown, words, folder):
    with pytest.raises(ValueError, match=words):
        fill_figures(f"<!--= {mark} -->{shown}<!--/-->", folder)
