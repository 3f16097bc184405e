"""Secrets of one call: a plugin gets them by name, and nothing that is said about the call shows their values."""

from __future__ import annotations

import base64
import json
import re
from typing import Any, Callable
from urllib.parse import quote

NAME = re.compile(r"[A-Z][A-Z0-9_]{0,63}")
SECRETS_MAX = 50
VALUE_BYTES_MAX = 64 * 1024
_TAIL_CHARS_MIN = 4


class Mask:
    """Replaces the values of secrets in a text, also as they look in ``repr``, JSON, addresses and base64."""

    def __init__(self, secrets: dict[str, str]) -> None:
        self._values = [value for value in secrets.values() if value]
        self._names: dict[str, str] = {}
        for name, value in secrets.items():
            for form in _forms(value):
                self._names.setdefault(form, name)
        forms = sorted(self._names, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, forms))) if forms else None

    def __call__(self, text: str) -> str:
        """The text with ``[secret NAME]`` for each value."""
        if self._pattern is None:
            return text
        return self._pattern.sub(lambda found: f"[secret {self._names[found.group()]}]", text)

    def at_cut(self, text: str) -> str:
        """As above for a text that was cut off: what its end shows of a value goes too."""
        text = self(text)
        for value in self._values:
            for chars in range(min(len(value) - 1, len(text)), _TAIL_CHARS_MIN - 1, -1):
                if text.endswith(value[:chars]):
                    return text[:-chars]
        return text

    def everywhere(self, value: Any) -> Any:
        """Plain data with every text in it masked."""
        if self._pattern is None:
            return value
        if isinstance(value, str):
            return self(value)
        if isinstance(value, list):
            return [self.everywhere(part) for part in value]
        if isinstance(value, dict):
            return {key: self.everywhere(part) for key, part in value.items()}
        return value


class Value(str):
    """A secret's value: a string that may be awaited, as plugins of the hosted product do."""

    def __await__(self):
        return str(self)
        yield


class Names(list):
    """A list that may be awaited."""

    def __await__(self):
        return list(self)
        yield


class SecretNotGiven(KeyError):
    """The call did not bring this secret."""

    def __str__(self) -> str:
        return str(self.args[0])


class Secrets:
    """What a plugin sees as ``container.secrets``. It holds values during a call and is empty between calls."""

    def __init__(self) -> None:
        self._get: Callable[[str], str | None] = _nothing
        self._names: tuple[str, ...] = ()

    def open(self, secrets: dict[str, str]) -> None:
        """Begins a call."""
        self._get, self._names = secrets.get, tuple(sorted(secrets))

    def close(self) -> None:
        """Ends a call."""
        self._get, self._names = _nothing, ()

    def get(self, name: str) -> Value:
        """The value, with or without ``await``. Raises SecretNotGiven with what to do."""
        value = self._get(name)
        if value is None:
            given = ", ".join(self._names) or "none"
            raise SecretNotGiven(
                f'secret "{name}" was not given to this call (given: {given}); name it in `secrets` of manifest.py, '
                "store it in the namespace, and read it while the plugin is called, not when it is imported"
            )
        return Value(value)

    def list(self) -> Names:
        """The names of what can be had, with or without ``await``."""
        return Names(self._names)

    def __repr__(self) -> str:
        return f"<secrets {', '.join(self._names) or 'none'}>"


def read_secrets(value: object, bad: Callable[[str], None]) -> dict[str, str]:
    """The secrets of an event, checked; ``bad`` raises with a message, which never shows a value."""
    if value is None:
        return {}
    if not isinstance(value, dict) or len(value) > SECRETS_MAX:
        bad(f"secrets must be an object of at most {SECRETS_MAX} names and values")
    for name, secret in value.items():
        if not isinstance(name, str) or not NAME.fullmatch(name):
            bad(f"secrets: {str(name)[:80]!r} is no name; letters A-Z, digits and _, beginning with a letter")
        if not isinstance(secret, str) or len(secret.encode("utf-8", "replace")) > VALUE_BYTES_MAX:
            bad(f"secrets.{name} must be a text of at most {VALUE_BYTES_MAX} bytes")
    return dict(value)


def _forms(value: str) -> set[str]:
    data = value.encode("utf-8", "replace")
    forms = {
        value,
        repr(value)[1:-1],
        json.dumps(value)[1:-1],
        quote(value, safe=""),
        base64.b64encode(data).decode(),
        base64.urlsafe_b64encode(data).decode().rstrip("="),
    }
    # Of a key in several lines, each line is enough to be careful with.
    forms |= {line for line in value.splitlines() if len(line) >= 16}
    return {form for form in forms if form}


def _nothing(_: str) -> None:
    return None
