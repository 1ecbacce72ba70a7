import dataclasses
import importlib.util
import inspect
import json
import operator
import pathlib
import pkgutil
import re
from importlib import import_module

import keras
import pytest

import keras_sgl0
from keras_sgl0.deployment.report import Change, Comparison
from keras_sgl0.experiments.recipe_list import MINUTES
from keras_sgl0.experiments.recipes import RECIPES

if keras.backend.backend() == "tensorflow":
    MODULES = [
        import_module(module.name)
        for module in pkgutil.walk_packages(
            keras_sgl0.__path__, keras_sgl0.__name__ + "."
        )
    ]
else:
    MODULES = []
PUBLIC = {
    f"{thing.__module__}.{name}": thing
    for module in MODULES
    for name, thing in vars(module).items()
    if not name.startswith("_")
    and (inspect.isclass(thing) or inspect.isfunction(thing))
    and thing.__module__.startswith(keras_sgl0.__name__)
}
pytestmark = pytest.mark.tensorflow


def entries(title, docstring):
    """Returns the names that a section of a docstring explains."""
    pattern = rf"\n{title}:\n((?:    .*\n|\n)*)"
    section = re.search(pattern, docstring + "\n")
    return set(
        re.findall(r"^ {4}\**(\w+):", section[1] if section else "", re.M)
    )


@pytest.mark.parametrize("thing", PUBLIC.values(), ids=PUBLIC)
def test_every_public_argument_is_documented(thing):
    docstring = inspect.getdoc(thing)
    assert docstring
    if inspect.isclass(thing) and issubclass(thing, Exception):
        return
    if dataclasses.is_dataclass(thing):
        arguments = {
            field.name
            for field in dataclasses.fields(thing)
            if "help" not in field.metadata
        }
        assert arguments == entries("Attributes", docstring)
    else:
        arguments = set(inspect.signature(thing).parameters)
        assert arguments == entries("Args", docstring)


CLASSES = {k: thing for k, thing in PUBLIC.items() if inspect.isclass(thing)}


@pytest.mark.parametrize("thing", CLASSES.values(), ids=CLASSES)
def test_every_public_method_is_documented(thing):
    # Or inherits its docstring: an override that only does what its base
    # class says need not repeat it.
    for name, member in vars(thing).items():
        if not name.startswith("_") and inspect.isfunction(member):
            assert inspect.getdoc(getattr(thing, name)), name


def test_everything_public_is_exported():
    for name in keras_sgl0.__all__:
        assert getattr(keras_sgl0, name).__doc__


ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
GUIDES = ROOT / "docs" / "guides"


def read_result(folder):
    path = ROOT / folder / "result.json"
    return json.loads(path.read_text())


def test_a_guide_shows_the_digits_run():
    result = read_result("docs/results/digits-0")
    guide = (GUIDES / "experiments.md").read_text()
    for text in (
        f"weight sparsity {result['weight_sparsity']:.2f}%",
        f"neuron sparsity {result['neuron_sparsity']:.2f}%",
        f"test error {result['test_error']:.2f}% thresholded",
        *(f" {alive} / " for alive in result["neurons_alive"]),
    ):
        assert text in guide


def test_readme_shows_the_quick_start():
    printed = (ROOT / "docs/results/quick_start.txt").read_text()
    table = re.search(r"^ +before +after.*?(?= files/)", printed, re.M | re.S)
    assert table[0].rstrip() in README
    assert "test accuracy 0.981 -> 0.981" in printed
    assert "98.1 % of the test images right, before and after" in README


def test_readme_is_short():
    assert len(README.splitlines()) <= 150


def test_the_run_times_show_the_measured_overhead():
    measured = (ROOT / "docs/results/overhead.txt").read_text().strip("\n")
    assert measured in (ROOT / "docs/run_times.md").read_text()


RUN_TIMES = re.findall(
    r"^\| \[.*\]\((.*)/\) \| (\d+) \| ([.\d]+) \|$",
    (ROOT / "docs/run_times.md").read_text(),
    re.MULTILINE,
)


