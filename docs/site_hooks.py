"""What MkDocs does beyond its plugins, see `hooks` in mkdocs.yml.

The pages in the root of the repository are pages of the site, too. Links are
written as they work in the repository; here they become those of the site.
"""

import ast
import os.path
import pathlib
import re
import sys
import textwrap

from mkdocs.structure.files import File

ROOT = pathlib.Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "docs"))
import gallery  # noqa: E402

# Where the site has the pages that are not in docs/.
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
} | {
    f"examples/{script.name}": f"gallery/{script.stem}.md"
    for script in gallery.examples()
}
_SOURCES = {
    page: source
    for source, page in PAGES.items()
    if not source.startswith("examples/")
}
_LINK = re.compile(r"\]\((?![a-z]+:|#)([^)#\s]+)")
_CODE = re.compile(r"(```.*?```)", re.DOTALL)

# The functions below a formula, such as "Code: [`f`](../keras_sgl0/x.py)".
_FUNCTIONS = re.compile(r"^Code: (.*)$", re.MULTILINE)
_FUNCTION = re.compile(r"\[`([^`]+)`\]\(\.\./(keras_sgl0/[^)]+)\)")


def on_files(files, config):
    """Adds the pages that are not in docs/."""
    found = {f"gallery/{name}": text for name, text in gallery.pages()}
    for source, page in PAGES.items():
        content = found.pop(page, None) or (ROOT / source).read_text()
        files.append(File.generated(config, page, content=content))
    for page, content in found.items():
        files.append(File.generated(config, page, content=content))
    return files


def on_page_markdown(markdown, page, **_):
    """Returns the text of a page with the links of the site."""
    if page.file.src_uri == "mathematics.md":
        return _FUNCTIONS.sub(_with_sources, markdown)
    parts = _CODE.split(markdown)
    # Blocks of code are left as they are.
    for index, part in enumerate(parts):
        if not part.startswith("```"):
            parts[index] = _LINK.sub(
                lambda match: f"]({_link(match[1], page.file.src_uri)}", part
            )
    return "".join(parts)


def _link(link, page):
    """Returns the link on the site for one in the repository."""
    here = os.path.dirname(_SOURCES.get(page, f"docs/{page}"))
    target = os.path.normpath(os.path.join(here, link))
    if (ROOT / target / "result.json").is_file():
        target += "/result.json"  # a folder is no page
    target = PAGES.get(target, os.path.relpath(target, "docs"))
    return os.path.relpath(target, os.path.dirname(page) or ".")


def _with_sources(match):
    """Returns the functions below a formula with their source, folded."""
    return "\n".join(
        f'??? quote "`{symbol}` in {path}"\n'
        + textwrap.indent(_source(path, symbol), "    ")
        for symbol, path in _FUNCTION.findall(match[1])
    )


def _source(path, symbol):
    """Returns the source of a function or class as a block of code."""
    text = (ROOT / path).read_text()
    node = ast.parse(text)
    for name in symbol.split("."):
        node = next(n for n in node.body if getattr(n, "name", None) == name)
    code = text.splitlines()[node.lineno - 1 : node.end_lineno]
    code = textwrap.dedent("\n".join(code))
    return f'```python linenums="{node.lineno}"\n{code}\n```\n'
