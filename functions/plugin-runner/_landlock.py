"""Landlock: the kernel lets a worker write in its scratch folder alone and keeps other plugins' files from it.

Also: no TCP where the stage gives none, and no signals to processes outside. Kernels offer parts of it or
nothing, so nothing relies on it; ``Rules.apply`` says what took.

Source: linux/landlock.h and Documentation/userspace-api/landlock.rst of the kernel.
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct
import sys
from pathlib import Path

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_CREATE_RULESET_VERSION = 1
_RULE_PATH_BENEATH = 1

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_ALL_OF_FIRST = (1 << 13) - 1
_REFER, _TRUNCATE = 1 << 13, 1 << 14
_TCP = 0b11
_SCOPE_ABSTRACT_SOCKETS, _SCOPE_SIGNALS = 0b01, 0b10
_READ = _EXECUTE | _READ_FILE | _READ_DIR
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE

_libc = ctypes.CDLL(None, use_errno=True)


class Rules:
    """A set of rules, made with the rights of the calling process and applied after it has given them up."""

    def __init__(self, work_folder: str, readable: list[str], scratch: str, network: bool) -> None:
        """``readable`` are folders below the working folder, of which nothing else can be read."""
        self._fd: int | None = None
        self._took = {"landlock_files": False, "landlock_network": False, "landlock_signals": False}
        version = _syscall(_CREATE_RULESET, None, 0, _CREATE_RULESET_VERSION)
        if version < 1:
            return
        files = _ALL_OF_FIRST | (_REFER if version >= 2 else 0) | (_TRUNCATE if version >= 3 else 0)
        tcp = 0 if network or version < 4 else _TCP
        scoped = (_SCOPE_SIGNALS | _SCOPE_ABSTRACT_SOCKETS) if version >= 6 else 0
        attributes = struct.pack("<QQQ", files, tcp, scoped)
        size = 8 if version < 4 else 16 if version < 6 else 24
        fd = _syscall(_CREATE_RULESET, attributes[:size], size, 0)
        if fd < 0:
            return
        self._fd = fd
        self._took = {
            "landlock_files": True,
            "landlock_network": tcp != 0,
            "landlock_signals": scoped != 0,
        }
        for path in _outside_of(work_folder):
            self._allow(path, _READ & files)
        for path in (*_packages(), *readable):
            self._allow(path, _READ & files)
        self._allow("/dev/null", (_READ_FILE | _WRITE_FILE | _TRUNCATE) & files)
        self._allow(scratch, files)

    def apply(self) -> dict[str, bool]:
        """Confines the calling process for good; it must have set no_new_privs."""
        if self._fd is not None:
            taken = _syscall(_RESTRICT_SELF, self._fd, 0) == 0
            os.close(self._fd)
            self._fd = None
            if not taken:
                self._took = dict.fromkeys(self._took, False)
        return self._took

    def _allow(self, path: str, access: int) -> None:
        try:
            fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            # What cannot be opened here cannot be used by the worker either.
            return
        try:
            if not stat.S_ISDIR(os.fstat(fd).st_mode):
                access &= _OF_FILES
            rule = struct.pack("<Qi", access, fd)
            if _syscall(_ADD_RULE, self._fd, _RULE_PATH_BENEATH, rule, 0) != 0:
                # A rule too few would take something from the plugin that it may have.
                self._took = dict.fromkeys(self._took, False)
        finally:
            os.close(fd)


def _outside_of(work_folder: str) -> list[str]:
    """All folders from which the one with everybody's temporary files cannot be reached."""
    temporary = Path(work_folder).resolve().parent
    found: list[str] = []
    for above in reversed((temporary, *temporary.parents)):
        if above == temporary:
            break
        on_the_way = temporary.relative_to(above).parts[0]
        try:
            found += [entry.path for entry in os.scandir(above) if entry.name != on_the_way]
        except OSError:
            # Not to be listed, and so closed to the worker as well.
            continue
    return found


def _packages() -> list[str]:
    return list(dict.fromkeys(p for p in (*sys.path, sys.prefix, sys.base_prefix) if p and os.path.exists(p)))


def _syscall(number: int, *arguments: object) -> int:
    return _libc.syscall(
        ctypes.c_long(number),
        *(ctypes.c_long(a) if isinstance(a, int) else a for a in arguments),
    )
