"""What the Python tests share: loading a Lambda's modules, packing plugins, serving files on the loopback
interface."""

from __future__ import annotations

import base64
import hashlib
import http.server
import importlib
import io
import os
import sys
import threading
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
PLUGINS = ROOT / "test" / "fixtures" / "plugins"

# Stands for the keys of a Lambda: set before any process is started, so that a leak would carry it.
os.environ["AWS_SECRET_ACCESS_KEY"] = "must-stay-with-the-handler"


def load_function(name: str, *modules: str) -> SimpleNamespace:
    """Imports modules of ``functions/<name>`` by their plain names, as Lambda does, and leaves no trace of
    them.

    Every function has a ``handler.py`` and its own ``_errors.py``; in one test process they would meet.
    """
    folder = ROOT / "functions" / name
    before = set(sys.modules)
    sys.path.insert(0, str(folder))
    try:
        loaded = {module: importlib.import_module(module) for module in modules}
    finally:
        sys.path.remove(str(folder))
        for module in set(sys.modules) - before:
            if Path(getattr(sys.modules[module], "__file__", None) or "/").parent == folder:
                del sys.modules[module]
    return SimpleNamespace(**loaded)


@pytest.fixture(scope="session")
def load():
    """The function above."""
    return load_function


def pack(files: dict[str, str | bytes], top: str = "") -> bytes:
    """A zip of the files, under a top folder if one is named."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, content in files.items():
            archive.writestr(top + path, content)
    return buffer.getvalue()


def read_plugin(folder: Path) -> dict[str, bytes]:
    """The files of a plugin's folder, by their path in it."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }


class FileServer:
    """Serves bytes by path for GET and keeps what is PUT; answers of other statuses can be ordered."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.statuses: dict[str, list[int]] = {}
        self.uploads: dict[str, bytes] = {}
        self.requests: list[str] = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.requests.append(self.path)
                status = outer.statuses[self.path].pop(0) if outer.statuses.get(self.path) else 200
                body = outer.files.get(self.path) if status == 200 else b""
                self.send_response(404 if body is None else status)
                if 300 <= status < 400:
                    self.send_header("location", "/elsewhere")
                self.send_header("content-length", str(len(body or b"")))
                self.end_headers()
                self.wfile.write(body or b"")

            def do_PUT(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                status = outer.statuses[self.path].pop(0) if outer.statuses.get(self.path) else 200
                if status == 200:
                    outer.uploads[self.path] = body
                self.send_response(status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *args: object) -> None:
                return

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})
        self.thread.start()

    def url(self, path: str) -> str:
        """The address of a path."""
        return f"http://127.0.0.1:{self.server.server_port}{path}"

    def stop(self) -> None:
        """Stops serving and closes the port."""
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture(scope="session")
def server():
    """One file server for the session."""
    running = FileServer()
    yield running
    running.stop()


class Runner:
    """Calls the plugin runner as the warehouse does."""

    def __init__(self, server: FileServer) -> None:
        self.server = server
        self.modules = load_function(
            "plugin-runner", "handler", "_errors", "_processes", "_plugins", "_limits"
        )

    def publish(self, files: dict[str, str | bytes], plugin_id: str, top: str = "") -> dict:
        """Packs a plugin, serves it, and gives the event's ``plugin``."""
        data = pack(files, top)
        sha256 = hashlib.sha256(data).hexdigest()
        self.server.files[f"/{sha256}.zip"] = data
        return {
            "plugin_id": plugin_id,
            "sha256": sha256,
            "archive_url": self.server.url(f"/{sha256}.zip"),
            "root": top,
            "extractor_id": plugin_id,
        }

    def __call__(
        self, archive: dict, texts: list, feature: tuple[str, int] = ("v", 2), **more: object
    ) -> dict:
        """Runs rows, given as texts or as whole rows."""
        event = {
            "operation": "run",
            "plugin": archive,
            "parameters": {},
            "batch_size": 64,
            "result_url": None,
            "features": [{"name": feature[0], "dims": feature[1]}],
            "deadline_ms": 60_000,
            "rows": [r if isinstance(r, dict) else row(i, r) for i, r in enumerate(texts)],
            **more,
        }
        return self.modules.handler.handler(event, None)


def row(number: int, data: object, **more: object) -> dict:
    """One row of an event."""
    return {
        "row": number,
        "data": data,
        "document_id": f"doc_{number}",
        "object_id": f"obj_{number}",
        "blob_id": None,
        "blob_property": "text",
        "blob_type": "text",
        "collection_id": "col_1",
        "feature_extractor_id": "x_1_0_0",
        "mime_type": "text/plain",
        "size_bytes": len(str(data)),
        **more,
    }


@pytest.fixture(scope="session")
def runner(server):
    """One runner for the session: its zygote starts once, as in a Lambda environment."""
    running = Runner(server)
    yield running
    running.modules.handler._environment().close()


def vectors_of(reply: dict, feature: str) -> np.ndarray:
    """A reply's vectors as a matrix."""
    block = reply["vectors"][feature]
    flat = np.frombuffer(base64.b64decode(block["data_base64"]), dtype="<f4")
    return flat.reshape(block["count"], block["dims"])


def by_row(reply: dict, feature: str) -> dict[int, list[list[float] | None]]:
    """The vectors of each row, in the order of its outputs."""
    matrix = vectors_of(reply, feature)
    found: dict[int, list[list[float] | None]] = {}
    for output in reply["outputs"]:
        assert output["ordinal"] == len(found.setdefault(output["row"], []))
        place = output["features"][feature]
        found[output["row"]].append(None if place is None else matrix[place].tolist())
    return found
