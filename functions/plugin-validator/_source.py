"""From the bytes of one Python file to its syntax tree, without running it and without dying of hostile
input.

The text that is scanned has to be the text that Python would run later. So a file is read as UTF-8 (with or
without a byte order mark) and one that declares another encoding is refused: under ``rot13`` or ``utf-7`` the
two would differ.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
import warnings
from dataclasses import dataclass

from _findings import Findings

MANIFEST_BYTES_MAX = 256 * 1024
SOURCE_BYTES_MAX = 512 * 1024
"""A syntax tree takes about a hundred times the room of its source; above this, one file would fill the
function."""

_LONG_LINE = 10_000
_ENCODINGS = {"utf-8", "utf-8-sig", "ascii", "us-ascii"}


@dataclass(frozen=True)
class Source:
    """One parsed file: its path in the plugin, its lines (for columns in characters) and its tree."""

    path: str
    lines: list[str]
    tree: ast.Module

    def at(self, node: ast.AST) -> list:
        """The location of a node: path, line, column; both from 1, the column in characters."""
        line = getattr(node, "lineno", 1)
        offset_bytes = getattr(node, "col_offset", 0)
        text = self.lines[line - 1] if 0 < line <= len(self.lines) else ""
        if len(text) > _LONG_LINE:
            # Counting characters in a huge line for each of its findings would take longer than the scan.
            return [self.path, line, offset_bytes + 1]
        column = len(text.encode("utf-8")[:offset_bytes].decode("utf-8", "ignore")) + 1
        return [self.path, line, column]


def parse(path: str, content: bytes, findings: Findings, bytes_max: int = SOURCE_BYTES_MAX) -> Source | None:
    """Parses one file. On a fault it adds an error and returns None.

    Never raises for any content: too large, NUL, other encodings, syntax errors and trees too deep for the
    parser each have an error of their own.
    """
    start = [path, 1, 1]
    if len(content) > bytes_max:
        findings.error(
            "source_too_large",
            start,
            f"{path} has {len(content)} bytes; at most {bytes_max} are read",
            "move data and word lists into files of their own and load them by path",
        )
        return None
    nul = content.find(b"\0")
    if nul >= 0:
        line = content.count(b"\n", 0, nul) + 1
        findings.error(
            "nul_in_source",
            [path, line, 1],
            f"{path} contains a NUL byte in line {line}",
            "save the file as plain UTF-8 text",
        )
        return None
    text = _decode(path, content, findings)
    if text is None:
        return None
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    try:
        with warnings.catch_warnings():
            # A doubtful escape such as "\d" makes the parser warn; that is the author's style, not our
            # business.
            warnings.simplefilter("ignore")
            tree = ast.parse(text, filename=path)
    except SyntaxError as fault:
        findings.error(
            "syntax_error",
            [path, max(1, fault.lineno or 1), max(1, fault.offset or 1)],
            f"{path} is not valid Python {version}: {fault.msg}",
            f"mend the syntax; the plugin runs on Python {version}",
        )
        return None
    except (RecursionError, MemoryError):
        findings.error(
            "source_too_deep",
            start,
            f"{path} nests expressions too deeply to be read",
            "split the long expression over several statements",
        )
        return None
    except ValueError as fault:
        findings.error(
            "syntax_error",
            start,
            f"{path} is not valid Python {version}: {fault}",
            "save the file as plain UTF-8 text",
        )
        return None
    return Source(path, re.split("\r\n|\r|\n", text), tree)


def _decode(path: str, content: bytes, findings: Findings) -> str | None:
    start = [path, 1, 1]
    fix = "save the file as UTF-8 and remove the coding line"
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(content).readline)
    except SyntaxError as fault:
        findings.error("unsupported_encoding", start, f"{path}: {fault.msg}", fix)
        return None
    if encoding.lower() not in _ENCODINGS:
        findings.error("unsupported_encoding", start, f"{path} declares the encoding {encoding}", fix)
        return None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as fault:
        line = content.count(b"\n", 0, fault.start) + 1
        findings.error("unsupported_encoding", [path, line, 1], f"{path} is not UTF-8 (line {line})", fix)
        return None
