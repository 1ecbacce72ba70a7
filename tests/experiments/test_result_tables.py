"""Every number in a table of runs is the one in its result file."""

import json
import pathlib
import re

import pytest
from test_scripts import run_script

from keras_sgl0.experiments.recipes import RECIPES
from keras_sgl0.experiments.result_tables import (
    COLUMNS,
    CUT_LINKS,
    FILE_COLUMNS,
    FILE_LINKS,
    LINKS,
    fill_page,
)
from keras_sgl0.experiments.results import (
    group,
    read_history,
    read_result,
    read_results,
    settings,
)

pytestmark = pytest.mark.tensorflow

ROOT = pathlib.Path(__file__).parents[2]
RESULTS = ROOT / "docs" / "results"
PAGES = [
    ROOT / "README.md",
    ROOT / "docs" / "results.md",
    *sorted((ROOT / "docs" / "guides").glob("*.md")),
]
LINK = re.compile(r"\]\(((?:docs/|\.\./)?results/[^)]+)/\) ?")


def rows():
    """Yields the lines with runs, and the folders of those."""
    for page in PAGES:
        for line in page.read_text().splitlines():
            if line.startswith("|") and LINK.search(line):
                yield (
                    line,
                    [(page.parent / f).resolve() for f in LINK.findall(line)],
                )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_tables_show_what_the_result_files_say(page):
    assert fill_page(page) == page.read_text()


SECTION = re.compile(r"^## (.+)\n((?:(?!^## ).*\n)+)", re.MULTILINE)
CODE = re.compile(r"^```.*?^```$|`[^`]*`", re.MULTILINE | re.DOTALL)
MARKED = re.compile(r"<!--=.*?<!--/-->", re.DOTALL)
# Four digits or more: fewer are often a setting as well.
FIGURE = re.compile(
    r"(?<![\w.,])(\d{1,3}(?:,\d{3})+|\d{2,}\.\d{2,}|\d\.\d{3,})(?![\w,.]*\d)"
)


def sections():
    text = (ROOT / "docs" / "results.md").read_text()
    return [
        pytest.param(*found, id=found[0]) for found in SECTION.findall(text)
    ]


@pytest.mark.parametrize(("title", "text"), sections())
def test_a_section_takes_its_figures_from_files(title, text):
    if "](results/" in text:
        filled = any(
            line.startswith("|") and f"| {kind} |" in line
            for line in text.splitlines()
            for kind in (LINKS, CUT_LINKS, FILE_LINKS)
        )
        assert filled or MARKED.search(text), f"{title}: nothing is filled in"


@pytest.mark.parametrize(("title", "text"), sections())
def test_text_that_repeats_a_figure_of_a_table_marks_it(title, text):
    text = CODE.sub("", text)
    lines = text.splitlines()
    ours = {
        figure
        for line in lines
        if line.startswith("|") and "](results/" in line
        for figure in FIGURE.findall(line)
    }
    prose = "\n".join(line for line in lines if not line.startswith("|"))
    bare = set(FIGURE.findall(MARKED.sub("", prose)))
    assert not ours & bare, "see `fill_figures` for how a figure is marked"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_line_of_a_mark_ends_its_paragraph(page):
    """A line that begins with a comment or a bullet starts a new block."""
    text = page.read_text()
    assert not re.findall(r"^ *<!--[=/].*", text, re.MULTILINE)
    for mark in MARKED.findall(text):
        assert not re.findall(r"^ *[-+*] .*", mark, re.MULTILINE)


def test_every_committed_run_is_shown_somewhere():
    shown = {folder for _, folders in rows() for folder in folders}
    shown.add(RESULTS / "digits-0")
    there = {path.parent for path in RESULTS.rglob("result.json")}
    assert there == shown


def test_the_runs_on_mnist_are_what_the_readme_says_of_them():
    _, _, page = (
        (ROOT / "README.md").read_text().partition("## Results on MNIST")
    )
    folders = LINK.findall(page.partition("\n## ")[0])
    assert len(folders) >= 5
    for folder in folders:
        result = read_result(ROOT / folder)
        assert result.epochs == (80 if "tuned" in folder else 200)
        cut = result.test_error - result.test_error_unthresholded
        if "sparse_group_lasso-2" in folder:
            assert cut == pytest.approx(0.01)
        else:
            assert cut == 0


