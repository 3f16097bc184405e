"""The plugin's archive: downloaded once, compared with the hash that was validated, unpacked under limits.

The caller has checked the archive before it was accepted. The limits are applied here again while unpacking,
by the bytes that really come out: headers lie.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import struct
import tempfile
import unicodedata
import zipfile
import zlib
from pathlib import Path
from typing import BinaryIO

import _fetch
from _errors import RunnerError

ZIP_BYTES_MAX = 50 * 1024 * 1024
UNPACKED_BYTES_MAX = 250 * 1024 * 1024
FILE_BYTES_MAX = 100 * 1024 * 1024
ENTRIES_MAX = 1000
DEPTH_MAX = 10
RATIO_MAX = 200
RATIO_FROM_BYTES = 1024 * 1024
"""Small files of one repeated character pack better than any bomb has to; the ratio counts from here."""

_DIRECTORY_BYTES_MAX = ENTRIES_MAX * 2048
_COPY_BYTES = 256 * 1024
_SKIPPED_PARTS = ("__MACOSX", "__pycache__")


def fetch_and_unpack(url: str, sha256: str, destination: Path, deadline: float) -> None:
    """Downloads the archive and unpacks it to ``destination``, which appears only when it is complete.

    Raises RunnerError: archive_download_failed, archive_hash_mismatch or archive_refused.
    """
    with tempfile.TemporaryFile(dir=destination.parent) as file:
        try:
            _fetch.get(url, file, ZIP_BYTES_MAX, deadline)
        except _fetch.TooLarge:
            raise RunnerError(
                "archive_refused", f"the archive is larger than {ZIP_BYTES_MAX} bytes"
            ) from None
        except _fetch.FetchError as fault:
            raise RunnerError(
                "archive_download_failed", f"the archive could not be downloaded: {fault}"
            ) from None
        file.seek(0)
        found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != sha256:
            raise RunnerError(
                "archive_hash_mismatch", f"the archive has SHA-256 {found}, validated was {sha256}"
            )
        partial = destination.with_name(destination.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(mode=0o755)
        try:
            unpack(file, partial)
            partial.rename(destination)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise


def fingerprint(folder: Path) -> dict[str, tuple]:
    """How everything in a folder is: what a plugin changes there, it cannot hide from this.

    The time of the last change (ctime) is the kernel's; nobody can set it.
    """
    found: dict[str, tuple] = {}
    waiting = [str(folder)]
    while waiting:
        path = waiting.pop()
        try:
            entries = list(os.scandir(path))
        except OSError:
            found[path] = ("unreadable",)
            continue
        for entry in entries:
            state = entry.stat(follow_symlinks=False)
            # Of a folder the size and the times say nothing more than its entries do.
            found[entry.path] = (
                (state.st_ino, state.st_mode)
                if stat.S_ISDIR(state.st_mode)
                else (state.st_ino, state.st_mode, state.st_size, state.st_ctime_ns)
            )
            if stat.S_ISDIR(state.st_mode):
                waiting.append(entry.path)
    return found


def unpack(file: BinaryIO, destination: Path) -> None:
    """Unpacks a zip into an existing, empty folder; files become read-only. Raises RunnerError
    archive_refused."""
    try:
        _check_directory(file)
        with zipfile.ZipFile(file) as archive:
            _unpack(archive, destination)
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        struct.error,
        NotImplementedError,
        UnicodeError,
        ValueError,
    ) as fault:
        raise RunnerError("archive_refused", f"the archive is not a sound zip: {fault}") from None


def _unpack(archive: zipfile.ZipFile, destination: Path) -> None:
    entries = archive.infolist()
    if len(entries) > ENTRIES_MAX:
        _refuse(f"{len(entries)} entries; at most {ENTRIES_MAX} are allowed")
    total, seen = 0, set()
    for entry in entries:
        parts = _check_entry(entry)
        key = unicodedata.normalize("NFC", "/".join(parts)).casefold()
        if key in seen:
            _refuse(f"{_shown(entry)}: the name occurs twice (upper and lower case count as the same)")
        seen.add(key)
        if _skipped(parts):
            continue
        target = destination.joinpath(*parts)
        try:
            (target if entry.is_dir() else target.parent).mkdir(mode=0o755, parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            _refuse(f"{_shown(entry)}: a folder in it has the name of a file")
        if entry.is_dir():
            continue
        total += _write(archive, entry, target, UNPACKED_BYTES_MAX - total)


def _check_directory(file: BinaryIO) -> None:
    """Refuses a central directory so large that merely listing it would take the function's memory."""
    size = file.seek(0, os.SEEK_END)
    tail_bytes = min(size, 22 + 65535 + 20)
    file.seek(size - tail_bytes)
    tail = file.read(tail_bytes)
    end = tail.rfind(b"PK\x05\x06")
    if end < 0 or end + 22 > len(tail):
        _refuse("it is not a zip file")
    directory_bytes = struct.unpack_from("<I", tail, end + 12)[0]
    if tail[max(0, end - 20) : end].startswith(b"PK\x06\x07") or directory_bytes == 0xFFFFFFFF:
        _refuse("it is a zip64 file; an archive within the limits does not need that")
    if directory_bytes > _DIRECTORY_BYTES_MAX:
        _refuse(f"its directory has {directory_bytes} bytes, too many for {ENTRIES_MAX} entries")
    file.seek(0)


