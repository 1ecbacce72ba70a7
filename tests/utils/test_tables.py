import keras
import pytest

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
