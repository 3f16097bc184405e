"""Evaluates the literals of a manifest from its syntax tree: nothing of the manifest is ever executed.

``ast.literal_eval`` knows neither earlier names nor ``+``, and an error of it has no place. Here accepted are
constants, lists, tuples, dicts, unary minus, names assigned before, ``+`` of two strings, lists or integers,
adjacent strings and plain f-strings. Each value keeps the tree of places, so that a rule can point at
``features[0]["distance"]``.
"""

from __future__ import annotations

import ast
import math
import re
from dataclasses import dataclass, field
from typing import Any

DEPTH_MAX = 40
SIZE_MAX = 50_000
"""Nodes in one value. Names may be used again and again (``b = a + a; c = b + b``), so size is counted, not
source."""

WORK_MAX = 1_000_000
"""Nodes and sixteenths of characters looked at for a whole manifest: bounds the time, as SIZE_MAX bounds the
room."""

TEXT_CHARS_MAX = 256 * 1024
INTEGER_MAX = 2**53 - 1
"""Larger integers change on their way through JSON."""


_SURROGATE = re.compile("[\ud800-\udfff]")


class NotLiteral(Exception):
    """The expression is none of the accepted forms; ``node`` is the part that is not."""

    def __init__(self, node: ast.AST, kind: str, reason: str, fix: str) -> None:
        super().__init__(reason)
        self.node = node
        self.kind = kind
        self.reason = reason
        self.fix = fix


@dataclass(frozen=True)
class Literal:
    """A value, the node it was written at, and the literals of its parts.

    ``value`` consists of None, bool, int, float, str, list and dict with string keys; a tuple becomes a list.
    ``items`` holds the parts of a list; ``entries`` maps the keys of a dict to (literal, node of the key).
    """

    value: Any
    node: ast.AST
    size: int = 1
    items: list["Literal"] = field(default_factory=list)
    entries: dict[str, tuple["Literal", ast.AST]] = field(default_factory=dict)


