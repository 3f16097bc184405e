"""The handler's side of the process model: one zygote, and one worker per plugin that it forks.

The handler holds the Lambda's environment and runs no plugin code. Workers get two pipes and a log file; the
clock, the order to end, and the judgement of answers stay here.
"""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import _limits
import _scratch
import _wire
from _errors import TRACEBACK_CHARS_MAX, RunnerError, WorkerGone
from _secrets import Mask

START_SECONDS_MAX = 60.0
LOG_BYTES_MAX = 64 * 1024
WORKERS_MAX = 3
PIPE_BYTES = 1024 * 1024
_F_SETPIPE_SZ = 1031
_ORDER_SECONDS = 10.0
_LEAVE_SECONDS = 3.0
_KEPT_VARIABLES = ("PATH", "LANG", "TZ", "LD_LIBRARY_PATH", "OPENBLAS_CORETYPE")
"""What Python itself needs to start; everything else in the handler's environment stays with the handler. The
last one chooses numpy's kernels: with other kernels the same sum can differ in its last bit."""

_THREADS = ("OMP", "OPENBLAS", "MKL", "NUMEXPR", "VECLIB")


class WorkFolder:
    """The handler's private folder: archives, scratch folders, blobs."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="granary-runner-", dir=_temporary_root()))
        if os.getuid() == 0:
            # The worker's user may pass through to its own folder, and may not list what else is here.
            self.path.chmod(0o711)
        self._numbers = itertools.count(1)
        self.blobs = self.path / "blobs"
        """Blobs of the call that runs, which every worker may read."""

    def remove(self) -> None:
        """Removes the folder and all that is in it."""
        _scratch.remove(self.path)

    def make(self, kind: str) -> Path:
        """A new folder in it."""
        self.path.mkdir(mode=0o711 if os.getuid() == 0 else 0o700, exist_ok=True)
        folder = self.path / f"{kind}-{next(self._numbers)}"
        folder.mkdir(mode=0o755)
        return folder

    def make_scratch(self) -> tuple[Path, int]:
        """A folder for one worker to write in, and the user that this worker is to be."""
        folder = self.make("scratch")
        self.blobs.mkdir(mode=0o755, exist_ok=True)
        return folder, _limits.own_for_worker(folder)

    def make_blobs(self) -> Path:
        """A folder for the blobs of one call."""
        self.blobs.mkdir(mode=0o755, parents=True, exist_ok=True)
        folder = self.blobs / str(next(self._numbers))
        folder.mkdir(mode=0o755)
        return folder


class Zygote:
    """The forking process. Started with ``exec`` and a clean environment; replaced when it has ended."""

    def __init__(self, work: WorkFolder) -> None:
        self._work = work
        self._process: subprocess.Popen | None = None
        self._control: socket.socket | None = None
        self._ready = False
        self._log = None

    def start(self) -> None:
        """Starts the process and returns at once; it loads its packages meanwhile."""
        if self._process is not None and self._process.poll() is None:
            return
        self.stop()
        self._work.path.mkdir(mode=0o711 if os.getuid() == 0 else 0o700, exist_ok=True)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._log = tempfile.TemporaryFile(dir=self._work.path)
        script = Path(__file__).with_name("_zygote.py")
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-s", "-P", "-B", str(script), str(theirs.fileno())],
                env=clean_environment(),
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
                cwd=self._work.path,
            )
        finally:
            theirs.close()
        self._control, self._ready = ours, False
        path = [str(script.parent), *(p for p in sys.path if p and os.path.isabs(p) and os.path.exists(p))]
        self._send({"sys_path": list(dict.fromkeys(path)), "work_folder": str(self._work.path)})

    def fork(self, order: dict, fds: list[int], deadline: float) -> int:
        """Forks a worker that inherits the descriptors; returns its process id. Raises RunnerError."""
        self.start()
        if not self._ready:
            self._receive(min(deadline, time.monotonic() + START_SECONDS_MAX))
            self._ready = True
        self._send({"op": "fork", **order}, fds)
        return self._receive(min(deadline, time.monotonic() + _ORDER_SECONDS))["pid"]

    def end(self, pid: int, at_once: bool) -> int | None:
        """Ends a worker and what it started. Returns its wait status, None if the zygote is gone too."""
        if self._process is None or self._process.poll() is not None or not self._ready:
            return None
        try:
            self._send({"op": "end", "pid": pid, "at_once": at_once})
            return self._receive(time.monotonic() + _ORDER_SECONDS)["status"]
        except RunnerError:
            # Whatever keeps it from answering: without it the kernel ends its workers, so that none is left.
            self.stop()
            return None

    def sweep(self) -> int:
        """Ends processes that workers left behind; returns how many. Raises RunnerError."""
        if self._process is None or self._process.poll() is not None:
            raise RunnerError("runner_unavailable", "the process that starts workers has ended")
        self._send({"op": "sweep"})
        return self._receive(time.monotonic() + _ORDER_SECONDS)["strays"]

    def leave(self) -> None:
        """Lets the process end by itself, which also ends what workers have started, and removes the working
        folder."""
        if self._process is not None and self._control is not None:
            self._control.close()
            try:
                self._process.wait(_LEAVE_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self.stop()

    def stop(self) -> None:
        """Ends the process, and with it all workers; the working folder stays."""
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._process is not None:
            # Asked to leave, it would remove the working folder, which the handler still needs.
            self._process.kill()
            self._process.wait()
            self._process = None
        if self._log is not None:
            self._log.close()
            self._log = None
        self._ready = False

    def _send(self, message: dict, fds: list[int] | None = None) -> None:
        try:
            socket.send_fds(self._control, [json.dumps(message).encode()], fds or [])
        except OSError as fault:
            raise self._gone(f"cannot be told ({fault})") from None

    def _receive(self, deadline: float) -> dict:
        self._control.settimeout(max(0.01, deadline - time.monotonic()))
        try:
            data = self._control.recv(65536)
        except TimeoutError:
            raise self._gone("did not answer in time") from None
        except OSError as fault:
            raise self._gone(str(fault)) from None
        if not data:
            raise self._gone("has ended")
        return json.loads(data)

    def _gone(self, what: str) -> RunnerError:
        self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, self._log.tell() - 500))
        words = self._log.read().decode("utf-8", "replace").strip()
        self.stop()
        return RunnerError(
            "runner_unavailable", f"the process that starts workers {what}" + (f": {words}" if words else "")
        )


@dataclass(frozen=True)
class Room:
    """What a worker gets: memory beyond the process it is forked from, its plugin's folder, a network or none,
    and whether to try the protections that not every kernel offers."""

    memory_bytes: int
    folder: Path
    network: bool
    harden: bool


class Worker:
    """One plugin's process. Usable until it ends; then ``end`` says how, and a new one is made."""

    def __init__(self, zygote: Zygote, work: WorkFolder, room: Room, deadline: float) -> None:
        self._zygote = zygote
        self._scratch, user = work.make_scratch()
        self.room = room
        self.secrets_digest: bytes | None = None
        self.frames_run = 0
        self.load_seconds = 0.0
        self._log = tempfile.TemporaryFile(mode="w+b", dir=work.path, buffering=0)
        os.set_inheritable(self._log.fileno(), False)
        _append(self._log.fileno())
        self.isolation: dict = {}
        self._ended: str | None = None
        self.rows_of_call: int | None = None
        to_worker, from_worker = _pipe(), _pipe()
        try:
            order = {
                "memory_bytes": room.memory_bytes,
                "scratch": str(self._scratch),
                "user": user,
                "readable": [str(room.folder), str(work.blobs)],
                "network": room.network,
                "harden": room.harden,
            }
            self.pid = zygote.fork(order, [to_worker[0], from_worker[1], self._log.fileno()], deadline)
        except BaseException:
            os.close(to_worker[1])
            os.close(from_worker[0])
            self._log.close()
            raise
        finally:
            os.close(to_worker[0])
            os.close(from_worker[1])
        self.channel = _wire.Channel(to_worker[1], from_worker[0], _pidfd(self.pid))
        self.channel.watch = self._watch_disk

    def load(self, folder: Path, package: str, deadline: float) -> None:
        """Imports the plugin. Raises RunnerError plugin_load_failed or plugin_load_timeout; the worker is
        ended then."""
        give_up_at = min(deadline, time.monotonic() + START_SECONDS_MAX)
        seconds = give_up_at - time.monotonic()
        message = {
            "op": "load",
            "folder": str(folder),
            "package": package,
            "cpu_seconds": _cpu_allowance(seconds),
        }
        began = time.monotonic()
        answer = self.ask(message, give_up_at, "loading")
        self.load_seconds = time.monotonic() - began
        self.isolation = {str(k): v is True for k, v in dict(answer.get("isolation") or {}).items()}

    def ask(self, message: dict, give_up_at: float, what: str) -> dict:
        """Sends a message that is answered by ``ready`` or ``fatal``. Raises RunnerError after ending the
        worker."""
        began = time.monotonic()
        try:
            self.channel.send(message, give_up_at)
            answer, _ = self.channel.receive(give_up_at)
        except _wire.OutOfTime:
            self.end(at_once=True)
            seconds = time.monotonic() - began
            raise RunnerError(
                "plugin_load_timeout", f"{what} the plugin did not end within {seconds:.1f} s"
            ) from None
        except _wire.PeerGone:
            raise WorkerGone("plugin_load_failed", f"{what} the plugin: {self.end(at_once=False)}") from None
        except _wire.Overdrawn as fault:
            self.end(at_once=True)
            raise RunnerError("plugin_load_failed", f"{what} the plugin: {fault}") from None
        except _wire.WireError as fault:
            self.end(at_once=True)
            raise WorkerGone("plugin_load_failed", f"{what} the plugin: {fault}") from None
        if answer.get("ready") is True:
            return answer
        self.end(at_once=True)
        fatal = answer.get("fatal")
        if (
            isinstance(fatal, list)
            and len(fatal) == 3
            and fatal[0] in ("plugin_load_failed", "realtime_missing")
            and (fatal[2] is None or isinstance(fatal[2], str))
        ):
            traceback = None if fatal[2] is None else fatal[2][:TRACEBACK_CHARS_MAX]
            raise RunnerError(fatal[0], str(fatal[1]), traceback)
        raise WorkerGone(
            "plugin_load_failed", f"{what} the plugin: its process sent an answer that is not valid"
        )

    def end(self, at_once: bool) -> str:
        """Ends the process and all it started; says how it ended ("was killed by SIGSEGV")."""
        if self._ended is None:
            self._ended = _how(self._zygote.end(self.pid, at_once))
            self.channel.close()
            if not _scratch.remove(self._scratch):
                self._ended += ", and what it wrote could not be removed"
        return self._ended

    def take_log(self, mask: Mask) -> str:
        """What the plugin has printed since the last call, at most 64 KB, without the values of secrets."""
        fd = self._log.fileno()
        size = os.fstat(fd).st_size
        text = os.pread(fd, LOG_BYTES_MAX, 0).decode("utf-8", "replace")
        os.ftruncate(fd, 0)
        if size < LOG_BYTES_MAX:
            return mask(text)
        return mask.at_cut(text) + f"\n[{size - LOG_BYTES_MAX} bytes more were cut]\n"

    def keeps_too_much(self) -> bool:
        """Whether what the plugin wrote is more than may stay until its next call."""
        return _scratch.exceeds(self._scratch, _scratch.KEPT_BYTES_MAX)

    def _watch_disk(self) -> None:
        if _scratch.exceeds(self._scratch, _scratch.BYTES_MAX):
            raise _wire.Overdrawn(
                f"more than {_scratch.BYTES_MAX >> 20} MB, or more files than can be looked after, in its folder"
            )

    def close_log(self) -> None:
        """To be called when the worker has ended and its log was taken."""
        self._log.close()

    def is_alive(self) -> bool:
        """Whether the process still runs."""
        try:
            status = Path(f"/proc/{self.pid}/stat").read_text()
        except OSError:
            return False
        return status.rpartition(")")[2].split()[0] not in ("Z", "X")

    def has_company(self) -> bool:
        """Whether the plugin left threads or child processes running."""
        try:
            status = Path(f"/proc/{self.pid}/status").read_text()
            threads = int(status.split("\nThreads:", 1)[1].split(None, 1)[0])
            children = Path(f"/proc/{self.pid}/task/{self.pid}/children")
            return threads > 1 or (children.exists() and bool(children.read_text().strip()))
        except OSError:
            return True


