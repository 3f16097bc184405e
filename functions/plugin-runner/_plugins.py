"""The plugins of this environment: their unpacked archives, and the one worker that each of them has."""

from __future__ import annotations

import atexit
import hashlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

import _archive
import _scratch
from _call import Call
from _errors import RunnerError
from _processes import LOG_BYTES_MAX, WORKERS_MAX, Room, Worker, WorkFolder, Zygote
from _secrets import Mask

MEMORY_BYTES_DEFAULT = 1536 * 1024 * 1024
MEMORY_BYTES_MIN = 512 * 1024 * 1024
_VERSION_SUFFIX = re.compile(r"_\d+_\d+_\d+\Z")
_MEMORY_BYTES_OURS = 300 * 1024 * 1024
"""What the handler and the zygote take of the function's memory."""


@dataclass(frozen=True)
class _Unpacked:
    """A plugin's files, and how they were when they had just been unpacked."""

    folder: Path
    files: dict[str, tuple]


class Plugins:
    """Archives and workers, by tenant and SHA-256 of the archive; the least recently used ones make room."""

    def __init__(self, network: bool = False, harden: bool = True) -> None:
        """``network``: whether plugins are given one. ``harden``: whether to try protections that not every
        kernel offers; nothing relies on them."""
        self._network = network
        self._harden = harden
        self._work = WorkFolder()
        self.zygote = Zygote(self._work)
        self._workers: dict[str, Worker] = {}
        self._unpacked: dict[str, _Unpacked] = {}
        self._logs: list[str] = []
        self._salt = os.urandom(16)
        atexit.register(self.close)

    def close(self) -> None:
        """Ends all processes and removes the working folder; the environment is not to be used afterwards."""
        atexit.unregister(self.close)
        for key in list(self._workers):
            self._drop(key)
        self.zygote.leave()
        self._work.remove()

    def worker(self, key: str, call: Call, memory_mb: int | None, mask: Mask) -> Worker:
        """The plugin's worker, loaded: the one that is there, or a new one. Raises RunnerError.

        A worker that has been given other secrets, or other memory, is replaced: what it remembers is not for
        this call.
        """
        memory_bytes = _memory_bytes(call.memory_mb, memory_mb)
        digest = self._digest(call.secrets)
        worker = self._workers.get(key)
        if worker is not None and worker.is_alive():
            if worker.room.memory_bytes == memory_bytes and worker.secrets_digest == digest:
                self._workers[key] = self._workers.pop(key)
                return worker
        self._drop(key)
        folder = _plugin_folder(self._folder(key, call), call.root)
        while len(self._workers) >= WORKERS_MAX:
            self._drop(next(iter(self._workers)))
        self.zygote.start()
        room = Room(memory_bytes, folder, self._network, self._harden)
        worker = Worker(self.zygote, self._work, room, call.deadline)
        try:
            worker.load(folder, package_name(call.root, call.plugin_id), call.deadline)
        except RunnerError:
            self._keep_log(worker, mask)
            raise
        worker.secrets_digest = digest
        self._workers[key] = worker
        return worker

    def lose(self, key: str, at_once: bool, mask: Mask) -> str:
        """Ends a plugin's worker and says how it ended."""
        worker = self._workers.pop(key, None)
        if worker is None:
            return "its process had ended"
        how = worker.end(at_once)
        self._keep_log(worker, mask)
        return how

    def after_call(self, key: str, mask: Mask) -> str:
        """Ends what the plugin left running beside itself; returns what it printed, at most 64 KB."""
        worker = self._workers.get(key)
        if worker is not None and worker.is_alive():
            why = None
            if worker.has_company() or self._sweep():
                why = "the plugin left threads or processes running"
            elif worker.keeps_too_much():
                why = "the plugin left too much in its folder"
            if why is None:
                self._logs.append(worker.take_log(mask))
            else:
                self._logs.append(f"[{why}; its process was ended]\n")
                self.lose(key, at_once=True, mask=mask)
        text, self._logs = "".join(self._logs), []
        return text if len(text.encode()) <= LOG_BYTES_MAX else _cut(text)

    def make_blobs(self) -> Path:
        """A folder for the blobs of one call, readable to workers."""
        return self._work.make_blobs()

    def _drop(self, key: str) -> None:
        """Ends a worker that is not this call's, or not yet; what it said last is for nobody."""
        worker = self._workers.pop(key, None)
        if worker is not None:
            worker.end(at_once=True)
            worker.close_log()

    def _folder(self, key: str, call: Call) -> Path:
        found = self._unpacked.pop(key, None)
        if found is not None and _archive.fingerprint(found.folder) != found.files:
            # On Lambda a plugin runs as the user who owns these files.
            _scratch.remove(found.folder.parent)
            found = None
        if found is None:
            while len(self._unpacked) > WORKERS_MAX:
                oldest = next(iter(self._unpacked))
                self._drop(oldest)
                _scratch.remove(self._unpacked.pop(oldest).folder.parent)
            home = self._work.make("plugin")
            folder = home / "files"
            try:
                _archive.fetch_and_unpack(call.archive_url, call.sha256, folder, call.deadline)
            except RunnerError:
                home.rmdir()
                raise
            found = _Unpacked(folder, _archive.fingerprint(folder))
        self._unpacked[key] = found
        return found.folder

    def _digest(self, secrets: dict[str, str]) -> bytes:
        return hashlib.blake2b(json.dumps(secrets, sort_keys=True).encode(), key=self._salt).digest()

    def _sweep(self) -> bool:
        try:
            return self.zygote.sweep() > 0
        except RunnerError:
            # Without the zygote its workers end too; this one is not to be used again.
            return True

    def _keep_log(self, worker: Worker, mask: Mask) -> None:
        self._logs.append(worker.take_log(mask))
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


def _memory_bytes(wanted_mb: int | None, functions_mb: int | None) -> int:
    room = (
        MEMORY_BYTES_DEFAULT
        if functions_mb is None
        else max(MEMORY_BYTES_MIN, functions_mb * 1024 * 1024 - _MEMORY_BYTES_OURS)
    )
    if wanted_mb is None:
        return room
    return min(wanted_mb * 1024 * 1024, room) if functions_mb is not None else wanted_mb * 1024 * 1024


def _cut(text: str) -> str:
    return text.encode()[: LOG_BYTES_MAX - 100].decode("utf-8", "ignore") + "\n[more was cut]\n"
