import io
import re

import keras
import pytest
import rich.console

import keras_sgl0 as ks
from keras_sgl0.deployment.report import Change, Comparison
from keras_sgl0.utils.tables import Report, as_text, new_table

pytestmark = pytest.mark.tensorflow


def test_an_empty_column_is_left_out():
    table = new_table()
    for header in ("layer", "note", "macs"):
        table.add_column(header)
    table.add_row("conv", "", "10")
    table.add_section()
    table.add_row("total", "", "10")
    text = as_text(table, width=80)
    assert "note" not in text and len(text.splitlines()) == 4
    assert [line.split() for line in text.splitlines()[::2]] == [
        ["layer", "macs"],
        ["conv", "10"],
    ]


def test_a_notebook_shows_what_print_shows():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    _, shrunk = ks.shrink(model)
    for report in (
        shrunk,
        ks.count_macs(model),
        ks.sparsity_report(model),
        ks.structures(model),
        ks.regularize(model, ks.L1(1e-3)),
        Comparison((Change("a <b> & c", 2.0, 1.0),)),
    ):
        assert isinstance(report, Report)
        shown = report._repr_html_()
        assert shown.startswith("<pre ") and shown.endswith("</pre>")
        assert str(report).splitlines()[-1].split()[0] in shown
    assert "a &lt;b&gt; &amp; c" in shown


def test_every_report_is_one():
    for name in ks.__all__:
        kind = getattr(ks, name)
        if isinstance(kind, type) and name.endswith("Report"):
            assert issubclass(kind, Report)


@pytest.fixture
def terminal(monkeypatch):
    """Returns what makes the standard output a terminal of some width."""

    def make(columns):
        monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
        monkeypatch.setenv("COLUMNS", str(columns))

    return make


def wide_table():
    table = new_table()
    for header in ("layer", "type", "macs", "note"):
        table.add_column(header)
    table.add_row("a" * 20, "Type" * 5, "1 -> 2", "word " * 20)
    return table


def test_a_narrow_terminal_shows_fewer_columns_and_no_broken_ones(terminal):
    drop = ("type", "macs")
    whole = as_text(wide_table(), width=200, drop=drop)
    assert len(whole.splitlines()) == 3 and "TypeType" in whole
    terminal(200)
    assert as_text(wide_table(), width=60, drop=drop) == whole
    terminal(70)
    text = as_text(wide_table(), width=200, drop=drop)
    assert max(map(len, text.splitlines())) <= 70
    assert "Type" not in text and f"  {'a' * 20}   1 -> 2   word" in text
    assert text.splitlines()[-1] == " no room for: type"
    terminal(30)  # too narrow for all: cells are broken
    text = as_text(wide_table(), width=200, drop=drop)
    assert max(map(len, text.splitlines())) <= 30
    assert text.splitlines()[-1] == " no room for: type, macs"


def test_no_column_is_left_out_that_has_room(terminal):
    table = new_table()
    for header in ("layer", "macs", "read by"):
        table.add_column(header)
    table.add_row("conv", "12", "a" * 90)
    terminal(80)
    text = as_text(table, width=200, drop=("macs", "read by"))
    assert text.splitlines()[-2:] == ["  conv    12", " no room for: read by"]


def test_reports_fit_a_terminal_of_80_columns(terminal):
    inputs = keras.Input((8, 8, 3))
    x = inputs
    for i in range(3):
        name = f"stage_{i}_block_with_a_long_name"
        x = keras.layers.Conv2D(512, 3, padding="same", name=f"{name}_conv")(x)
        x = keras.layers.BatchNormalization(name=f"{name}_norm")(x)
        x = keras.layers.ReLU(name=f"{name}_relu")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, keras.layers.Dense(10, name="head")(x))
    penalised = ks.regularize(model, ks.SGL0(1e-5))
    _, shrunk = ks.delete_channels(
        model, {"stage_1_block_with_a_long_name_conv": range(100)}
    )
    reports = [
        penalised,
        shrunk,
        ks.count_macs(model),
        ks.sparsity_report(model),
        ks.structures(model).report(),
    ]
    wide = [str(report) for report in reports]
    terminal(80)
    for report, before in zip(reports, wide, strict=True):
        lines = str(report).splitlines()
        table = [line for line in lines if line.startswith("  ")]
        assert max(map(len, table)) <= 80
        assert any(line.startswith(" ─") for line in lines)
        names = [line.split()[0] for line in table[1:] if line[2] != " "]
        every = [line.split()[0] for line in before.splitlines()]
        assert set(names) <= set(every)  # no name is broken
    assert "no room for: type" in str(penalised)
    assert len(str(penalised).splitlines()) < len(penalised.entries) + 2


def test_rich_prints_a_report_in_colour():
    out = io.StringIO()
    console = rich.console.Console(file=out, force_terminal=True, width=80)
    console.print(Comparison((Change("[macs]", 2.0, 1.0),)))
    shown = out.getvalue()
    assert "\x1b[" in shown and "[macs]" in re.sub("\x1b.*?m", "", shown)
    assert "\x1b[" not in str(Comparison((Change("macs", 2.0, 1.0),)))