GATED = {
    "architecture": "20-18-37-467",
    "density": 0.1177,
    "mean": {"architecture": "20-18-38-478"},
    "layers": [{"density": 0.5}, {"density": 0.25}],
    "ungated": {"weight_sparsity_kernels": 0.0049, "neuron_sparsity": 0.0},
}


def write_run(folder, **values):
    folder.mkdir()
    recipe = {"density": [0.1], "factor": 1.0, "scope": "model"}
    result = {
        "weight_sparsity": 89.025,
        "weight_sparsity_kernels": 90.0,
        "neuron_sparsity": 67.0,
        "test_error": 0.81,
        "test_error_unthresholded": 0.83,
        "weight_sparsity_unthresholded": 0.5,
        "neuron_sparsity_unthresholded": 0.0,
        "best_test_error": 0.5,
        "gates": GATED,
        "shrunk": {"parameters_after": 20500, "macs_after": 1000000},
        "recipe": recipe | values.pop("recipe", {}),
        "seed": 0,
        "epochs": 200,
    }
    (folder / "result.json").write_text(json.dumps(result | values))


@pytest.fixture
def folder(tmp_path):
    write_run(tmp_path / "a")
    gates = GATED | {"architecture": "20-20-40-400", "density": 0.12}
    write_run(
        tmp_path / "b",
        weight_sparsity=89.285,
        test_error=0.63,
        shrunk={"parameters_after": 19900, "macs_after": 1000000},
        recipe={"factor": 0.5},
        seed=1,
    )
    # With constrained gates no factor is used: it counts as the default.
    gated = {"penalty": "l0_gates", "training": "subgradient", "scope": "layer"}
    write_run(tmp_path / "c", gates=gates, seed=2, recipe=gated)
    return tmp_path


def table(folder, header, row):
    page = folder / "page.md"
    bar = "|" + "---|" * header.count("|")
    page.write_text(f"Text\n\n| {header} |\n{bar}\n{row}\n\nMore | text.\n")
    before, text = page.read_text(), fill_page(page)
    assert text.replace(text.splitlines()[4], row) == before
    return text.splitlines()[4]


@pytest.mark.parametrize(
    ("column", "one", "three"),
    [
        ("weight sparsity", "89.03", "89.11 ± .15"),
        ("neuron sparsity", "67.00", "67.00 ± .00"),
        ("test error", "0.81", ".75 ± .10"),
        ("last error", "0.83", ".83 ± .00"),
        ("best error", "0.50", ".50 ± .00"),
        ("uncut weight sparsity", "0.50", ".50 ± .00"),
        ("uncut neuron sparsity", "0.00", ".00 ± .00"),
        ("density", "10.00", "10.00 ± .00"),
        ("architecture", "20-18-37-467", "20-19-38-445"),
        ("gates by mean", "20-18-38-478", "20-18-38-478"),
        ("weights without gates", "0.00", ".00 ± .00"),
        ("neurons without gates", "0.00", ".00 ± .00"),
        ("shrunk parameters", "20,500", "20,300"),
        ("shrunk MACs", "1,000,000", "1,000,000"),
        ("target", "10", "10"),
        ("factor", "1", "1, 0.5, 0.1"),
        ("seed", "0", "0, 1, 2"),
        ("epochs", "200", "200"),
        ("runs", "1", "3"),
    ],
)
def test_a_cell_of_one_run_and_of_three(folder, column, one, three):
    for cell, links in ((one, "[a](a/)"), (three, "[a](a/) [b](b/) [c](c)")):
        shown = table(folder, f"x | {column} | run", f"| SGL0 | ? | {links} |")
        assert shown == f"| SGL0 | {cell} | {links} |"


@pytest.mark.parametrize(
    ("run", "cell"), [("b", "11.77"), ("c", "50.00 25.00")]
)
def test_expected_densities(folder, run, cell):
    shown = table(folder, "expected density | run", f"| | [r]({run}/) |")
    assert shown == f"| {cell} | [r]({run}/) |"


