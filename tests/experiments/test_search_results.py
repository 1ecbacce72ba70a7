"""The search on the digits that the guide shows is that of its files."""

import json
import pathlib

from keras_sgl0.experiments.search_report import SearchReport, dominates

DOCS = pathlib.Path(__file__).parents[2] / "docs"
GUIDE = (DOCS / "guides" / "sweeps.md").read_text()


def content(name):
    return json.loads((DOCS / "results" / "search" / name).read_text())


def test_the_guide_shows_the_front_and_what_it_cost():
    report = SearchReport.from_dict(content("digits.json"))
    rows = report.to_markdown().splitlines()
    for row in rows[: 2 + len(report.front)]:
        # But for the links to the folders of the trials.
        assert row.rpartition("| ")[0].removesuffix(" ") in GUIDE
    assert report.summary() in " ".join(GUIDE.split())


def test_the_front_dominates_the_recipes_that_the_guide_says():
    report = SearchReport.from_dict(content("digits.json"))
    recipes = content("digits_recipes.json")
    left = [
        name
        for name, run in recipes.items()
        if not any(
            dominates(trial.values, [run["validation_error"], run["macs"]])
            for trial in report.front
        )
    ]
    assert left == ["digits_plain"]
    dominated = len(recipes) - len(left)
    expected = f"{dominated} of the {len(recipes)} recipes"
    assert expected in " ".join(GUIDE.split())
