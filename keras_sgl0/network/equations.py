"""The names of the axes in products of tensors, as `einsum` has them."""

import keras

from keras_sgl0.network.graph import Node, tensors

# A letter, or a number for an axis without one.
Name = str | int
# The operations that sum over products of entries of several tensors.
CONTRACTIONS = {"Dot", "Einsum", "Inner", "Matmul", "Tensordot", "Vdot"}


def spell(term: str, rank: int) -> list[Name]:
    """Returns the name of each axis of an operand or of the result.

    Args:
        term: Its part of the equation, such as `"...ab"`.
        rank: Its number of axes.

    Returns:
        Letters, and negative numbers for what `"..."` stands for, the last one
        being -1.

    Example:
        >>> spell("a...b", 4)
        ['a', -2, -1, 'b']
    """
    letters = term.replace("...", "").replace(" ", "")
    start = term.strip().find(".") if "." in term else len(letters)
    hidden = range(-(rank - len(letters)), 0)
    return [*letters[:start], *hidden, *letters[start:]]


def names_of(node: Node) -> list[list[Name]]:
    """Returns the names of the axes of each operand, then of the output.

    Args:
        node: A call of `ops.einsum`, `ops.matmul` or a `Dot` layer.

    Returns:
        Nothing where an operand is an array, or the equation has no `->`.
    """
    inputs, (y,) = node.inputs, node.outputs
    if len(inputs) < 2 or len(tensors(node.args)) < len(_flat(node.args)):
        return []
    if isinstance(node.operation, keras.layers.Dot):
        return _of_dot(node)
    return spelled(node.operation, [x.rank for x in (*inputs, y)])


def spelled(operation: keras.Operation, ranks: list[int]) -> list[list[Name]]:
    """Returns the names of the axes of a product.

    Args:
        operation: An `Einsum` or a `Matmul`.
        ranks: The numbers of axes of the operands and of the output.

    Returns:
        Nothing where it is another operation, the equation has no `->`, or an
        operand of a `Matmul` is a vector.
    """
    kind, terms = type(operation).__name__, []
    if kind == "Matmul" and min(ranks[:-1]) > 1:
        terms = ["...ij", "...jk", "...ik"]
    elif kind == "Einsum":
        operands, arrow, result = operation.subscripts.partition("->")
        terms = [*operands.split(","), result] if arrow else []
    pairs = zip(terms, ranks, strict=True) if terms else ()
    return [spell(term, rank) for term, rank in pairs]


def _of_dot(node) -> list[list[Name]]:
    axes = node.operation.axes
    pair = [axes, axes] if isinstance(axes, int) else axes
    operands: list[list[Name]] = []
    for letter, x, axis in zip("ab", node.inputs, pair, strict=True):
        names: list[Name] = [f"{letter}{i}" for i in range(x.rank)]
        names[0], names[axis] = "batch", "summed"
        operands.append(names)
    first, second = operands
    rest = [n for n in (*first, *second[1:]) if n != "summed"]
    return [first, second, rest if len(rest) > 1 else [*rest, "one"]]


def _flat(args) -> list:
    return [x for x in keras.tree.flatten(args) if x is not None]
