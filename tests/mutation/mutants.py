"""Small faults in a module, one at a time: its mutants."""

import ast
import collections
import copy
from collections.abc import Iterator
from dataclasses import dataclass

COMPARED = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
OPERATORS = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.MatMult: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
PAIRS = [
    ("all", "any"),
    ("argmax", "argmin"),
    ("max", "min"),
    ("maximum", "minimum"),
    ("ones", "zeros"),
    ("ones_like", "zeros_like"),
]
NAMES = dict(PAIRS) | {b: a for a, b in PAIRS}
CONDITIONS = (ast.If, ast.While, ast.IfExp)
# What says nothing of its own: a comparison has mutants already.
DECIDED = (ast.Compare, ast.BoolOp)


@dataclass
class Mutant:
    """A part of a syntax tree, and what takes its place.

    Attributes:
        name: The function, the part and what takes its place, as text.
        lines: The first and last line of the statement.
        place: The node, its field and where the field is a list the index.
        new: What takes the place.
    """

    name: str
    lines: tuple[int, int]
    place: tuple[ast.AST, str, int | None]
    new: ast.AST

    def apply(self) -> None:
        """Changes the tree."""
        node, field, index = self.place
        ast.fix_missing_locations(ast.copy_location(self.new, node))
        if index is None:
            setattr(node, field, self.new)
        else:
            getattr(node, field)[index] = self.new


def find_mutants(tree: ast.Module) -> list[Mutant]:
    """Returns all mutants of a module.

    Args:
        tree: Its syntax tree, to which a mutant is applied.
    """
    found, seen = [], collections.Counter()
    for mutant in _walk(tree, "", (1, 1)):
        seen[mutant.name] += 1
        if seen[mutant.name] > 1:
            mutant.name += f" ({seen[mutant.name]})"
        found.append(mutant)
    return found


def _walk(node, scope, lines) -> Iterator[Mutant]:
    """Yields the mutants of what is below a node."""
    for field, value in ast.iter_fields(node):
        several = isinstance(value, list)
        for i, child in enumerate(value if several else [value]):
            if not isinstance(child, ast.AST) or _is_idle(node, field, child):
                continue
            inner, own = scope, lines
            if isinstance(child, ast.stmt):
                own = (child.lineno, child.end_lineno)
            if isinstance(child, ast.FunctionDef | ast.ClassDef):
                inner = f"{scope}.{child.name}".lstrip(".")
                own = (child.lineno, child.body[0].lineno - 1)
            for new in _variants(node, field, child):
                place = (node, field, i if several else None)
                text = f"{_text(child)} -> {_text(new)}"
                yield Mutant(f"{inner or 'module'}: {text}", own, place, new)
            if not isinstance(child, ast.Raise):
                yield from _walk(child, inner, own)


def _is_idle(node, field, child):
    """Returns whether nothing changes when a part does.

    Annotations and type aliases are not run; docstrings and texts of errors
    are for people: what has a space in it is such a text.
    """
    if field in ("annotation", "returns"):
        return True
    if isinstance(child, ast.JoinedStr | ast.Import | ast.ImportFrom):
        return True
    if isinstance(child, ast.Assign):
        kind, target = child.value, ast.unparse(child.targets[0])
        alias = isinstance(kind, ast.Subscript) and target.istitle()
        return target == "__all__" or alias
    if isinstance(child, ast.If):
        return ast.unparse(child.test) == "TYPE_CHECKING"
    if isinstance(child, ast.Constant) and isinstance(child.value, str):
        return " " in child.value or isinstance(node, ast.Expr)
    return False


def _variants(node, field, child) -> Iterator[ast.AST]:
    """Yields what may take the place of a part."""
    if isinstance(child, ast.Constant):
        yield from _constants(child.value)
    elif isinstance(child, ast.Compare):
        for i, operator in enumerate(child.ops):
            for kind in COMPARED[type(operator)]:
                ops = [*child.ops[:i], kind(), *child.ops[i + 1 :]]
                yield _with(child, ops=ops)
    elif isinstance(child, ast.BinOp | ast.AugAssign):
        if type(child.op) in OPERATORS:
            yield _with(child, op=OPERATORS[type(child.op)]())
    elif isinstance(child, ast.BoolOp):
        other = ast.Or if isinstance(child.op, ast.And) else ast.And
        yield _with(child, op=other())
    elif isinstance(child, ast.UnaryOp):
        yield child.operand
    elif isinstance(child, ast.Call):
        yield from _calls(child)
    elif isinstance(child, ast.Raise):
        yield ast.Pass()
    elif isinstance(child, ast.Expr) and isinstance(child.value, ast.Call):
        yield ast.Pass()
    elif isinstance(child, ast.Return) and child.value is not None:
        if not isinstance(child.value, ast.Constant):
            yield ast.Return(ast.Constant(None))
    elif isinstance(child, ast.Continue):
        yield ast.Break()
    elif isinstance(child, ast.Break):
        yield ast.Continue()
    condition = field == "test" and isinstance(node, CONDITIONS)
    condition |= field == "ifs"
    if condition and not isinstance(child, DECIDED):
        if not isinstance(child, ast.UnaryOp):
            yield ast.UnaryOp(ast.Not(), child)


def _constants(value):
    if isinstance(value, bool):
        yield ast.Constant(not value)
    elif isinstance(value, int | float):
        yield ast.Constant(value + 1)
    elif isinstance(value, str):
        yield ast.Constant(value + "X")


def _calls(call):
    """Yields a call of the counterpart, and calls without a keyword."""
    if isinstance(call.func, ast.Name) and call.func.id in NAMES:
        yield _with(call, func=ast.Name(NAMES[call.func.id], ast.Load()))
    if isinstance(call.func, ast.Attribute) and call.func.attr in NAMES:
        yield _with(call, func=_with(call.func, attr=NAMES[call.func.attr]))
    for i in range(len(call.keywords)):
        yield _with(call, keywords=call.keywords[:i] + call.keywords[i + 1 :])


def _with(node, **fields):
    """Returns a node with other fields; what is not changed is shared."""
    changed = copy.copy(node)
    for name, value in fields.items():
        setattr(changed, name, value)
    return changed


def _text(node):
    return " ".join(ast.unparse(node).split())
