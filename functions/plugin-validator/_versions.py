"""Versions and version specifiers as PEP 440 defines them: which version a requirement is content with.

The validator has no packages but its own files, and of a version only one question is asked: does this one,
which is there, fit what is wanted? A test compares every answer with the reference implementation.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

VERSION_CHARS_MAX = 100

_PATTERN = re.compile(
    r"""v?(?:(?P<epoch>[0-9]+)!)?(?P<release>[0-9]+(?:\.[0-9]+)*)
    (?:[-_.]?(?P<pre>alpha|a|beta|b|preview|pre|c|rc)(?:[-_.]?(?P<pre_number>[0-9]+))?)?
    (?P<post>-(?P<post_bare>[0-9]+)|[-_.]?(?:post|rev|r)(?:[-_.]?(?P<post_number>[0-9]+))?)?
    (?P<dev>[-_.]?dev(?:[-_.]?(?P<dev_number>[0-9]+))?)?
    (?:\+(?P<local>[a-z0-9]+(?:[-_.][a-z0-9]+)*))?""",
    re.VERBOSE | re.IGNORECASE,
)
_PRE_LETTERS = {"alpha": "a", "beta": "b", "c": "rc", "pre": "rc", "preview": "rc"}
_CLAUSE = re.compile(r"\s*(===|~=|==|!=|<=|>=|<|>)\s*([^\s,;()]+)\s*")

_LOW: tuple = (-1,)
_HIGH: tuple = (1,)


@dataclass(frozen=True)
class Version:
    """A version, and the tuple by which it is ordered. Parts that are absent are None."""

    epoch: int
    release: tuple[int, ...]
    pre: tuple[str, int] | None
    post: int | None
    dev: int | None
    local: tuple[str, ...] | None

    @property
    def key(self) -> tuple:
        """Orders versions: a development release before a pre-release before the release before a later
        one."""
        last = len(self.release)
        while last > 1 and self.release[last - 1] == 0:
            last -= 1
        if self.pre is None and self.post is None and self.dev is not None:
            pre = _LOW
        else:
            pre = _HIGH if self.pre is None else (0, *self.pre)
        post = _LOW if self.post is None else (0, self.post)
        dev = _HIGH if self.dev is None else (0, self.dev)
        if self.local is None:
            local: tuple = (_LOW,)
        else:
            local = tuple((1, int(part), "") if part.isdigit() else (0, 0, part) for part in self.local)
        return (self.epoch, self.release[:last], pre, post, dev, local)

    @property
    def public(self) -> "Version":
        """Without the local part (``+cpu``)."""
        return replace(self, local=None)

    @property
    def family(self) -> tuple:
        """Equal for a version, its local versions and its later releases."""
        return replace(self, post=None, dev=None, local=None).key

    @property
    def is_early(self) -> bool:
        """Whether it is a pre-release or a development release."""
        return self.pre is not None or self.dev is not None


def parse_version(text: str) -> Version | None:
    """Reads a version; None for what is none."""
    if len(text) > VERSION_CHARS_MAX:
        return None
    match = _PATTERN.fullmatch(text.strip())
    if match is None:
        return None
    part = match.groupdict()
    pre = part["pre"]
    letters = None if pre is None else _PRE_LETTERS.get(pre.lower(), pre.lower())
    return Version(
        int(part["epoch"] or 0),
        tuple(int(number) for number in part["release"].split(".")),
        None if letters is None else (letters, int(part["pre_number"] or 0)),
        None if part["post"] is None else int(part["post_bare"] or part["post_number"] or 0),
        None if part["dev"] is None else int(part["dev_number"] or 0),
        None if part["local"] is None else tuple(re.split(r"[-_.]", part["local"].lower())),
    )


@dataclass(frozen=True)
class Specifier:
    """One clause such as ``>=2.0`` or ``==2.*``."""

    operator: str
    text: str
    version: Version | None
    """None for ``===``, which compares texts."""
    any_after: bool
    """Whether ``.*`` stood at the end."""

    def fits(self, version: Version, written: str) -> bool:
        """Whether a version, and the text it was written as, satisfies the clause."""
        wanted = self.version
        if wanted is None:
            return written.strip().lower() == self.text.lower()
        if self.operator in ("==", "!="):
            return self._equal(version, wanted) is (self.operator == "==")
        if self.operator == "~=":
            return version.public.key >= wanted.key and _begins(version, wanted, len(wanted.release) - 1)
        if self.operator == ">=":
            return version.public.key >= wanted.key
        if self.operator == "<=":
            return version.public.key <= wanted.key
        if self.operator == "<":
            # Below 2.0 is not its pre-release 2.0rc1 either.
            return version.key < (wanted if wanted.is_early else replace(wanted, dev=0, local=None)).key
        # Above 2.0 is neither 2.0+local nor its later release 2.0.post1.
        if wanted.dev is not None:
            return version.key >= replace(wanted, dev=wanted.dev + 1).key
        if wanted.post is not None:
            return version.key >= replace(wanted, post=wanted.post + 1, dev=0).key
        return version.key > wanted.key and version.family != wanted.family

    def _equal(self, version: Version, wanted: Version) -> bool:
        if self.any_after:
            return _begins(version, wanted, len(wanted.release))
        return (version if wanted.local is not None else version.public).key == wanted.key


def _begins(version: Version, wanted: Version, count: int) -> bool:
    """Whether the first numbers are equal; what a version does not write is zero."""
    padded = version.release + (0,) * count
    return version.epoch == wanted.epoch and padded[:count] == wanted.release[:count]


def parse_specifiers(text: str) -> list[Specifier] | None:
    """Reads clauses that are separated by commas; None if one of them is wrong. No text gives no clause."""
    if not text.strip():
        return []
    found = []
    for clause in text.split(","):
        match = _CLAUSE.fullmatch(clause)
        specifier = None if match is None else _specifier(match.group(1), match.group(2))
        if specifier is None:
            return None
        found.append(specifier)
    return found


def _specifier(operator: str, text: str) -> Specifier | None:
    if operator == "===":
        return Specifier(operator, text, None, False)
    any_after = text.endswith(".*") and operator in ("==", "!=")
    version = parse_version(text[:-2] if any_after else text)
    if version is None:
        return None
    if any_after and (version.dev is not None or version.local is not None):
        return None
    if any_after and (version.pre is not None or version.post is not None):
        return None
    if version.local is not None and operator not in ("==", "!="):
        return None
    if operator == "~=" and len(version.release) < 2:
        return None
    return Specifier(operator, text, version, any_after)


def fits(specifiers: list[Specifier], written: str) -> bool | None:
    """Whether a version fits every clause; None if it is no version and a clause would have to compare it."""
    version = parse_version(written)
    if version is None:
        return None if any(s.version is not None for s in specifiers) else _same_text(specifiers, written)
    return all(specifier.fits(version, written) for specifier in specifiers)


def _same_text(specifiers: list[Specifier], written: str) -> bool:
    return all(written.strip().lower() == specifier.text.lower() for specifier in specifiers)
