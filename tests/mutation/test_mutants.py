import ast
import pathlib
import tomllib

import pytest
from mutants import find_mutants

ROOT = pathlib.Path(__file__).parents[2]
LISTED = tomllib.loads(
    pathlib.Path(__file__).with_name("modules.toml").read_text()
)
SOURCE = '''
Kind = Literal["one", "two"]
class Thing:
    """A docstring."""
    size: int = -1
    def half(self, x: "X") -> "Y":
        if not x or 0 <= x < 2:
            raise ValueError("a text" + "b")
        y = max(f(x, axis=1), "a text")
        return None if x is None else y
'''
MUTANTS = [
    "Thing: -1 -> 1",
    "Thing: 1 -> 2",
    "Thing.half: not x or 0 <= x < 2 -> not x and 0 <= x < 2",
    "Thing.half: not x -> x",
    "Thing.half: 0 <= x < 2 -> 0 < x < 2",
    "Thing.half: 0 <= x < 2 -> 0 > x < 2",
    "Thing.half: 0 <= x < 2 -> 0 <= x <= 2",
    "Thing.half: 0 <= x < 2 -> 0 <= x >= 2",
    "Thing.half: 0 -> 1",
    "Thing.half: 2 -> 3",
    "Thing.half: raise ValueError('a text' + 'b') -> pass",
    "Thing.half: max(f(x, axis=1), 'a text') -> min(f(x, axis=1), 'a text')",
    "Thing.half: f(x, axis=1) -> f(x)",
    "Thing.half: 1 -> 2",
    "Thing.half: return None if x is None else y -> return None",
    "Thing.half: x is None -> x is not None",
]


def test_the_mutants_of_a_module():
    assert [m.name for m in find_mutants(ast.parse(SOURCE))] == MUTANTS


@pytest.mark.parametrize("i", range(len(MUTANTS)))
def test_a_mutant_changes_one_thing(i):
    tree = ast.parse(SOURCE)
    before = ast.unparse(tree).splitlines()
    find_mutants(tree)[i].apply()
    compile(tree, "mutant", "exec")
    after = ast.unparse(tree).splitlines()
    pairs = zip(before, after, strict=True)
    assert sum(old != new for old, new in pairs) == 1


@pytest.mark.parametrize("module", LISTED)
def test_what_is_listed_exists(module):
    tree = ast.parse((ROOT / module).read_text())
    names = {mutant.name for mutant in find_mutants(tree)}
    assert set(LISTED[module].get("equivalent", ())) <= names
    for tests in LISTED[module]["tests"]:
        assert (ROOT / tests).exists()
