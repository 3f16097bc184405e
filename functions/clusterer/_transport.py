"""Reads the vectors and texts of a run from presigned addresses, and writes its result to one.

The function has no storage rights of its own: an address is all it gets. Addresses carry a signature, so no message
repeats more of them than the path.
"""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from typing import Any, BinaryIO, TypeVar

import numpy as np

from _errors import InputMismatch, InputTooLarge, InvalidEvent, TransferFailed

VECTOR_BYTES_MAX = 3_000_000_000
TEXT_CHARS_KEPT = 2_000
_LINE_BYTES_MAX = 4_000_000
_JSON_BYTES_MAX = 200_000_000
_READ_BYTES = 1 << 20
_TIMEOUT_SECONDS = 60
_TRIES = 3
_PAUSE_SECONDS = 0.2

_Answer = TypeVar('_Answer')


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A presigned address answers itself. A redirect would send the data to a place that nobody signed for."""

    def redirect_request(self, *_args: object, **_kwargs: object) -> None:
        return None


_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirects())


def read_vectors(url: str, rows: int, dims: int) -> np.ndarray:
    """The matrix stored as raw little-endian float32, row after row. Returns (rows, dims) float32.

    Raises InputTooLarge before reading when it cannot fit, InputMismatch when the length is not rows x dims x 4 bytes.
    """
    expected = rows * dims * 4
    if expected > VECTOR_BYTES_MAX:
        raise InputTooLarge(
            f'{rows} vectors of {dims} dimensions take {expected} bytes; one run holds {VECTOR_BYTES_MAX}. '
            'Narrow the input with a filter or a sample size.'
        )

    def read(body: BinaryIO) -> np.ndarray:
        buffer = bytearray(expected)
        view = memoryview(buffer)
        filled = 0
        while filled < expected:
            count = body.readinto(view[filled : filled + _READ_BYTES])
            if not count:
                break
            filled += count
        surplus = len(body.read(1)) if filled == expected else 0
        if filled != expected or surplus:
            got = f'{filled}' if not surplus else f'more than {expected}'
            raise InputMismatch(f'vectors: expected {rows} x {dims} float32 = {expected} bytes, got {got}')
        return np.frombuffer(buffer, dtype='<f4').reshape(rows, dims).astype(np.float32, copy=False)

    return _get(url, read)


def read_texts(url: str, rows: int) -> tuple[list[str], list[str]]:
    """The documents' ids and texts, in the order of the vectors, from JSON Lines {"document_id", "text"}.

    Only the start of each text is kept: labels need no more, and a hundred thousand long texts would not fit.
    """

    def read(body: BinaryIO) -> tuple[list[str], list[str]]:
        ids: list[str] = []
        texts: list[str] = []
        line_number = 0
        while line := body.readline(_LINE_BYTES_MAX + 1):
            line_number += 1
            if len(line) > _LINE_BYTES_MAX:
                raise InputTooLarge(f'texts: line {line_number} is longer than {_LINE_BYTES_MAX} bytes')
            if not line.strip():
                continue
            try:
                entry = json.loads(line)
            except (ValueError, RecursionError):
                raise InputMismatch(f'texts: line {line_number} is not JSON') from None
            if not isinstance(entry, dict) or not isinstance(entry.get('document_id'), str):
                raise InputMismatch(f'texts: line {line_number} needs a "document_id" string')
            text = entry.get('text')
            ids.append(entry['document_id'])
            texts.append(text[:TEXT_CHARS_KEPT] if isinstance(text, str) else '')
            if len(ids) > rows:
                break
        if len(ids) != rows:
            got = str(len(ids)) if len(ids) < rows else f'more than {rows}'
            raise InputMismatch(f'texts: expected {rows} lines, one for each vector, got {got}')
        return ids, texts

    return _get(url, read)


def read_json(url: str) -> Any:
    """A JSON document of at most 200 MB: the result of an earlier run."""

    def read(body: BinaryIO) -> Any:
        data = body.read(_JSON_BYTES_MAX + 1)
        if len(data) > _JSON_BYTES_MAX:
            raise InputTooLarge(f'the earlier result is longer than {_JSON_BYTES_MAX} bytes')
        try:
            return json.loads(data)
        except (ValueError, RecursionError):
            raise InputMismatch('the earlier result is not JSON') from None

    return _get(url, read)


def write_json(url: str, value: object) -> int:
    """PUT the value as JSON. Returns the bytes written."""
    data = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(',', ':')).encode('utf-8', 'replace')
    request = urllib.request.Request(
        _checked(url), data=data, method='PUT', headers={'Content-Type': 'application/json'}
    )
    _attempt(request, lambda body: body.read())
    return len(data)


def _get(url: str, read: Callable[[BinaryIO], _Answer]) -> _Answer:
    return _attempt(urllib.request.Request(_checked(url)), read)


def _checked(url: str) -> str:
    if urllib.parse.urlsplit(url).scheme not in ('https', 'http'):
        raise InvalidEvent(f'addresses must begin with https:// or http://, got {url.split(":", 1)[0][:20]!r}')
    return url


def _attempt(request: urllib.request.Request, read: Callable[[BinaryIO], _Answer]) -> _Answer:
    """One request, again after a server error or a broken connection, never after a refusal."""
    reason = ''
    for attempt in range(_TRIES):
        if attempt:
            time.sleep(_PAUSE_SECONDS * 2**attempt)
        try:
            with _opener.open(request, timeout=_TIMEOUT_SECONDS) as body:
                try:
                    return read(body)
                except InputMismatch:
                    # Too little may be the fault of a connection that broke: the stream ended before its stated length.
                    if not (body.isclosed() and body.length):
                        raise
                    reason = 'the connection broke'
        except urllib.error.HTTPError as error:
            error.close()
            reason = f'status {error.code}'
            if error.code < 500 and error.code != 429:
                break
        except (OSError, http.client.HTTPException) as error:
            reason = type(getattr(error, 'reason', error)).__name__
    parts = urllib.parse.urlsplit(request.full_url)
    raise TransferFailed(f'{request.get_method()} {parts.scheme}://{parts.netloc}{parts.path}: {reason}')