def clean_environment() -> dict[str, str]:
    """The variables of the zygote and all workers. The hash seed is fixed, so that ``hash()`` gives a query
    the same vector as a batch."""
    kept = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    threads = {f"{name}_NUM_THREADS": "1" for name in _THREADS}
    return {
        "PATH": "/usr/bin:/bin",
        "LANG": "C.UTF-8",
        **kept,
        **threads,
        "PYTHONHASHSEED": "0",
        "HOME": "/nonexistent",
    }


def _temporary_root() -> str:
    """Where the working folder goes: the usual place, unless workers run as another user who cannot enter
    that."""
    usual = tempfile.gettempdir()
    if os.getuid() != 0:
        return usual
    for folder in (usual, "/tmp", "/var/tmp", "/dev/shm"):
        if os.path.isdir(folder) and os.access(folder, os.W_OK) and _passable(folder):
            return folder
    return usual


def _passable(folder: str) -> bool:
    full = Path(folder).resolve()
    return all(f.stat().st_mode & 0o001 or f.stat().st_uid == _limits.NOBODY for f in (full, *full.parents))


def _pipe() -> tuple[int, int]:
    ends = os.pipe()
    try:
        fcntl.fcntl(ends[1], _F_SETPIPE_SZ, PIPE_BYTES)
    except PermissionError:
        # The user's share of pipe memory is used up; the smaller pipe is slower and as good.
        pass
    return ends


def _append(fd: int) -> None:
    fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_APPEND)


def _pidfd(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):
        # Too old a kernel: then the end of the pipe is the only sign, which a child of the worker can delay.
        return None


def _cpu_allowance(seconds: float) -> float:
    return 2 * seconds + 10


def _how(status: int | None) -> str:
    if status is None:
        return "its process and the process that had started it ended"
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        name = signal.Signals(number).name if number in set(signal.Signals) else str(number)
        return f"its process was killed by {name}"
    return f"its process ended with exit code {os.waitstatus_to_exitcode(status)}"
