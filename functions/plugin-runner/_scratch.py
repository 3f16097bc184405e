"""Looks after the folders that plugins write in: how much lies there, and removing whatever it is."""

from __future__ import annotations

import itertools
import os
import stat
from pathlib import Path

BYTES_MAX = 256 * 1024 * 1024
"""A plugin that writes more than this is ended; the function's disk is 512 MB."""

KEPT_BYTES_MAX = 64 * 1024 * 1024
"""More than this does not stay for the plugin's next call."""

_ENTRIES_MAX = 10_000
_TRIES = 3


def exceeds(folder: Path, bytes_max: int) -> bool:
    """Whether more lies in a folder than allowed: bytes, or files and folders, or what cannot be looked into."""
    total, count = 0, 0
    waiting = [str(folder)]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    count += 1
                    found = entry.stat(follow_symlinks=False)
                    total += found.st_blocks * 512
                    if count > _ENTRIES_MAX or total > bytes_max:
                        return True
                    if stat.S_ISDIR(found.st_mode):
                        waiting.append(entry.path)
        except FileNotFoundError:
            # The plugin removes files while we look.
            continue
        except OSError:
            return True
    return False


def remove(folder: Path) -> bool:
    """Removes a folder with everything in it, however deep it goes and whatever its rights are; whether it is
    gone."""
    for _ in range(_TRIES):
        try:
            _remove(folder)
            return True
        except FileNotFoundError:
            if not _is_folder(folder):
                return True
        except OSError:
            # A process that is just being ended may still write there.
            continue
    return False


def _remove(folder: Path) -> None:
    # Inner folders are moved up, so that no path grows long and nothing recurses.
    names = itertools.count()
    waiting = [folder]
    while waiting:
        inner = waiting[-1]
        os.chmod(inner, 0o700)
        deeper = []
        with os.scandir(inner) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    deeper.append(entry.path)
                else:
                    os.unlink(entry.path)
        if inner == folder:
            if not deeper:
                os.rmdir(folder)
                return
            waiting += map(Path, deeper)
            continue
        for path in deeper:
            # Moving a folder changes its "..", for which it must be writable.
            os.chmod(path, 0o700)
            moved = folder / f".{next(names)}.moved"
            os.rename(path, moved)
            waiting.insert(1, moved)
        os.rmdir(inner)
        waiting.pop()


def _is_folder(path: Path) -> bool:
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except FileNotFoundError:
        return False
