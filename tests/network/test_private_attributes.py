"""Keras's private attributes are touched in `network` and `lending` alone."""

import ast
import pathlib

import pytest

import keras_sgl0

PACKAGE = pathlib.Path(keras_sgl0.__file__).parent
# The seam to Keras. A new version of Keras may break these and no others.
ALLOWED = ("network/", "callbacks/lending.py")
OWN = ("self", "cls")
READERS = ("getattr", "setattr", "hasattr", "delattr")


def is_private(name):
    return name.startswith("_") and not name.startswith("__")


def private_attributes(source):
    """Returns the private attributes of others that code touches, by line."""
    found = []
    for node in ast.walk(ast.parse(source)):
        name, owner = None, None
        if isinstance(node, ast.Attribute):
            name, owner = node.attr, node.value
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in READERS
            and isinstance(node.args[1], ast.Constant)
        ):
            owner, name = node.args[0], node.args[1].value
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if module.startswith("keras.src"):
                found.append((node.lineno, module))
        if name is None or not is_private(name):
            continue
        if isinstance(owner, ast.Name) and owner.id in OWN:
            continue
        if isinstance(owner, ast.Call) and ast.unparse(owner) == "super()":
            continue
        found.append((node.lineno, name))
    return found


def modules():
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).as_posix()
        if not name.startswith(ALLOWED):
            yield name


@pytest.mark.parametrize("name", modules())
def test_private_attributes_stay_in_one_place(name):
    assert private_attributes((PACKAGE / name).read_text()) == []


@pytest.mark.parametrize(
    "source",
    [
        "layer._inbound_nodes",
        "model.layers[0]._x = 1",
        "f(x)._y",
        "getattr(layer, '_z', None)",
        "setattr(layer, '_z', 1)",
        "from keras.src import ops",
    ],
)
def test_they_are_found(source):
    assert len(private_attributes(source)) == 1


@pytest.mark.parametrize(
    "source", ["self._x", "cls._x", "super()._x()", "x.__name__", "x.y", "_x"]
)
def test_nothing_else_is(source):
    assert private_attributes(source) == []
