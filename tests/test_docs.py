import dataclasses
import importlib.util
import inspect
import json
import pathlib
import pkgutil
import re
from importlib import import_module

import keras
import pytest

import keras_sgl0
from keras_sgl0.deployment.report import Change, Comparison

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


README_PATH = pathlib.Path(__file__).parents[1] / "README.md"
README = README_PATH.read_text()


def read_result(folder):
    path = pathlib.Path(__file__).parents[1] / folder / "result.json"
    return json.loads(path.read_text())


def test_readme_shows_the_digits_run():
    result = read_result("docs/results/digits-0")
    for text in (
        f"weight sparsity {result['weight_sparsity']:.2f}%",
        f"neuron sparsity {result['neuron_sparsity']:.2f}%",
        f"test error {result['test_error']:.2f}% thresholded",
        *(f" {alive} / " for alive in result["neurons_alive"]),
    ):
        assert text in README


def test_readme_shows_the_measured_overhead():
    path = pathlib.Path(__file__).parents[1] / "docs/results/overhead.txt"
    assert path.read_text().strip("\n") in README


@pytest.mark.parametrize("run", ["mnist_sgl0-0", "mnist_group_lasso_macs-0"])
def test_readme_shows_the_measured_shrinking(run):
    folder = pathlib.Path(__file__).parents[1] / "docs/results"
    shown = (folder / f"shrink-{run}.txt").read_text().strip("\n")
    assert shown in README
    content = json.loads((folder / f"shrink-{run}.json").read_text())
    changes = tuple(Change(**change) for change in content["changes"])
    assert shown.startswith(str(Comparison(changes)))


def test_the_page_of_networks_is_that_of_its_file():
    path = README_PATH.parent / "benchmarks" / "zoo.py"
    results = README_PATH.parent / "docs" / "results"
    spec = importlib.util.spec_from_file_location("zoo", path)
    zoo = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(zoo)
    rows = json.loads((results / "zoo.json").read_text())
    assert (results / "zoo.md").read_text() == zoo.page(rows)
    number = len(rows)
    exact = sum(row["relative_difference"] <= 1e-5 for row in rows)
    assert f"Of {number} networks in [a table]" in README
    assert f"{exact} were cut exactly" in README


def test_the_guide_to_rules_runs(capsys):
    guide = README_PATH.parent / "docs" / "guides" / "rules.md"
    blocks = re.findall(r"```python\n(.*?)```", guide.read_text(), re.DOTALL)
    exec("".join(blocks), {"__name__": "guide"})
    assert "ChannelScaleRule" in capsys.readouterr().out


def test_the_compressed_networks_are_those_of_the_files():
    folder = pathlib.Path(__file__).parents[1] / "docs"
    page = (folder / "results.md").read_text()
    for path in sorted((folder / "results" / "compress").glob("*.json")):
        content = json.loads(path.read_text())
        report = content["report"]
        channels = [str(f["structures_after"]) for f in report["families"]]
        cells = (
            f"{report['settings']['seed']}",
            f"{report['macs_after']:,}",
            f"{report['parameters_after']:,}",
            "-".join(channels),
            f"{content['test_error']:.2f}",
            f"{content['test_error_after']:.2f}",
            f"[{path.stem}](results/compress/{path.name})",
        )
        assert f"| {' | '.join(cells)} |" in page
