"""Small expressions over parameters: the conditions of `when`, and what `tied` computes.

Python's own grammar, of which only arithmetic, comparisons, `and`, `or`, `not`, `in`, `a if b else c` and a
few functions are let through. Names may be dotted paths. Nothing is ever handed to `eval`.
"""

from __future__ import annotations

import ast
import copy
import math
import operator
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from orchestrator.errors import nearest

LONGEST, DEEPEST = 20_000, 60

_TOKENS = re.compile(
    r"""(?P<text>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")"""
    r"""|(?P<number>(?:\d[\w.]*|\.\d\w*)(?:(?<=[eE])[+-]\d+)?)"""
    r"""|(?P<name>[^\W\d]\w*(?:\.\w+)*)"""
)
_WORDS = {"and", "or", "not", "in", "is", "if", "else", "True", "False", "None"}
_LITERALS: dict[str, Any] = {"true": True, "false": False, "null": None}


class ExpressionError(Exception):
    """An expression that can't be read, or that has no value; `hint` says what to do about it."""

    def __init__(self, problem: str, hint: str = "") -> None:
        self.problem, self.hint = problem, hint
        super().__init__(f"{problem}{'. ' + hint if hint else ''}")


class Absent(Exception):
    """A name without a value here: a parameter that does not exist in this setting."""


@dataclass(frozen=True, slots=True)
class Expression:
    """An expression that was read and checked: its text, its tree, the names in it."""

    text: str
    tree: ast.expr
    names: tuple[str, ...]

    def value(self, lookup: Callable[[str], Any]) -> Any:
        """Return its value.

        Args:
            lookup: gives a name's value, or raises `Absent`, which passes through.

        Raises:
            ExpressionError: a division by zero, a number past all bounds, text where a number belongs.
        """
        return _evaluate(self.tree, lookup)


@lru_cache(maxsize=4096)
def parse(text: str) -> Expression:
    """Read an expression.

    Raises:
        ExpressionError: it is none, or holds something that is not let through.
    """
    if len(text) > LONGEST:
        raise ExpressionError(f"an expression of {len(text):,} characters is too long")
    names: list[str] = []

    def placeholder(match: re.Match[str]) -> str:
        if match.lastgroup != "name" or match[0] in _WORDS:
            return match[0]
        names.append(match[0])
        return f"_{len(names) - 1}"

    # A path may hold Python's keywords and plain numbers (loss.lambda, layers.0.width), so names are hidden.
    hidden = _TOKENS.sub(placeholder, text.replace("\n", " ").replace("\r", " ").strip())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(hidden, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ExpressionError(f"'{' '.join(text.split())}' is no expression", _slip(text)) from None
    _check_depth(tree)
    return from_tree(_Restore(names).visit(tree))


def as_text(declared: Any) -> str:
    """Return an expression as a sweep file may hold it, a number among them, as text.

    Raises:
        ExpressionError: there is nothing, or a list or a mapping.
    """
    if isinstance(declared, bool):
        return str(declared)
    if not isinstance(declared, str | int | float) or declared == "":
        given = "nothing" if declared is None or declared == "" else f"{declared!r}"
        raise ExpressionError(f"{given} where an expression belongs", "Write base_lr * batch_size / 256")
    return str(declared)


def from_tree(tree: ast.expr) -> Expression:
    """Return the expression of a tree, whose names are dotted paths.

    Raises:
        ExpressionError: something in it is not let through.
    """
    for node, _ in _check_depth(tree):
        _check_node(node)
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    names = [node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and id(node) not in called]
    return Expression(ast.unparse(tree), tree, tuple(dict.fromkeys(names)))


def literal(value: Any) -> ast.expr:
    """Return a value as a part of an expression."""
    if isinstance(value, int | float) and not isinstance(value, bool) and value < 0:
        return ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=-value))
    return ast.Constant(value=value)


def replaced(expression: Expression, parts: Mapping[str, ast.expr]) -> Expression:
    """Return an expression with other expressions in place of names.

    Raises:
        ExpressionError: it becomes too deep.
    """
    return from_tree(_Replace(parts).visit(copy.deepcopy(expression.tree))) if parts else expression


