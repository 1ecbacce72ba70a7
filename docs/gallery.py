"""The gallery: examples/*.py as pages, with what they print and draw.

An example is a script in the percent format, which editors open as a notebook:
a docstring with the title, then blocks that start with `# %%`. Comments right
below `# %%` are the text of the page. A figure or a report in a block's last
line is shown as in a notebook. `GALLERY` names the examples that a build runs,
as in `GALLERY=quick_start,pareto_front`, or is `all`.

python docs/gallery.py examples/quick_start.py OUTPUTS.json     # runs one
"""

import ast
import base64
import contextlib
import io
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

EXAMPLES = pathlib.Path(__file__).parents[1] / "examples"


def examples():
    """Returns the scripts of the gallery, in the order of their names."""
    return sorted(EXAMPLES.glob("[a-z]*.py"))


def blocks(script):
    """Returns the title, the introduction and the pairs of text and code."""
    first, *others = re.split(r"^# %%.*\n", script.read_text(), flags=re.M)
    module = ast.parse(first)
    title, _, introduction = ast.get_docstring(module).partition("\n")
    code = "".join(first.splitlines(True)[module.body[0].end_lineno :])
    pairs = [("", code)]
    for block in others:
        text = re.match(r"(# ?.*\n)*", block)[0]
        code = block[len(text) :]
        pairs.append((re.sub(r"^# ?", "", text, flags=re.M), code))
    return title.rstrip("."), introduction, pairs


def pages():
    """Yields the name and the text or the bytes of each file of the gallery."""
    wanted = os.environ.get("GALLERY", "").split(",")
    titles = []
    for script in examples():
        title, introduction, pairs = blocks(script)
        titles.append(f"- [{title}](../../examples/{script.name})")
        outputs = [[]] * len(pairs)
        if wanted == ["all"] or script.stem in wanted:
            outputs = run(script)
        parts = [f"# {title}", introduction, f"`examples/{script.name}`"]
        for number, (text, code) in enumerate(pairs):
            parts.append(text)
            if code.strip():
                parts.append(f"```python\n{code.strip()}\n```")
            for index, (kind, output) in enumerate(outputs[number]):
                if kind == "png":
                    name = f"{script.stem}-{number}-{index}.png"
                    yield name, base64.b64decode(output)
                    parts.append(f"![what the code above draws]({name})")
                elif kind == "html":
                    parts.append(output)
                else:
                    parts.append(f"```text\n{output.rstrip()}\n```")
        yield f"{script.stem}.md", "\n\n".join(parts)
    introduction = (
        "Scripts of a minute or two each on two cores. Each is in `examples/` "
        "and opens as a notebook in editors that know the percent format."
    )
    yield "index.md", "\n\n".join(["# Gallery", introduction, *titles])


def run(script):
    """Returns the outputs of each block of a script that is run."""
    with tempfile.TemporaryDirectory() as folder:
        outputs = pathlib.Path(folder, "outputs.json")
        subprocess.run(
            [sys.executable, __file__, script, outputs], cwd=folder, check=True
        )
        return json.loads(outputs.read_text())


def _run_here(script):
    """Yields the outputs of one block after another."""
    sys.path.insert(0, str(script.parent))
    namespace = {"__name__": "__main__"}
    for _, code in blocks(script)[2]:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            value = _value(ast.parse(code), namespace)
        outputs = [("text", printed.getvalue())] if printed.getvalue() else []
        if hasattr(value, "savefig"):
            file = io.BytesIO()
            value.savefig(file, format="png")
            outputs.append(("png", base64.b64encode(file.getvalue()).decode()))
        elif hasattr(value, "_repr_html_"):
            outputs.append(("html", value._repr_html_()))
        yield outputs


def _value(module, namespace):
    """Runs a block and returns the value of its last line, if it has one."""
    last = module.body[-1:]
    if last and isinstance(last[0], ast.Expr):
        del module.body[-1]
        exec(compile(module, "block", "exec"), namespace)
        expression = ast.Expression(last[0].value)
        return eval(compile(expression, "block", "eval"), namespace)
    exec(compile(module, "block", "exec"), namespace)


if __name__ == "__main__":
    found = list(_run_here(pathlib.Path(sys.argv[1])))
    pathlib.Path(sys.argv[2]).write_text(json.dumps(found))