@pytest.fixture
def files(tmp_path):
    for seed, loss in enumerate((1.25, 1.75)):
        families = [{"structures_after": 4}, {"structures_after": 50 + seed}]
        content = {
            "macs": 26_198_016,
            "parameters": 1000 + seed,
            "weights": 900,
            "error": 0.654,
            "loss": loss,
            "accuracy": 0.675,
            "test_error": 2.0,
            "test_error_after": 1.5,
            "report": {
                "macs_after": 308_364,
                "parameters_after": 42_725,
                "families": families,
                "latency": {"ratio": 2.046},
            },
        }
        (tmp_path / f"{seed}.json").write_text(json.dumps(content))
    return tmp_path


OF_FILES = {
    "multiply-adds": "26,198,016",
    "parameters": "1,000",
    "weights": "900",
    "error": "0.65",
    "loss": "1.250",
    "loss, nats a character": "1.250",
    "accuracy": "0.675",
    "multiply-adds left": "308,364",
    "parameters left": "42,725",
    "channels": "4-50",
    "times as fast": "2.05",
    "test error before": "2.00",
    "after": "1.50",
}


def test_a_row_of_a_file(files):
    assert OF_FILES.keys() == FILE_COLUMNS.keys()
    header = " | ".join(OF_FILES)
    shown = table(
        files, f"{header} | files", f"{'| ? ' * len(OF_FILES)}| [0](0.json) |"
    )
    assert shown == f"| {' | '.join(OF_FILES.values())} | [0](0.json) |"


def test_channels_of_a_benchmark(files):
    (files / "c.json").write_text('{"channels": [3, 4, 50]}')
    shown = table(files, "channels | files", "| ? | [c](c.json) |")
    assert shown == "| 3-4-50 | [c](c.json) |"


def test_a_row_of_two_files(files):
    header = "accuracy | loss, nats a character | parameters | files"
    links = "[0](0.json) [1](1.json)"
    shown = table(files, header, f"| ? | ? | ? | {links} |")
    assert shown == f"| .675 ± .000 | 1.500 ± .354 | 1,000 | {links} |"


@pytest.mark.parametrize(
    ("column", "link", "words"),
    [
        ("loss, nats a character", "[2](2.json)", "cannot be read as JSON"),
        ("loss, nats a character", "[a](a.json)", "cannot be read as JSON"),
        ("multiply-adds", "[b](b.json)", "cannot be filled in"),
        ("channels", "[0](0.json) [1](1.json)", "cannot be filled in"),
    ],
    ids=["no file", "no JSON", "no figure", "two networks"],
)
def test_files_that_cannot_be_shown(files, column, link, words):
    (files / "a.json").write_text("{")
    (files / "b.json").write_text("{}")
    with pytest.raises(ValueError, match=words):
        table(files, f"{column} | files", f"| ? | {link} |")


def test_validation_errors_are_no_test_errors(folder):
    write_run(folder / "d", recipe={"validation": 0.2})
    shown = table(folder, "validation error | run", "| ? | [d](d/) |")
    assert shown == "| 0.81 | [d](d/) |"
    for column, run in (
        ("test error", "d"),
        ("last error", "d"),
        ("best error", "d"),
        ("validation error", "a"),
    ):
        with pytest.raises(ValueError, match="those of other images"):
            table(folder, f"{column} | run", f"| ? | [x]({run}/) |")


def test_without_gates_no_density_is_expected(folder):
    write_run(folder / "d", gates=None)
    shown = table(folder, "expected density | run", "| 7 | [d](d/) |")
    assert shown == "| | [d](d/) |"


@pytest.mark.parametrize(
    ("header", "row"),
    [
        ("test error | run", "| .67 ± .02 |   |"),
        ("test error | run", "| .67 | see [a](a/) |"),
        ("test error | link", "| 1.00 | [a](a/) |"),
        (r"a \| test error | run", r"| 1 | [a](a/) |"),
        ("something | run", "| kept | [a](a/) |"),
    ],
    ids=["published", "prose", "other table", "escaped", "other column"],
)
def test_what_is_not_ours_stays(folder, header, row):
    assert table(folder, header, row) == row


