"""Runs Granary's own validator and plugin runner on this machine, for ``granary plugin validate`` and ``test``.

The handlers are those that are deployed: they are imported from ``functions/`` and called with the events that
the warehouse would send. One request as a line of JSON on standard input, one answer as JSON on standard
output; when standard input ends before that, so does everything here::

    {"operation": "validate", "folder": "functions/plugin-validator", "fallback_name": "x",
     "event": {...}}                      # the validator's event without name and version
    -> {"identity": {...}, "validation": <the handler's answer>}

    {"operation": "run", "folder": "functions/plugin-runner", "archive_base64": "...",
     "blobs": {"0": "/path/of/a/file"},   # row -> file, handed to the plugin as an uploaded object is
     "events": [{...}]}                   # the runner's events without archive_url, result_url and blob_url
    -> {"replies": [<the handler's answers>]}

Where this Python cannot do it: ``{"problem": sentence}``.
"""

from __future__ import annotations

import ast
import base64
import http.server
import importlib.util
import json
import os
import secrets
import signal
import sys
import threading
from typing import Callable

PYTHON_MIN = (3, 11)


def main() -> int:
    """Answers the one request."""
    # What the handlers print is for the logs of a Lambda; the answer alone goes to standard output.
    answer_to = os.fdopen(os.dup(1), "w", encoding="ascii")
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.close(quiet)
    with answer_to:
        request = json.loads(sys.stdin.readline())
        json.dump(serve(request), answer_to)
    return 0


def end_with_caller() -> None:
    """From here on the program ends, as by sys.exit, as soon as nobody wants the answer any more.

    The main thread does that itself, wherever it is: what it has begun it takes away again, and begins nothing new.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    threading.Thread(target=_wait_for_caller, args=[threading.get_ident()], daemon=True).start()


def _wait_for_caller(main_thread: int) -> None:
    while os.read(0, 4096):
        continue
    signal.pthread_kill(main_thread, signal.SIGTERM)


def serve(request: dict) -> dict:
    """The answer to a request; see the head of this file."""
    if sys.version_info < PYTHON_MIN:
        found = ".".join(str(part) for part in sys.version_info[:3])
        return {"problem": f"it is Python {found}; plugins need {PYTHON_MIN[0]}.{PYTHON_MIN[1]} or later"}
    sys.path.insert(0, request["folder"])
    if request["operation"] == "validate":
        return validate(request)
    missing = [name for name in ("numpy", "pandas") if importlib.util.find_spec(name) is None]
    if missing:
        return {"problem": f"it lacks {' and '.join(missing)}, which every plugin may import"}
    return run(request)


# -- validate


def validate(request: dict) -> dict:
    """Checks the plugin under the name and version that its own manifest gives."""
    import handler

    end_with_caller()
    event = request["event"]
    sources = {file["path"]: file["content_base64"] for file in event["files"]}
    identity = {"name": None, "version": None, "version_span": None}
    if "manifest.py" in sources:
        identity = identify(base64.b64decode(sources["manifest.py"]))
    named = {
        "name": identity["name"] or request["fallback_name"],
        "version": identity["version"] or "1.0.0",
    }
    return {"identity": identity, "validation": handler.handler({**named, **event}, None)}


def identify(manifest: bytes) -> dict:
    """Name and version as the validator reads them, and where the version's literal stands, in bytes."""
    from _findings import Findings
    from _manifest import Allowed, read_manifest
    from _source import MANIFEST_BYTES_MAX, parse

    source = parse("manifest.py", manifest, Findings(), MANIFEST_BYTES_MAX)
    if source is None:
        return {"name": None, "version": None, "version_span": None}
    read = read_manifest(source, "", "", Allowed(), Findings())
    return {
        "name": read.get("feature_extractor_name"),
        "version": read.get("version"),
        "version_span": version_span(source.tree, manifest),
    }