def with_text(expression: Expression, values: Callable[[str], tuple[Any, ...] | None]) -> Expression:
    """Return an expression with the bare words of its comparisons as text: `optimizer == sgd`.

    Args:
        expression: as it was written.
        values: gives the values that a name can take, None for what is no name.

    Raises:
        ExpressionError: a bare word beside a name that never takes that value.
    """
    words: dict[str, ast.expr] = {}
    for node in ast.walk(expression.tree):
        if isinstance(node, ast.Compare):
            for one, other in _compared(node):
                if values(other) is None and (known := values(one)) is not None:
                    if other not in known:
                        texts = [value for value in known if isinstance(value, str)]
                        hint = nearest(other, texts) if texts else "Text is written in quotes"
                        raise ExpressionError(f"{one} is never '{other}'", hint)
                    words[other] = ast.Constant(value=other)
    return replaced(expression, words)


def _compared(node: ast.Compare) -> Iterator[tuple[str, str]]:
    """List the pairs of names that are compared for being the same, either way round."""
    sides = [node.left, *node.comparators]
    for left, operation, right in zip(sides, node.ops, sides[1:], strict=False):
        if not isinstance(operation, ast.Eq | ast.NotEq | ast.In | ast.NotIn):
            continue
        others = right.elts if isinstance(right, ast.Tuple | ast.List | ast.Set) else [right]
        for other in others:
            if isinstance(left, ast.Name) and isinstance(other, ast.Name):
                yield left.id, other.id
                yield other.id, left.id


class _Restore(ast.NodeTransformer):
    """Puts the names back that were hidden from Python's parser."""

    def __init__(self, names: list[str]) -> None:
        self.names = names

    def visit_Name(self, node: ast.Name) -> ast.expr:
        name = self.names[int(node.id[1:])]
        return ast.Constant(value=_LITERALS[name]) if name in _LITERALS else ast.Name(id=name)

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        node.attr = self.names[int(node.attr[1:])]  # for the message that refuses it
        return self.generic_visit(node)


class _Replace(ast.NodeTransformer):
    """Puts other expressions in place of names."""

    def __init__(self, parts: Mapping[str, ast.expr]) -> None:
        self.parts = parts

    def visit_Call(self, node: ast.Call) -> ast.expr:
        return ast.Call(func=node.func, args=[self.visit(argument) for argument in node.args], keywords=[])

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return self.parts.get(node.id, node)


def _slip(text: str) -> str:
    """Guess what somebody had in mind whose text Python does not read."""
    if "&&" in text or "||" in text or re.search(r"!(?!=)", text):
        return "Write and, or, not"
    if re.search(r"(?<![=<>!])=(?!=)", text):
        return "Compare with =="
    return "Write it as in Python: base_lr * batch_size / 256, or optimizer == sgd and model.depth > 1"


def _check_depth(tree: ast.expr) -> list[tuple[ast.AST, int]]:
    """List all nodes with their depth; without recursion, which a hostile text would exhaust."""
    nodes: list[tuple[ast.AST, int]] = [(tree, 0)]
    for node, depth in nodes:
        if depth > DEEPEST:
            raise ExpressionError("an expression that is nested too deeply")
        nodes += [(child, depth + 1) for child in ast.iter_child_nodes(node)]
    return nodes


def _check_node(node: ast.AST) -> None:
    if isinstance(node, ast.Constant):
        if node.value is not None and type(node.value) not in (int, float, str, bool):
            raise ExpressionError(f"{node.value!r} is neither a number nor text, true, false or null")
        if isinstance(node.value, float) and not math.isfinite(node.value):
            raise ExpressionError("a number past all bounds")
    elif isinstance(node, ast.Call):
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        if name not in FUNCTIONS or node.keywords or any(isinstance(a, ast.Starred) for a in node.args):
            shown = ast.unparse(node.func)
            raise ExpressionError(f"there is no function '{shown}'", nearest(shown, FUNCTIONS))
    elif isinstance(node, ast.Is | ast.IsNot):
        raise ExpressionError("'is' compares nothing here", "Compare with ==")
    elif not isinstance(node, _ALLOWED):
        raise ExpressionError(
            f"'{_written(node)}' is not allowed here",
            "There are numbers, text, names, arithmetic, comparisons, and, or, not, in, if else, "
            + ", ".join(FUNCTIONS),
        )


def _written(node: ast.AST) -> str:
    return ast.unparse(node) if isinstance(node, ast.expr) else type(node).__name__


