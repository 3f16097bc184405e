"""The process from which workers are forked: an interpreter with numpy and pandas loaded and nothing to hide.

Started by exec once per environment, with a clean set of variables. It takes orders from the handler over a
socket, forks a worker per plugin, ends workers with everything they started, and when the handler is gone
ends them all and removes the working folder. Run as ``python _zygote.py <descriptor of the socket>``.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import select
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Callable

MESSAGE_BYTES_MAX = 128 * 1024
_LEAVING_SECONDS = 0.5
_SWEEP_SECONDS = 1.0


def main() -> None:
    """Reads the first message (search path, working folder), loads the packages, serves orders until the
    end."""
    control = socket.socket(fileno=int(sys.argv[1]))
    start = json.loads(control.recv(MESSAGE_BYTES_MAX))
    sys.path[:] = start["sys_path"]
    import _limits
    import _scratch

    _limits.hide_from_children()
    _limits.adopt_orphans()
    zygote = _Zygote(control, start["work_folder"], _scratch.remove, _limits.OWN_USERS)
    signal.signal(signal.SIGTERM, zygote.on_terminate)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _limits.die_with_parent(signal.SIGTERM)

    import numpy  # noqa: F401
    import pandas  # noqa: F401
    import numpy.random  # noqa: F401
    import _worker

    own = Path(__file__).resolve().parent
    sys.path[:] = [p for p in sys.path if p and Path(p).resolve() != own]
    # A plugin may have a module of the same name as one of ours.
    for name, module in list(sys.modules.items()):
        if name.startswith("_") and Path(getattr(module, "__file__", None) or "/").parent == own:
            del sys.modules[name]
    if os.getuid() == 0:
        _limits.keep_packages_reachable()
    gc.collect()
    gc.freeze()
    zygote.worker_main = _worker.main
    control.send(json.dumps({"ready": True}).encode())
    zygote.serve()


class _Zygote:
    def __init__(
        self, control: socket.socket, work_folder: str, remove: Callable[[Path], bool], own_users: range
    ) -> None:
        self.control = control
        self.work_folder = work_folder
        self.remove = remove
        self.own_users = own_users
        self.users: set[int] = set()
        self.parent_pid = os.getppid()
        self.workers: set[int] = set()
        self.worker_main = None

    def serve(self) -> None:
        while True:
            data, fds, _, _ = socket.recv_fds(self.control, MESSAGE_BYTES_MAX, 4)
            if not data:
                self.leave()
            order = json.loads(data)
            if order["op"] == "fork":
                answer = {"pid": self.fork(order, fds)}
            elif order["op"] == "end":
                answer = {"status": self.end(order["pid"], order["at_once"]), "strays": self.sweep()}
            else:
                answer = {"strays": self.sweep()}
            self.control.send(json.dumps(answer).encode())

    def fork(self, order: dict, fds: list[int]) -> int:
        zygote_pid = os.getpid()
        pid = os.fork()
        if pid == 0:
            self.control.close()
            for fd in fds:
                os.set_inheritable(fd, False)
            self.worker_main(*fds, order, self.work_folder, zygote_pid)
            os._exit(71)
        for fd in fds:
            os.close(fd)
        self.workers.add(pid)
        if order["user"] in self.own_users:
            self.users.add(order["user"])
        return pid

    def end(self, pid: int, at_once: bool) -> int | None:
        """Ends a worker and its group; returns its wait status, None if it is no worker of ours."""
        if pid not in self.workers:
            return None
        if not at_once:
            # A worker that is ending by itself may finish, so that the status tells how.
            self.wait_until_ended(pid, _LEAVING_SECONDS)
        self.kill_group(pid)
        _, status = os.waitpid(pid, 0)
        self.workers.discard(pid)
        return status

    def wait_until_ended(self, pid: int, seconds: float) -> None:
        give_up_at = time.monotonic() + seconds
        while time.monotonic() < give_up_at:
            # WNOWAIT leaves it a zombie, so that its number is not given to another process before we are
            # done.
            if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                return
            select.select([], [], [], 0.002)

    def kill_group(self, pid: int) -> None:
        for kill in (os.killpg, os.kill):
            try:
                kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                # It has not made its group yet, or all of the group have ended.
                continue

    def sweep(self) -> int:
        """Ends processes that a worker left behind and that became ours; returns how many there were."""
        count = 0
        give_up_at = time.monotonic() + _SWEEP_SECONDS
        while strays := [pid for pid in _children() if pid not in self.workers]:
            for pid in strays:
                self.kill_group_of_stray(pid)
                os.waitpid(pid, 0)
                count += 1
            if time.monotonic() > give_up_at:
                # They multiply faster than they can be found one by one.
                self.kill_all_of_users()
                give_up_at = time.monotonic() + _SWEEP_SECONDS
        if not self.workers:
            self.users.clear()
        return count

    def kill_all_of_users(self) -> None:
        """Ends whatever runs as one of the users that only our workers are, workers included."""
        for user in self.users:
            pid = os.fork()
            if pid == 0:
                try:
                    os.setresuid(user, user, user)
                    os.kill(-1, signal.SIGKILL)
                finally:
                    os._exit(0)
            os.waitpid(pid, 0)

    def kill_group_of_stray(self, pid: int) -> None:
        group = os.getpgid(pid)
        if group not in self.workers and group != os.getpgid(0):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)
        os.kill(pid, signal.SIGKILL)

    def on_terminate(self, *_: object) -> None:
        # The kernel also sends this when only the thread ended that started us; then there is still work.
        if os.getppid() != self.parent_pid:
            self.leave()

    def leave(self) -> None:
        # The end of the socket and the signal both tell that the handler is gone, and either may come first.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        for pid in list(self.workers):
            self.kill_group(pid)
            os.waitpid(pid, 0)
            self.workers.discard(pid)
        self.sweep()
        self.remove(Path(self.work_folder))
        os._exit(0)


def _children() -> list[int]:
    """Process ids of this process's children."""
    pid = os.getpid()
    listing = Path(f"/proc/self/task/{pid}/children")
    if listing.exists():
        return [int(word) for word in listing.read_text().split()]
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                # It ended meanwhile.
                continue
            if int(fields[1]) == pid:
                found.append(int(entry.name))
    return found


if __name__ == "__main__":
    main()
