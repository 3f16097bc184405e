"""What a worker may use and see: resource limits, its own process group, another user, death with its parent.

Nothing here is relied on alone. ``apply`` reports which protections took, because some need rights (dropping
the user) or a kernel that offers them.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import stat
import sys
from pathlib import Path

NOBODY = 65534
"""User and group of a worker whose handler runs as root (the local stage; on Lambda nobody is root)."""

FILE_BYTES_MAX = 64 * 1024 * 1024
OPEN_FILES_MAX = 256
TASKS_MAX = 64
"""Processes and threads that a worker may add to those its user already has."""

CPU_SECONDS_HARD = 24 * 3600

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38

_libc = ctypes.CDLL(None, use_errno=True)


def _prctl(option: int, value: int) -> bool:
    return (
        _libc.prctl(option, ctypes.c_ulong(value), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0))
        == 0
    )


def hide_from_children() -> bool:
    """Makes ``/proc/<this process>/environ`` and ``mem`` unreadable to other processes of the same user."""
    return _prctl(_PR_SET_DUMPABLE, 0)


def die_with_parent(with_signal: int) -> bool:
    """Asks the kernel for a signal when the parent ends; to be called after the last change of user, which
    clears it."""
    return _prctl(_PR_SET_PDEATHSIG, with_signal)


def adopt_orphans() -> bool:
    """Makes processes whose parent ended children of this one instead of init's, so that they can be found
    and ended."""
    return _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def apply(memory_bytes: int, scratch: str, parent_pid: int) -> dict[str, bool]:
    """Confines the calling process, which is a fresh fork and is about to run a plugin.

    ``memory_bytes`` is what the plugin may take on top of what the process already maps. Returns which of the
    protections took. Raises OSError if the process is root and cannot become somebody else.
    """
    took = {"session": True}
    os.setsid()
    for limit, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, OPEN_FILES_MAX),
        (resource.RLIMIT_FSIZE, FILE_BYTES_MAX),
        (resource.RLIMIT_AS, _mapped_bytes() + memory_bytes),
    ):
        took[_LIMIT_NAMES[limit]] = _lower(limit, value)
    took["no_new_privs"] = _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    uid = NOBODY if os.getuid() == 0 else os.getuid()
    took["tasks"] = _lower(resource.RLIMIT_NPROC, _tasks_of(uid) + TASKS_MAX)
    if os.getuid() == 0:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        took["user_dropped"] = True
    took["hidden"] = hide_from_children()
    took["dies_with_parent"] = die_with_parent(signal.SIGKILL)
    if os.getppid() != parent_pid:
        os._exit(0)
    os.chdir(scratch)
    return took


def allow_cpu_seconds(seconds: float) -> None:
    """Lets the process use so many more seconds of CPU. The clock of the handler is the limit; this one is
    the second."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _lower(resource.RLIMIT_CPU, int(used.ru_utime + used.ru_stime + seconds) + 1, CPU_SECONDS_HARD)


_LIMIT_NAMES = {
    resource.RLIMIT_CORE: "core",
    resource.RLIMIT_NOFILE: "open_files",
    resource.RLIMIT_FSIZE: "file_size",
    resource.RLIMIT_AS: "memory",
}


def _lower(limit: int, soft: int, hard: int | None = None) -> bool:
    _, hard_now = resource.getrlimit(limit)
    hard = soft if hard is None else hard
    if hard_now != resource.RLIM_INFINITY:
        hard = min(hard, hard_now)
    resource.setrlimit(limit, (min(soft, hard), hard))
    return True


def _mapped_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def _tasks_of(uid: int) -> int:
    """Threads of all processes of a user: RLIMIT_NPROC counts those, not the children of one process."""
    count = 0
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        try:
            if entry.stat().st_uid in (uid, 0):
                fields = dict(
                    line.split(":", 1)
                    for line in Path(entry.path, "status").read_text().splitlines()
                    if ":" in line
                )
                if int(fields["Uid"].split()[0]) == uid:
                    count += int(fields["Threads"])
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            # The process ended meanwhile, or is none of ours; either way it does not count.
            continue
    return count


def reachable(path: str, uid: int = NOBODY) -> bool:
    """Whether a user who owns none of it can enter and list a folder (or read a file)."""
    full = Path(path).resolve()
    for folder in full.parents:
        if not _allows(folder, uid, stat.S_IXOTH, stat.S_IXUSR):
            return False
    if full.is_dir():
        return _allows(full, uid, stat.S_IXOTH | stat.S_IROTH, stat.S_IXUSR | stat.S_IRUSR)
    return _allows(full, uid, stat.S_IROTH, stat.S_IRUSR)


def _allows(path: Path, uid: int, others: int, owner: int) -> bool:
    found = path.stat()
    wanted = owner if found.st_uid == uid else others
    return found.st_mode & wanted == wanted


def keep_packages_reachable() -> list[int]:
    """Called as root before workers are forked: keeps Python's own folders readable to them.

    An interpreter below a home folder cannot be entered by another user, and modules are loaded late
    (``hashlib`` at a plugin's first import). Such folders are opened here, and the search path is changed to
    the open descriptors, which the workers inherit. Returns the descriptors.
    """
    opened: dict[str, str] = {}
    fds: list[int] = []

    def moved(path: str) -> str:
        for folder, instead in opened.items():
            if path == folder or path.startswith(folder + os.sep):
                return instead + path[len(folder) :]
        return path

    for index, path in enumerate(sys.path):
        if path and os.path.isdir(path) and not reachable(path):
            if moved(path) == path:
                fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
                fds.append(fd)
                opened[path] = f"/proc/self/fd/{fd}"
            sys.path[index] = moved(path)
    for module in list(sys.modules.values()):
        paths = getattr(module, "__path__", None)
        if isinstance(paths, list):
            module.__path__ = [moved(p) if isinstance(p, str) else p for p in paths]
    return fds
