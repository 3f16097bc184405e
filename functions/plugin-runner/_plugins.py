"""The plugins of this environment: their unpacked archives, and the one worker that each of them has."""

from __future__ import annotations

import atexit
import re
import shutil
from pathlib import Path

import _archive
from _errors import RunnerError
from _processes import LOG_BYTES_MAX, WORKERS_MAX, Worker, WorkFolder, Zygote

MEMORY_BYTES_DEFAULT = 1536 * 1024 * 1024
MEMORY_BYTES_MIN = 512 * 1024 * 1024
_VERSION_SUFFIX = re.compile(r"_\d+_\d+_\d+\Z")
_MEMORY_BYTES_OURS = 300 * 1024 * 1024
"""What the handler and the zygote take of the function's memory."""


class Plugins:
    """Archives and workers, by the SHA-256 of the archive; the least recently used ones make room."""

    def __init__(self) -> None:
        self._work = WorkFolder()
        self.zygote = Zygote(self._work)
        self._workers: dict[str, Worker] = {}
        self._folders: dict[str, Path] = {}
        self._logs: list[str] = []
        atexit.register(self.close)

    def close(self) -> None:
        """Ends all processes and removes the working folder; the environment is not to be used afterwards."""
        atexit.unregister(self.close)
        for sha256 in list(self._workers):
            self.lose(sha256, at_once=True)
        self.zygote.leave()
        self._work.remove()

    def worker(
        self, sha256: str, url: str, root: str, plugin_id: str, memory_mb: int | None, deadline: float
    ) -> Worker:
        """The plugin's worker, loaded: the one that is there, or a new one. Raises RunnerError."""
        worker = self._workers.get(sha256)
        if worker is not None and worker.is_alive():
            self._workers[sha256] = self._workers.pop(sha256)
            return worker
        if worker is not None:
            self.lose(sha256, at_once=False)
        folder = self._folder(sha256, url, deadline)
        while len(self._workers) >= WORKERS_MAX:
            self.lose(next(iter(self._workers)), at_once=True)
        self.zygote.start()
        worker = Worker(self.zygote, self._work, _memory_bytes(memory_mb), deadline)
        try:
            worker.load(_plugin_folder(folder, root), package_name(root, plugin_id), deadline)
        except RunnerError:
            self._keep_log(worker)
            raise
        self._workers[sha256] = worker
        return worker

    def lose(self, sha256: str, at_once: bool) -> str:
        """Ends a plugin's worker and says how it ended."""
        worker = self._workers.pop(sha256, None)
        if worker is None:
            return "its process had ended"
        how = worker.end(at_once)
        self._keep_log(worker)
        return how

    def after_call(self, sha256: str) -> str:
        """Ends what the plugin left running beside itself; returns what it printed, at most 64 KB."""
        worker = self._workers.get(sha256)
        if worker is not None and worker.is_alive():
            if worker.has_company() or self._sweep():
                self._logs.append("[the plugin left threads or processes running; its process was ended]\n")
                self.lose(sha256, at_once=True)
            else:
                self._logs.append(worker.take_log())
        text, self._logs = "".join(self._logs), []
        return text if len(text.encode()) <= LOG_BYTES_MAX else _cut(text)

    def make_folder(self, kind: str) -> Path:
        """A folder for the files of one call, readable to workers."""
        return self._work.make(kind, for_worker=False)

    def _folder(self, sha256: str, url: str, deadline: float) -> Path:
        folder = self._folders.pop(sha256, None)
        if folder is None or not folder.is_dir():
            while len(self._folders) > WORKERS_MAX:
                oldest = next(iter(self._folders))
                self.lose(oldest, at_once=True)
                shutil.rmtree(self._folders.pop(oldest).parent, ignore_errors=True)
            home = self._work.make("plugin", for_worker=False)
            folder = home / "files"
            try:
                _archive.fetch_and_unpack(url, sha256, folder, deadline)
            except RunnerError:
                home.rmdir()
                raise
        self._folders[sha256] = folder
        return folder

    def _sweep(self) -> bool:
        try:
            return self.zygote.sweep() > 0
        except RunnerError:
            # Without the zygote its workers end too; this one is not to be used again.
            return True

    def _keep_log(self, worker: Worker) -> None:
        self._logs.append(worker.take_log())
        worker.close_log()


def package_name(root: str, plugin_id: str) -> str:
    """The package's name: the archive's top folder, else the plugin's name."""
    name = root.strip("/").split("/")[-1] or _VERSION_SUFFIX.sub("", plugin_id)
    return re.sub(r"\W", "_", name) or "plugin"


def _plugin_folder(folder: Path, root: str) -> Path:
    found = folder.joinpath(*[part for part in root.split("/") if part])
    if not (found / "pipeline.py").is_file():
        raise RunnerError("plugin_load_failed", f"the archive has no pipeline.py in {root or 'its root'}")
    return found


def _memory_bytes(memory_mb: int | None) -> int:
    if memory_mb is None:
        return MEMORY_BYTES_DEFAULT
    return max(MEMORY_BYTES_MIN, memory_mb * 1024 * 1024 - _MEMORY_BYTES_OURS)


def _cut(text: str) -> str:
    return text.encode()[: LOG_BYTES_MAX - 100].decode("utf-8", "ignore") + "\n[more was cut]\n"
