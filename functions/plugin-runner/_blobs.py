"""Gets the binary blobs of a call's rows before the plugin runs, so that it finds them as local files.

A plugin has no network and no rights; it gets the path in the column ``local_path``.
"""

from __future__ import annotations

import base64
import binascii
import mimetypes
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import _fetch

BLOB_BYTES_MAX = 50 * 1024 * 1024
ALL_BYTES_MAX = 256 * 1024 * 1024
"""The function's disk is 512 MB, and the plugins' archives lie on it as well."""

_AT_ONCE = 8


def fetch_all(rows: list[dict], folder: Path, deadline: float) -> list[tuple[int, str, str]]:
    """Downloads each row's ``blob_url``, or decodes its ``blob_base64``, and sets its ``local_path``; returns
    (row, code, message) of those that failed."""
    wanted = [row for row in rows if has_blob(row)]
    failures: list[tuple[int, str, str]] = []
    total = 0
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        results = pool.map(lambda row: _fetch_one(row, folder, deadline), wanted)
        for row, (size, code, message) in zip(wanted, results):
            if code is None and total + size > ALL_BYTES_MAX:
                code, message = (
                    "blob_too_large",
                    f"the blobs of the call have more than {ALL_BYTES_MAX} bytes together",
                )
            if code is not None:
                if row.get("local_path"):
                    os.unlink(row["local_path"])
                    row["local_path"] = None
                failures.append((row["row"], code, message))
            else:
                total += size
    return failures


def has_blob(row: dict) -> bool:
    """Whether the row comes with bytes of its own."""
    return bool(row.get("blob_url")) or row.get("blob_base64") is not None


def _fetch_one(row: dict, folder: Path, deadline: float) -> tuple[int, str | None, str]:
    extension = mimetypes.guess_extension(str(row.get("mime_type") or "")) or ""
    path = folder / f"{row['row']}{extension}"
    if row.get("blob_base64") is not None:
        return _decode_one(row, path)
    try:
        with open(path, "xb") as file:
            size = _fetch.get(row["blob_url"], file, BLOB_BYTES_MAX, deadline)
            os.fchmod(file.fileno(), 0o444)
    except _fetch.TooLarge:
        path.unlink()
        return 0, "blob_too_large", f"the blob is larger than {BLOB_BYTES_MAX} bytes"
    except _fetch.FetchError as fault:
        path.unlink()
        return 0, "blob_download_failed", f"the blob could not be downloaded: {fault}"
    row["local_path"] = str(path)
    return size, None, ""


def _decode_one(row: dict, path: Path) -> tuple[int, str | None, str]:
    text = row.pop("blob_base64")
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError, TypeError) as fault:
        return 0, "blob_invalid", f"blob_base64 is not base64: {fault}"
    if len(data) > BLOB_BYTES_MAX:
        return 0, "blob_too_large", f"the blob is larger than {BLOB_BYTES_MAX} bytes"
    with open(path, "xb") as file:
        file.write(data)
        os.fchmod(file.fileno(), 0o444)
    row["local_path"] = str(path)
    return len(data), None, ""
