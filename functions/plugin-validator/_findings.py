"""What the validator has to say about an archive: errors and warnings with a place, a message and a remedy.

Every finding is a dict of the shape that the API passes on in ``details.validation_errors``::

    {"type": "wrong_feature_key", "location": ["manifest.py", 12, 9], "message": "...", "fix": "..."}

``location`` is the path inside the plugin, the line and the column. Lines and columns count from 1, columns
in characters. A finding about a whole file has line and column 1.
"""

from __future__ import annotations

FINDINGS_MAX = 200
"""More findings than this help nobody, and an archive must not be able to make the answer too large to
send."""

TEXT_CHARS_MAX = 600


class Findings:
    """Collects errors and warnings in the order in which they were found."""

    def __init__(self) -> None:
        self.errors: list[dict] = []
        self.warnings: list[dict] = []
        self._left_out = 0

    def error(self, kind: str, location: list, message: str, fix: str) -> None:
        """Adds a fault that keeps the plugin from being accepted."""
        self._add(self.errors, kind, location, message, fix)

    def warn(self, kind: str, location: list, message: str, fix: str) -> None:
        """Adds a remark that does not keep the plugin from being accepted."""
        self._add(self.warnings, kind, location, message, fix)

    def close(self) -> None:
        """Says how many findings were left out, if any were."""
        if self._left_out:
            note = {
                "type": "more_findings",
                "location": ["manifest.py", 1, 1],
                "message": f"{self._left_out} further findings are not listed",
                "fix": "mend the listed ones and confirm again to see the rest",
            }
            (self.errors if self.errors else self.warnings).append(note)

    def _add(self, into: list[dict], kind: str, location: list, message: str, fix: str) -> None:
        if len(into) >= FINDINGS_MAX:
            self._left_out += 1
            return
        into.append(
            {"type": kind, "location": location, "message": printable(message), "fix": printable(fix)}
        )


def printable(text: str) -> str:
    """Cuts a text and replaces what cannot be sent as JSON in UTF-8 (lone surrogates, control characters)."""
    kept = "".join(c if c.isprintable() or c == " " else "?" for c in text[: TEXT_CHARS_MAX + 1])
    return kept if len(kept) <= TEXT_CHARS_MAX else kept[: TEXT_CHARS_MAX - 3] + "..."
