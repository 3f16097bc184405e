"""Requirements as PEP 508 writes them: ``soundfile[extra] >=0.13,<1 ; python_version >= "3.11"``.

Addresses, files and options of an installer are no requirements here: nothing is installed at run time.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from _target import Target
from _versions import Specifier, fits, parse_specifiers

REQUIREMENT_CHARS_MAX = 500
_MARKER_DEPTH_MAX = 20

_HEAD = re.compile(
    r"\s*([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)\s*(?:\[([A-Za-z0-9._,\s-]*)\])?\s*(.*)", re.DOTALL
)
_TOKEN = re.compile(
    r"""\s*(?:(?P<text>'[^'"]*'|"[^'"]*")|(?P<operator>===|~=|==|!=|<=|>=|<|>|not\s+in\b|in\b)"""
    r"""|(?P<word>and\b|or\b|\(|\))|(?P<name>[a-z_.]+))"""
)
_VERSIONS = ("python_version", "python_full_version", "implementation_version")


class BadRequirement(Exception):
    """The text is no requirement; the message says what is wrong with it."""


@dataclass(frozen=True)
class Requirement:
    """A package by its canonical name, the name as written, and the versions that will do."""

    name: str
    written: str
    specifiers: list[Specifier]
    versions: str
    """The clauses as written, without spaces: ``>=2,<3``."""
    applies: bool
    """False if its marker says that it is for other systems."""


def canonical(name: str) -> str:
    """The form of a package name in which ``Foo.Bar``, ``foo_bar`` and ``foo-bar`` are one."""
    return re.sub(r"[-_.]+", "-", name).lower()


def parse_requirement(text: str, target: Target) -> Requirement:
    """Reads one requirement. Raises BadRequirement."""
    if len(text) > REQUIREMENT_CHARS_MAX:
        raise BadRequirement(f"it has more than {REQUIREMENT_CHARS_MAX} characters")
    if re.search(r"\A\s*-|\A\s*[./~]|://|@", text):
        raise BadRequirement("it is an address, a path or an option, not a package name")
    match = _HEAD.fullmatch(text)
    if match is None:
        raise BadRequirement("it does not begin with a package name")
    rest, separator, marker = match.group(3).partition(";")
    rest = rest.strip()
    if rest.startswith("(") and rest.endswith(")"):
        rest = rest[1:-1]
    specifiers = parse_specifiers(rest)
    if specifiers is None:
        raise BadRequirement(f'"{rest.strip()}" is not a list of versions')
    applies = _Marker(marker, target).value() if separator else True
    written = match.group(1)
    return Requirement(canonical(written), written, specifiers, re.sub(r"\s+", "", rest), applies)


class _Marker:
    """Evaluates a marker by descent: ``or`` of ``and`` of comparisons and parentheses."""

    def __init__(self, text: str, target: Target) -> None:
        self.tokens = _tokens(text)
        self.target = target

    def value(self) -> bool:
        value = self._any(0)
        if self.tokens:
            raise BadRequirement(f'its marker does not end at "{self.tokens[0][1]}"')
        return value

    def _any(self, depth: int) -> bool:
        if depth > _MARKER_DEPTH_MAX:
            raise BadRequirement("its marker is nested too deeply")
        value = self._all(depth)
        while self._next("word", "or"):
            value = self._all(depth) or value
        return value

    def _all(self, depth: int) -> bool:
        value = self._one(depth)
        while self._next("word", "and"):
            value = self._one(depth) and value
        return value

    def _one(self, depth: int) -> bool:
        if self._next("word", "("):
            value = self._any(depth + 1)
            if not self._next("word", ")"):
                raise BadRequirement("its marker lacks a closing parenthesis")
            return value
        left, left_name = self._operand()
        if not self.tokens or self.tokens[0][0] != "operator":
            raise BadRequirement("its marker lacks a comparison")
        operator = re.sub(r"\s+", " ", self.tokens.pop(0)[1])
        right, right_name = self._operand()
        return _compare(left, operator, right, left_name or right_name)

    def _operand(self) -> tuple[str, str]:
        """The value of a text or a variable, and the name of the variable."""
        if not self.tokens or self.tokens[0][0] not in ("text", "name"):
            raise BadRequirement("its marker lacks a value")
        kind, text = self.tokens.pop(0)
        if kind == "text":
            return text[1:-1], ""
        known = self.target.marker_variables()
        if text not in known:
            raise BadRequirement(f'its marker names "{text}", which is no variable of markers')
        return known[text], text

    def _next(self, kind: str, text: str) -> bool:
        if self.tokens and self.tokens[0] == (kind, text):
            self.tokens.pop(0)
            return True
        return False


def _tokens(text: str) -> list[tuple[str, str]]:
    found = []
    at = 0
    while text[at:].strip():
        match = _TOKEN.match(text, at)
        if match is None:
            raise BadRequirement(f'its marker cannot be read at "{text[at:].strip()[:20]}"')
        at = match.end()
        found.append((match.lastgroup or "", match.group(match.lastgroup or 0)))
    return found


def _compare(left: str, operator: str, right: str, name: str) -> bool:
    if operator in ("in", "not in"):
        return (left in right) is (operator == "in")
    if name in _VERSIONS:
        clauses = parse_specifiers(operator + right)
        outcome = None if clauses is None else fits(clauses, left)
        if outcome is not None:
            return outcome
    outcomes = {
        "==": left == right,
        "===": left == right,
        "!=": left != right,
        "<": left < right,
        "<=": left <= right,
        ">": left > right,
        ">=": left >= right,
    }
    if operator not in outcomes:
        raise BadRequirement(f'its marker compares texts by "{operator}"')
    return outcomes[operator]