@pytest.mark.parametrize(("run", "epochs", "minutes"), RUN_TIMES)
def test_the_run_times_are_those_of_the_runs(run, epochs, minutes):
    result = read_result(f"docs/{run}")
    assert result["epochs"] == int(epochs)
    digits = 1 if "." in minutes else 0
    assert round(result["seconds"] / 60, digits) == float(minutes)


def test_the_list_of_recipes_has_the_run_times():
    listed = {}
    for run, epochs, minutes in RUN_TIMES:
        name = run.removeprefix("results/").removesuffix("-0")
        if name in RECIPES and RECIPES[name].epochs == int(epochs):
            listed[name] = float(minutes)
    assert listed == MINUTES


@pytest.mark.parametrize("run", ["mnist_sgl0-0", "mnist_group_lasso_macs-0"])
def test_a_guide_shows_the_measured_shrinking(run):
    folder = ROOT / "docs/results"
    shown = (folder / f"shrink-{run}.txt").read_text().strip("\n")
    assert shown in (GUIDES / "shrinking.md").read_text()
    content = json.loads((folder / f"shrink-{run}.json").read_text())
    changes = tuple(Change(**change) for change in content["changes"])
    assert shown.startswith(str(Comparison(changes)))


def test_the_page_of_networks_is_that_of_its_file():
    path = ROOT / "benchmarks" / "zoo.py"
    results = ROOT / "docs" / "results"
    spec = importlib.util.spec_from_file_location("zoo", path)
    zoo = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(zoo)
    rows = json.loads((results / "zoo.json").read_text())
    assert (results / "zoo.md").read_text() == zoo.page(rows)
    guide = (GUIDES / "shrinking.md").read_text()
    number = len(rows)
    exact = sum(row["relative_difference"] <= 1e-5 for row in rows)
    assert f"Of {number} networks in [a table]" in guide
    assert f"{exact} were cut exactly" in guide


FORMULAS = (ROOT / "docs/mathematics.md").read_text()
FUNCTIONS = re.findall(r"\[`([\w.]+)`\]\(\.\./(keras_sgl0/[^)]+)\)", FORMULAS)


@pytest.mark.parametrize(("symbol", "path"), FUNCTIONS)
def test_the_code_of_a_formula_is_there(symbol, path):
    module = import_module(path.removesuffix(".py").replace("/", "."))
    found = operator.attrgetter(symbol)(module)
    assert found.__module__ == module.__name__


def test_every_formula_has_its_code():
    formulas = FORMULAS.count("```text")
    assert FORMULAS.count("\nCode: ") >= formulas > 20
    assert len(FUNCTIONS) == FORMULAS.count("](../keras_sgl0/")


def test_every_public_name_is_on_a_page_of_the_api():
    pages = "".join(p.read_text() for p in (ROOT / "docs/api").glob("*.md"))
    for name in keras_sgl0.__all__:
        if inspect.ismodule(getattr(keras_sgl0, name)):
            continue
        assert f"\n::: keras_sgl0.{name}\n" in pages, name


def test_the_compressed_networks_are_those_of_the_files():
    folder = ROOT / "docs"
    page = (folder / "results.md").read_text()
    for path in sorted((folder / "results" / "compress").glob("*.json")):
        content = json.loads(path.read_text())
        report = content["report"]
        channels = [str(f["structures_after"]) for f in report["families"]]
        cells = [
            f"{report['settings']['seed']}",
            f"{report['macs_after']:,}",
            f"{report['parameters_after']:,}",
            "-".join(channels),
            f"{content['test_error']:.2f}",
            f"{content['test_error_after']:.2f}",
            f"[{path.stem}](results/compress/{path.name})",
        ]
        if report["settings"]["measure"] == "latency":
            cells.insert(4, f"{report['latency']['ratio']:.2f}")
        assert f"| {' | '.join(cells)} |" in page
