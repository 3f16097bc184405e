"""HTTP for the runner: gets archives, rows and blobs from presigned addresses, and puts results there.

Addresses come from the warehouse, not from plugins. Still: http and https only, no redirects, no proxies from
the environment, sizes counted as they come, and every wait inside the call's deadline.
"""

from __future__ import annotations

import http.client
import time
import urllib.error
import urllib.request
from typing import BinaryIO
from urllib.parse import urlsplit

TRIES = 3
SOCKET_SECONDS = 15.0
_PAUSE_SECONDS = 0.2
_READ_BYTES = 256 * 1024


class FetchError(Exception):
    """The address did not give what was wanted."""


class TooLarge(FetchError):
    """There is more than was asked for."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: object, **kwargs: object) -> None:
        return None


_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect())


def get(url: str, into: BinaryIO, bytes_max: int, deadline: float) -> int:
    """Downloads to an open file; returns the number of bytes. Raises TooLarge or FetchError (after three
    tries)."""

    def once() -> int:
        into.seek(0)
        into.truncate()
        with _opener.open(_request(url), timeout=_timeout(deadline)) as answer:
            count = 0
            while part := answer.read(_READ_BYTES):
                count += len(part)
                if count > bytes_max:
                    raise TooLarge(f"more than {bytes_max} bytes")
                into.write(part)
                _timeout(deadline)
            length = answer.headers.get("content-length")
            if length is not None and length.isdigit() and int(length) != count:
                raise FetchError(f"the answer ended after {count} of {length} bytes")
            return count

    return _tried(once, deadline)


def put(url: str, body: bytes, deadline: float) -> None:
    """Uploads a JSON document. Raises FetchError (after three tries)."""

    def once() -> None:
        request = _request(url, body, "PUT")
        request.add_header("content-type", "application/json")
        with _opener.open(request, timeout=_timeout(deadline)):
            return

    _tried(once, deadline)


def _request(url: str, body: bytes | None = None, method: str = "GET") -> urllib.request.Request:
    if urlsplit(url).scheme not in ("http", "https"):
        raise FetchError("the address is neither http nor https")
    return urllib.request.Request(url, data=body, method=method)


def _timeout(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise FetchError("no time is left")
    return min(left, SOCKET_SECONDS)


def _tried(action, deadline: float):
    for attempt in range(1, TRIES + 1):
        try:
            return action()
        except urllib.error.HTTPError as fault:
            fault.close()
            # 4xx: the address is wrong or has expired; it will not get better.
            error = FetchError(f"status {fault.code}")
            if fault.code < 500 and fault.code != 429:
                raise error from None
        except TooLarge:
            raise
        except (FetchError, OSError, http.client.HTTPException) as fault:
            error = (
                fault
                if isinstance(fault, FetchError)
                else FetchError(type(fault).__name__ + ": " + str(fault)[:200])
            )
        if attempt == TRIES or deadline - time.monotonic() < 2 * _PAUSE_SECONDS:
            raise error from None
        time.sleep(_PAUSE_SECONDS * attempt)
    raise AssertionError("unreachable")