class Evaluator:
    """Evaluates expressions one after the other; ``names`` holds the literals assigned so far."""

    def __init__(self) -> None:
        self.names: dict[str, Literal] = {}
        self._work = 0

    def evaluate(self, node: ast.AST, depth: int = 0) -> Literal:
        """Evaluates one expression. Raises NotLiteral."""
        if depth > DEPTH_MAX:
            raise NotLiteral(
                node, "too_large", f"nested more than {DEPTH_MAX} levels deep", "flatten the value"
            )
        if isinstance(node, ast.Constant):
            return self._counted(_constant(node))
        if isinstance(node, (ast.List, ast.Tuple)):
            return self._list([self.evaluate(item, depth + 1) for item in node.elts], node)
        if isinstance(node, ast.Dict):
            return self._dict(node, depth)
        if isinstance(node, ast.Name):
            return self._reference(node)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            operand = self.evaluate(node.operand, depth + 1)
            if type(operand.value) not in (int, float):
                raise NotLiteral(
                    node,
                    "not_a_literal",
                    "minus before something that is no number",
                    "write the number itself",
                )
            return Literal(-operand.value, node)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            return self._sum(node, depth)
        if isinstance(node, ast.JoinedStr):
            return self._joined(node, depth)
        raise NotLiteral(
            node,
            "not_a_literal",
            f"{_describe(node)} is not a literal",
            "write the value itself; the manifest is read, not run",
        )

    def _counted(self, literal: Literal) -> Literal:
        self._work += literal.size
        if literal.size > SIZE_MAX or self._work > WORK_MAX:
            raise NotLiteral(
                literal.node, "too_large", "the value is too large for a manifest", "make it smaller"
            )
        return literal

    def _reference(self, node: ast.Name) -> Literal:
        known = self.names.get(node.id)
        if known is None:
            raise NotLiteral(
                node,
                "not_a_literal",
                f'the name "{node.id}" has no literal value before this line',
                "write the value itself, or assign it above as a literal",
            )
        return self._counted(Literal(known.value, node, known.size, known.items, known.entries))

    def _list(self, items: list[Literal], node: ast.AST) -> Literal:
        return self._counted(
            Literal([i.value for i in items], node, 1 + sum(i.size for i in items), items=items)
        )

    def _dict(self, node: ast.Dict, depth: int) -> Literal:
        entries: dict[str, tuple[Literal, ast.AST]] = {}
        size = 1
        for key, value in zip(node.keys, node.values):
            if key is None:
                raise NotLiteral(value, "not_a_literal", "** inside a dict is not read", "write the keys out")
            name = self.evaluate(key, depth + 1)
            if not isinstance(name.value, str):
                raise NotLiteral(
                    key, "key_not_a_string", "a key of the dict is not a string", "use string keys"
                )
            if name.value in entries:
                raise NotLiteral(
                    key, "duplicate_key", f'the key "{name.value[:80]}" is written twice', "keep one of them"
                )
            literal = self.evaluate(value, depth + 1)
            entries[name.value] = (literal, key)
            size += literal.size + name.size
        values = {name: literal.value for name, (literal, _) in entries.items()}
        return self._counted(Literal(values, node, size, entries=entries))

    def _sum(self, node: ast.BinOp, depth: int) -> Literal:
        left, right = self.evaluate(node.left, depth + 1), self.evaluate(node.right, depth + 1)
        if type(left.value) is not type(right.value) or type(left.value) not in (str, list, int):
            raise NotLiteral(
                node,
                "not_a_literal",
                "+ joins two strings, two lists or two integers only",
                "write the result itself",
            )
        if isinstance(left.value, list):
            return self._list(left.items + right.items, node)
        if isinstance(left.value, str):
            return self._counted(_text(left.value + right.value, node))
        return _constant(ast.copy_location(ast.Constant(left.value + right.value), node))

    def _joined(self, node: ast.JoinedStr, depth: int) -> Literal:
        parts: list[str] = []
        for part in node.values:
            if isinstance(part, ast.Constant):
                parts.append(str(part.value))
                continue
            plain = (
                isinstance(part, ast.FormattedValue) and part.conversion == -1 and part.format_spec is None
            )
            inner = self.evaluate(part.value, depth + 1) if plain else None
            if inner is None or type(inner.value) not in (str, int):
                raise NotLiteral(
                    part,
                    "not_a_literal",
                    "an f-string may insert strings and integers only, without a format",
                    "write the text out",
                )
            parts.append(str(inner.value))
        return self._counted(_text("".join(parts), node))


def _constant(node: ast.Constant) -> Literal:
    value = node.value
    if value is None or isinstance(value, bool):
        return Literal(value, node)
    if isinstance(value, int):
        if abs(value) > INTEGER_MAX:
            raise NotLiteral(
                node, "number_out_of_range", "the integer is too large for JSON", f"use at most {INTEGER_MAX}"
            )
        return Literal(value, node)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise NotLiteral(node, "number_out_of_range", "the number is infinite", "use a finite number")
        return Literal(value, node)
    if isinstance(value, str):
        return _text(value, node)
    raise NotLiteral(
        node,
        "not_a_literal",
        f"{type(value).__name__} has no form in JSON",
        "use a string, a number, True, False or None",
    )


def _text(value: str, node: ast.AST) -> Literal:
    if _SURROGATE.search(value):
        raise NotLiteral(
            node, "bad_text", "the string contains a lone surrogate", "write the character itself"
        )
    if "\0" in value:
        raise NotLiteral(node, "bad_text", "the string contains NUL", "leave out \\0")
    if len(value) > TEXT_CHARS_MAX:
        raise NotLiteral(
            node, "too_large", f"the string is longer than {TEXT_CHARS_MAX} characters", "shorten it"
        )
    return Literal(value, node, 1 + len(value) // 16)


def _describe(node: ast.AST) -> str:
    if isinstance(node, ast.Call):
        return "a call"
    words = {
        ast.Attribute: "an attribute",
        ast.BinOp: "this operation",
        ast.ListComp: "a comprehension",
        ast.DictComp: "a comprehension",
        ast.Set: "a set",
        ast.Lambda: "a lambda",
        ast.Subscript: "a subscript",
        ast.IfExp: "a conditional",
    }
    return words.get(type(node), type(node).__name__)