def _evaluate(node: ast.AST, lookup: Callable[[str], Any]) -> Any:
    match node:
        case ast.Constant(value=value):
            return value
        case ast.Name(id=name):
            return lookup(name)
        case ast.Tuple(elts=items) | ast.List(elts=items) | ast.Set(elts=items):
            return tuple(_evaluate(item, lookup) for item in items)
        case ast.IfExp(test=test, body=body, orelse=other):
            return _evaluate(body if _evaluate(test, lookup) else other, lookup)
        case ast.BoolOp(op=operation, values=parts):
            wanted = isinstance(operation, ast.Or)
            return next((wanted for part in parts if bool(_evaluate(part, lookup)) is wanted), not wanted)
        case ast.UnaryOp(op=ast.Not(), operand=part):
            return not _evaluate(part, lookup)
        case ast.UnaryOp(op=operation, operand=part):
            return _computed(_UNARY[type(operation)], [_evaluate(part, lookup)])
        case ast.BinOp(left=left, op=operation, right=right):
            return _computed(_BINARY[type(operation)], [_evaluate(left, lookup), _evaluate(right, lookup)])
        case ast.Call(func=ast.Name(id=name), args=arguments):
            return _computed(FUNCTIONS[name], [_evaluate(argument, lookup) for argument in arguments])
        case ast.Compare():
            return _chain(node, lookup)
    raise AssertionError(f"{type(node).__name__} was let through")


def _chain(node: ast.Compare, lookup: Callable[[str], Any]) -> bool:
    """Compare as Python does: `1 < x < 3` looks at x once, and at nothing more after the first False."""
    left = _evaluate(node.left, lookup)
    for operation, comparator in zip(node.ops, node.comparators, strict=True):
        right = _evaluate(comparator, lookup)
        if not _compare(operation, left, right):
            return False
        left = right
    return True


def _compare(operation: ast.cmpop, left: Any, right: Any) -> bool:
    if isinstance(operation, ast.In | ast.NotIn):
        if not isinstance(right, list | tuple):
            raise ExpressionError("'in' asks for a list", "Write x in (a, b)")
        return (left in right) == isinstance(operation, ast.In)
    try:
        return bool(_COMPARE[type(operation)](left, right))
    except TypeError:
        raise ExpressionError(f"{_shown(left)} and {_shown(right)} can't be compared by size") from None


def _computed(function: Callable[..., Any], values: list[Any]) -> Any:
    """Compute with numbers; whatever goes wrong is said in words."""
    for value in values:
        if not isinstance(value, int | float):
            raise ExpressionError(f"{_shown(value)} is no number")
    try:
        result = function(*values)
        # Of whole numbers too: beyond the largest float they would only eat memory.
        finite = not isinstance(result, complex) and math.isfinite(result)
    except ZeroDivisionError:
        raise ExpressionError("a division by zero") from None
    except OverflowError:
        finite = False
    except (ValueError, TypeError) as error:
        numbers = ", ".join(map(_shown, values))
        raise ExpressionError(f"there is no value for {numbers} ({error})") from None
    if not finite:
        raise ExpressionError("a number past all bounds, or none")
    return result


def _shown(value: Any) -> str:
    return repr(value) if isinstance(value, str) else f"{value:g}" if isinstance(value, float) else str(value)


def _power(base: float, exponent: float) -> Any:
    whole = isinstance(base, int) and isinstance(exponent, int) and abs(base) > 1
    # Python would begin to write down 9 ** 9 ** 9 in full.
    if whole and exponent * math.log2(abs(base)) > 1024:
        raise OverflowError
    return base**exponent


def _round(number: float, digits: int = 0) -> Any:
    # Without digits, and for whole numbers, a whole number; many digits of one would never be done.
    if abs(digits) > 308:
        raise OverflowError
    return round(number, digits) if digits else round(number)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "abs": abs, "ceil": math.ceil, "exp": math.exp, "floor": math.floor, "log": math.log,
    "log10": math.log10, "log2": math.log2, "max": max, "min": min, "round": _round, "sqrt": math.sqrt,
}  # fmt: skip
_UNARY: dict[type, Callable[..., Any]] = {ast.USub: operator.neg, ast.UAdd: operator.pos}
_BINARY: dict[type, Callable[..., Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod, ast.Pow: _power,
}  # fmt: skip
_COMPARE: dict[type, Callable[..., Any]] = {
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le,
    ast.Gt: operator.gt, ast.GtE: operator.ge,
}  # fmt: skip
_ALLOWED = (
    ast.Name, ast.Load, ast.Tuple, ast.List, ast.Set, ast.IfExp, ast.BoolOp, ast.And, ast.Or, ast.UnaryOp,
    ast.Not, ast.BinOp, ast.Compare, ast.In, ast.NotIn, *_UNARY, *_BINARY, *_COMPARE,
)  # fmt: skip