def _check_entry(entry: zipfile.ZipInfo) -> list[str]:
    # orig_filename: `filename` is what zipfile made of it (cut at NUL, backslashes turned on some systems).
    name = entry.orig_filename
    if "\0" in name or "\\" in name:
        _refuse(f"{_shown(entry)}: the name contains a backslash or NUL")
    if name.startswith("/") or name[1:2] == ":":
        _refuse(f"{_shown(entry)}: the name is an absolute path")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        _refuse(f'{_shown(entry)}: the name contains ".."')
    if not parts or len(parts) > DEPTH_MAX + 1:
        _refuse(f"{_shown(entry)}: deeper than {DEPTH_MAX} folders, or no name at all")
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        _refuse(f"{_shown(entry)}: neither a file nor a folder (links and devices are not unpacked)")
    if entry.flag_bits & 0x1:
        _refuse(f"{_shown(entry)}: encrypted")
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        _refuse(f"{_shown(entry)}: packed by another method than deflate")
    return parts


def _skipped(parts: list[str]) -> bool:
    return (
        any(part in _SKIPPED_PARTS for part in parts)
        or parts[-1] == ".DS_Store"
        or parts[-1].endswith(".pyc")
    )


def _write(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path, room: int) -> int:
    try:
        fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except (FileExistsError, IsADirectoryError, NotADirectoryError):
        _refuse(f"{_shown(entry)}: the name is that of another entry")
    count = 0
    with os.fdopen(fd, "wb") as out, archive.open(entry) as packed:
        while part := packed.read(_COPY_BYTES):
            count += len(part)
            if count > FILE_BYTES_MAX:
                _refuse(f"{_shown(entry)}: larger than {FILE_BYTES_MAX} bytes when unpacked")
            if count > room:
                _refuse(f"larger than {UNPACKED_BYTES_MAX} bytes when unpacked")
            if count > RATIO_FROM_BYTES and count > RATIO_MAX * max(1, entry.compress_size):
                _refuse(f"{_shown(entry)}: packed more than {RATIO_MAX} to 1")
            out.write(part)
        os.fchmod(out.fileno(), 0o444)
    return count


def _shown(entry: zipfile.ZipInfo) -> str:
    return ascii(entry.orig_filename[:120])


def _refuse(reason: str) -> None:
    raise RunnerError("archive_refused", f"the archive is refused: {reason}")
