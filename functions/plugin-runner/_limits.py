"""What a worker may use and see: resource limits, its own process group, another user, death with its parent.

Nothing here is relied on alone. ``apply`` reports which protections took, because some need rights (dropping
the user) or a kernel that offers them.
"""

from __future__ import annotations

import ctypes
import os
import random
import resource
import signal
import stat
import sys
from pathlib import Path

import _landlock
import _seccomp

NOBODY = 65534
"""User and group of a worker whose handler runs as root (the local stage; on Lambda nobody is root), where it
cannot be a user of its own."""

OWN_USERS = range(0x7000_0000, 0x7800_0000)
"""Numbers that nobody has: a worker that is one of these can touch no other worker's files or processes."""

FILE_BYTES_MAX = 64 * 1024 * 1024
OPEN_FILES_MAX = 256
TASKS_MAX = 64
"""Processes and threads that a worker may add to those its user already has."""

CPU_SECONDS_HARD = 24 * 3600

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38
_CLONE_NEWNET = 0x40000000

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


def own_for_worker(folder: Path) -> int:
    """Gives a new folder to the user that its worker will run as; returns that user.

    As root this is a number of its own. Where the surroundings know fewer users it is nobody, and without
    root it is the handler's own.
    """
    if os.getuid() != 0:
        return os.getuid()
    for user in (random.SystemRandom().choice(OWN_USERS), NOBODY):
        try:
            os.chown(folder, user, user)
        except OSError:
            continue
        folder.chmod(0o700)
        return user
    return NOBODY


def apply(order: dict, work_folder: str, parent_pid: int) -> dict[str, bool]:
    """Confines the calling process, which is a fresh fork and is about to run a plugin.

    ``order`` has ``memory_bytes`` (what the plugin may take on top of what the process already maps),
    ``scratch`` (its folder), ``user``, ``readable`` (its other folders), ``network`` (whether it may have
    one) and ``harden`` (whether to try what not every kernel offers). Returns which of the protections took.
    Raises OSError if the process is root and cannot become somebody else.
    """
    took = {"session": True}
    os.setsid()
    user, network, harden = order["user"], order["network"], order["harden"]
    rules = _landlock.Rules(work_folder, order["readable"], order["scratch"], network) if harden else None
    took["network_namespace"] = harden and not network and os.getuid() == 0 and _libc.unshare(_CLONE_NEWNET) == 0
    memory_bytes = order["memory_bytes"]
    for limit, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, OPEN_FILES_MAX),
        (resource.RLIMIT_FSIZE, FILE_BYTES_MAX),
        (resource.RLIMIT_AS, _mapped_bytes() + memory_bytes),
    ):
        took[_LIMIT_NAMES[limit]] = _lower(limit, value)
    took["no_new_privs"] = _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    took["own_user"] = user in OWN_USERS
    others = 0 if took["own_user"] else _tasks_of(user)
    took["tasks"] = _lower(resource.RLIMIT_NPROC, others + TASKS_MAX)
    if os.getuid() == 0:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
        took["user_dropped"] = True
    took["hidden"] = hide_from_children()
    took["dies_with_parent"] = die_with_parent(signal.SIGKILL)
    if os.getppid() != parent_pid:
        os._exit(0)
    os.chdir(order["scratch"])
    if rules is not None:
        took.update(rules.apply())
        took["seccomp"] = _seccomp.install(network)
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
