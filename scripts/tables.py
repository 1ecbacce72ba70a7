"""Updates tables of runs and figures in Markdown pages from result files.

python scripts/tables.py                          # README.md and docs/
python scripts/tables.py --check                  # only checks them
python scripts/tables.py runs/sweep/sweep.md
"""

import pathlib
import sys

from _extras import name_extra

with name_extra():
    from absl import flags

    from keras_sgl0.experiments.flags import start
    from keras_sgl0.experiments.result_tables import fill_page

_CHECK = flags.DEFINE_bool(
    "check", False, "Change nothing; fail if a page is out of date."
)
_ROOT = pathlib.Path(__file__).parents[1]
PAGES = [
    _ROOT / "README.md",
    _ROOT / "docs" / "results.md",
    *sorted((_ROOT / "docs" / "guides").glob("*.md")),
]


def main(pages):
    texts = {
        pathlib.Path(page).expanduser(): fill_page(page)
        for page in pages or PAGES
    }
    old = [page for page, text in texts.items() if page.read_text() != text]
    if _CHECK.value and old:
        sys.exit(f"tables.py: out of date: {', '.join(map(str, old))}")
    for page in old:
        page.write_text(texts[page])
        print(f"updated {page}")


if __name__ == "__main__":
    start(main)