def test_the_columns_are_tested():
    tested = test_a_cell_of_one_run_and_of_three.pytestmark[0].args[1]
    others = {"expected density", "validation error"}
    assert {case[0] for case in tested} | others == set(COLUMNS)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            "| 1 | 1 | [x](nowhere/) |",
            "`folder`. Expected a run's folder, with a result.json. Received: ",
        ),
        (
            "| 1 | 1 | [x](old/) |",
            "The column 'best error' cannot be filled in from the runs "
            r"\['old/'\]: KeyError\('best_test_error'\)",
        ),
        ("| 1 | 1 | [a](a/) [x](other/) |", "column 'architecture' cannot"),
    ],
    ids=["no run", "no figure", "another network"],
)
def test_what_cannot_be_shown(folder, row, message):
    write_run(folder / "other", gates={"architecture": "1-2"})
    write_run(folder / "old")
    result = read_result(folder / "old").to_dict()
    del result["best_test_error"]
    (folder / "old" / "result.json").write_text(json.dumps(result))
    with pytest.raises(ValueError, match=message):
        table(folder, "best error | architecture | run", row)


def test_the_best_error_of_an_older_run_is_in_its_history(folder):
    result = json.loads((folder / "a" / "result.json").read_text())
    del result["best_test_error"]
    (folder / "a" / "result.json").write_text(json.dumps(result))
    lines = "epoch,val_error\n0,0.02\n1,0.006\n2,0.0081\n"
    (folder / "a" / "history.csv").write_text(lines)
    assert read_result(folder / "a").best_test_error == 0.6


def test_no_page():
    with pytest.raises(ValueError, match=r"`page`. Expected a Markdown file"):
        fill_page("nowhere.md")


def test_tables_fills_in_a_page_or_only_checks_it(folder):
    page = folder / "page.md"
    page.write_text("| seed | run |\n|---|---|\n| ? | [b](b/) |\n")
    process = run_script(folder, "tables.py", "--check", "page.md")
    assert process.returncode == 1
    assert "tables.py: out of date: page.md" in process.stderr
    assert "?" in page.read_text()
    process = run_script(folder, "tables.py", "page.md")
    assert (process.returncode, process.stdout) == (0, "updated page.md\n")
    assert page.read_text().endswith("| 1 | [b](b/) |\n")
    process = run_script(folder, "tables.py", "--check", "nowhere.md")
    assert process.returncode == 1
    assert "tables.py: Invalid value for argument `page`" in process.stderr


def test_an_older_result_gets_the_settings_it_did_not_have():
    recipe = read_result(RESULTS / "mnist_sgl0-0").recipe
    assert recipe == RECIPES["mnist_sgl0"].to_dict()


def test_results_of_several_folders_come_once_each():
    targets = RESULTS / "targets"
    results = read_results([targets, targets / "sgl0_density-0.1", RESULTS])
    assert len(results) == len(list(RESULTS.rglob("result.json")))
    assert list(results) == sorted(results)


def test_results_are_grouped():
    results = read_results([RESULTS])
    runs = group(results.values(), lambda r: settings(r, "seed"))
    seeds = {tuple(r.seed for r in run) for run in runs.values()}
    found = RESULTS.glob("mnist_sgl0-[0-9]")
    of_sgl0 = tuple(sorted(read_result(f).seed for f in found))
    assert len(of_sgl0) > 1
    assert {(0,), of_sgl0} <= seeds


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read as a result: JSONDecodeError"),
        ("[]", "cannot be read as a result: TypeError"),
        ('{"recipe": {}}', "as a result: KeyError.'weight_sparsity'"),
    ],
)
def test_a_damaged_result(tmp_path, text, message):
    (tmp_path / "result.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_result(tmp_path)


def test_no_results(tmp_path):
    expected = "`folders`. Expected folders of finished runs. Received: "
    with pytest.raises(ValueError, match=expected):
        read_results([tmp_path])


def test_a_history_is_columns_of_numbers():
    history = read_history(RESULTS / "mnist_sgl0-0")
    assert history["epoch"] == list(range(200))
    assert history["threshold"][0] == pytest.approx(8**0.5 / 10)


@pytest.mark.parametrize("text", ["epoch\nx\n", "a,b\n1\n"])
def test_a_damaged_history(tmp_path, text):
    (tmp_path / "history.csv").write_text(text)
    with pytest.raises(
        ValueError, match=r"The history.csv in .* cannot be read"
    ):
        read_history(tmp_path)


@pytest.mark.parametrize("text", [None, "", "epoch\n"])
def test_no_history(tmp_path, text):
    if text is not None:
        (tmp_path / "history.csv").write_text(text)
    expected = r"`folder`. Expected a run's folder, with a history.csv. Rec"
    with pytest.raises(ValueError, match=expected):
        read_history(tmp_path)