def version_span(tree: ast.Module, manifest: bytes) -> list | None:
    """First and last byte of the literal assigned to ``version``, or None where it is no plain literal."""
    found = None
    for statement in tree.body:
        value = getattr(statement, "value", None)
        targets = getattr(statement, "targets", None) or [getattr(statement, "target", None)]
        names = {target.id for target in targets if isinstance(target, ast.Name)}
        if "version" in names:
            found = value
        elif "metadata" in names and isinstance(value, ast.Dict):
            for key, entry in zip(value.keys, value.values):
                if isinstance(key, ast.Constant) and key.value == "version":
                    found = entry
    if not isinstance(found, ast.Constant) or not isinstance(found.value, str):
        return None
    # The parser's columns count bytes of UTF-8, and leave out a byte order mark.
    mark = 3 if manifest.startswith(b"\xef\xbb\xbf") else 0
    starts = [mark]
    for line in manifest[mark:].splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    begin = starts[found.lineno - 1] + found.col_offset
    end = starts[(found.end_lineno or found.lineno) - 1] + (found.end_col_offset or 0)
    return [begin, end]


# -- run


def run(request: dict) -> dict:
    """Calls the runner with each event, and serves what it fetches on the loopback interface."""
    import handler

    # Made before anything can end it half-way.
    environment = handler._environment()
    try:
        end_with_caller()
        return {"replies": replies_of(handler.handler, request)}
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        environment.close()


def replies_of(handler: Callable[[dict, None], dict], request: dict) -> list[dict]:
    archive = base64.b64decode(request["archive_base64"])
    with Files() as files:
        archive_url = files.offer(archive)
        blob_urls = {row: files.offer_file(path) for row, path in request["blobs"].items()}
        replies = []
        for event in request["events"]:
            rows = [with_blob(row, blob_urls.get(str(row["row"]))) for row in event.get("rows", [])]
            whole = {
                **event,
                "plugin": {**event["plugin"], "archive_url": archive_url},
                "rows": rows,
                "result_url": files.room(),
            }
            reply = handler(whole, None)
            if reply.get("result_at_url") is True:
                reply = json.loads(files.taken(whole["result_url"]))
            replies.append(reply)
        return replies


def with_blob(row: dict, url: str | None) -> dict:
    """A row of a binary object: its ``data`` is the address of its bytes, as in a batch."""
    if url is None:
        return row
    return {**row, "data": url, "blob_url": url, "__s3_url": "s3://local/" + url.rsplit("/", 1)[-1]}


class Files:
    """Serves bytes and files by names that nobody can guess, and takes results, on a free port of loopback."""

    def __enter__(self) -> "Files":
        self._bytes: dict[str, bytes] = {}
        self._paths: dict[str, str] = {}
        self._rooms: dict[str, bytes | None] = {}
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = outer._read(self.path)
                self.send_response(404 if body is None else 200)
                self.send_header("content-length", str(len(body or b"")))
                self.end_headers()
                self.wfile.write(body or b"")

            def do_PUT(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                known = self.path in outer._rooms
                if known:
                    outer._rooms[self.path] = body
                self.send_response(200 if known else 404)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *args: object) -> None:
                return

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )
        self._thread.start()
        return self

    def __exit__(self, *fault: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def offer(self, content: bytes) -> str:
        """The address of bytes."""
        path = self._path()
        self._bytes[path] = content
        return self._url(path)

    def offer_file(self, file: str) -> str:
        """The address of a file, which is read when it is fetched."""
        path = self._path()
        self._paths[path] = file
        return self._url(path)

    def room(self) -> str:
        """An address that takes one result."""
        path = self._path()
        self._rooms[path] = None
        return self._url(path)

    def taken(self, url: str) -> bytes:
        """What was put to the address."""
        body = self._rooms["/" + url.rsplit("/", 1)[-1]]
        if body is None:
            raise ValueError("the runner announced a result and put none")
        return body

    def _read(self, path: str) -> bytes | None:
        if path in self._paths:
            with open(self._paths[path], "rb") as file:
                return file.read()
        return self._bytes.get(path)

    def _path(self) -> str:
        return "/" + secrets.token_urlsafe(24)

    def _url(self, path: str) -> str:
        return f"http://127.0.0.1:{self._server.server_port}{path}"


if __name__ == "__main__":
    sys.exit(main())
