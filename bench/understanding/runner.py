"""Measures the plugin runner against a bare loop over the same plugin, and the first call of a new plugin.

    python bench/understanding/runner.py             # --quick: fewer rounds, to try the program itself

Reads nothing and prints one JSON object::

    {"runner_vs_bare": ratio of CPU, 1,000 rows of the n-gram plugin in a warm call against its steps in a loop,
     "plugin_first_call_cpu_ms": CPU of all processes for the first call of a plugin that is new to a warm environment,
     "details": medians and quartiles for each plugin and number of rows, wall time beside CPU}

The runner's handler runs in this process, as in a Lambda; its parent of workers and the workers are processes
of their own, and their CPU counts. The loop gets frames of the same size with the same columns. Both take turns,
so that whatever else the machine does falls on both alike.
"""

from __future__ import annotations

import gc
import hashlib
import importlib
import io
import json
import os
import random
import statistics
import sys
import tempfile
import threading
import time
import zipfile
from contextlib import redirect_stdout
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PLUGINS = {
    "ngram_embed": (ROOT / "examples" / "ngram_embed", 256),
    "word_embed": (ROOT / "test" / "fixtures" / "plugins" / "word_embed", 64),
}
"""Folder, and rows of a frame: the batch size of the plugin's manifest, or the default."""

DIMS = 128
COUNTS = (500, 1000)
ROUNDS = 15
FIRST_CALLS = 12
WORDS_OF_A_TEXT = (6, 18)
LEXICON = 3000

# The kernels that numpy picks by the number of threads would differ from those of the workers.
for _name in ("OMP", "OPENBLAS", "MKL"):
    os.environ.setdefault(f"{_name}_NUM_THREADS", "1")
os.environ["TMPDIR"] = tempfile.gettempdir()

sys.path.insert(0, str(ROOT / "functions" / "plugin-runner"))
import handler  # noqa: E402


class Archives:
    """Serves archives on the loopback interface, as the store of a deployment does."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        files = self.files

        class Answers(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = files[self.path]
                self.send_response(200)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def publish(self, folder: Path, more: dict[str, str]) -> dict:
        """Packs a plugin with further files, which make it one that no environment has seen."""
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in sorted(folder.glob("*.py")):
                archive.writestr(f"{folder.name}/{path.name}", path.read_text())
            for name, text in more.items():
                archive.writestr(f"{folder.name}/{name}", text)
        data = buffer.getvalue()
        sha256 = hashlib.sha256(data).hexdigest()
        self.files[f"/{sha256}"] = data
        plugin_id = f"{folder.name}_1_0_0"
        return {
            "plugin_id": plugin_id,
            "sha256": sha256,
            "archive_url": f"http://127.0.0.1:{self.server.server_port}/{sha256}",
            "root": f"{folder.name}/",
            "extractor_id": plugin_id,
        }


def texts_of(count: int) -> list[str]:
    """Sentences of made-up words whose frequencies fall as in a language; every run makes the same."""
    chance = random.Random(7)
    syllables = [a + b for a in "bdfgklmnprstvz" for b in ("a", "e", "i", "o", "u", "an", "er", "is")]
    lexicon = ["".join(chance.choices(syllables, k=chance.randint(1, 4))) for _ in range(LEXICON)]
    weights = [1 / (rank + 2) for rank in range(LEXICON)]
    return [" ".join(chance.choices(lexicon, weights, k=chance.randint(*WORDS_OF_A_TEXT))) for _ in range(count)]


def rows_of(texts: list[str]) -> list[dict]:
    """Rows as the warehouse sends them."""
    return [
        {
            "row": number,
            "data": text,
            "document_id": f"doc_{number:024d}",
            "object_id": f"obj_{number:024d}",
            "blob_id": f"blb_{number:024d}",
            "blob_property": "text",
            "blob_type": "text",
            "collection_id": "col_000000000000000000000001",
            "feature_extractor_id": "extractor_1_0_0",
            "mime_type": "text/plain",
            "size_bytes": len(text),
        }
        for number, text in enumerate(texts)
    ]


def event_of(plugin: dict, name: str, texts: list[str], rows_of_a_frame: int) -> dict:
    """The event of one batch call."""
    return {
        "operation": "run",
        "plugin": plugin,
        "features": [{"name": f"{name}_v1_embedding", "dims": DIMS}],
        "parameters": {},
        "batch_size": rows_of_a_frame,
        "rows": rows_of(texts),
        "deadline_ms": 60_000,
    }


def call(event: dict) -> dict:
    """One call of the handler; its line of log is dropped."""
    with redirect_stdout(io.StringIO()):
        reply = handler.handler(event, None)
    if "error" in reply or reply["failures"]:
        raise RuntimeError(f"the runner failed: {json.dumps(reply.get('error') or reply['failures'])[:500]}")
    return reply


def cpu_seconds_of(pid: int) -> float:
    """Time on a processor of a process with one thread, to the nanosecond where the kernel tells."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def cpu_seconds() -> float:
    """CPU of this thread, of the workers' parent and of the workers that are alive."""
    plugins = handler._environment()
    pids = [plugins.zygote._process.pid, *(worker.pid for worker in plugins._workers.values())]
    return time.thread_time() + sum(map(cpu_seconds_of, pids))


def frames_of(rows: list[dict], rows_of_a_frame: int) -> list:
    """The same rows as frames, for a caller without a runner."""
    import pandas as pd

    columns = [name for name in rows[0] if name != "row"]
    return [
        pd.DataFrame({name: [row[name] for row in part] for name in columns}, dtype=object)
        for part in (rows[i : i + rows_of_a_frame] for i in range(0, len(rows), rows_of_a_frame))
    ]


def bare(steps: list, frames: list) -> None:
    """The plugin's steps over frames, with nothing around them."""
    for frame in frames:
        for step in steps:
            frame = step(frame)


def clocked(cpu: object, action: object) -> tuple[float, float]:
    """CPU and wall time of an action in ms."""
    gc.collect()
    began_cpu, began = cpu(), time.perf_counter()
    action()
    return (cpu() - began_cpu) * 1000, (time.perf_counter() - began) * 1000


def compare(archives: Archives, name: str, count: int) -> dict:
    """Warm calls and bare loops by turns; both have met the texts' words before."""
    folder, rows_of_a_frame = PLUGINS[name]
    texts = texts_of(count)
    event = event_of(archives.publish(folder, {}), name, texts, rows_of_a_frame)
    sys.path.insert(0, str(folder.parent))
    steps = importlib.import_module(f"{folder.name}.pipeline").build_steps()["steps"]
    sys.path.remove(str(folder.parent))
    frames = frames_of(event["rows"], rows_of_a_frame)
    rivals = {"runner": (cpu_seconds, partial(call, event)), "bare": (time.thread_time, partial(bare, steps, frames))}
    times: dict[str, list[tuple[float, float]]] = {rival: [] for rival in rivals}
    for turn in range(ROUNDS + 1):
        for rival, (cpu, action) in rivals.items():
            taken = clocked(cpu, action)
            if turn > 0:
                times[rival].append(taken)
    runs = {
        f"{rival}_{what}_ms": [pair[index] for pair in pairs]
        for rival, pairs in times.items()
        for index, what in ((0, "cpu"), (1, "wall"))
    }
    medians = {key: statistics.median(values) for key, values in runs.items()}
    quartiles = {key: [round(q, 2) for q in statistics.quantiles(values, n=4)] for key, values in runs.items()}
    return {
        "plugin": name,
        "rows": count,
        "rows_of_a_frame": rows_of_a_frame,
        "cpu_ratio": round(medians["runner_cpu_ms"] / medians["bare_cpu_ms"], 3),
        "wall_ratio": round(medians["runner_wall_ms"] / medians["bare_wall_ms"], 3),
        **{key: round(value, 2) for key, value in medians.items()},
        "quartiles": quartiles,
    }


def first_calls(archives: Archives, name: str) -> dict:
    """First calls of plugins that the environment has not seen, each with one row."""
    folder, rows_of_a_frame = PLUGINS[name]
    cpus, walls = [], []
    for number in range(FIRST_CALLS + 1):
        plugin = archives.publish(folder, {"number.txt": str(number)})
        cpu, wall = clocked(cpu_seconds_with_new_workers(), partial(call, event_of(plugin, name, ["first"], 1)))
        if number > 0:
            cpus.append(cpu)
            walls.append(wall)
    return {
        "plugin": name,
        "cpu_ms": round(statistics.median(cpus), 2),
        "wall_ms": round(statistics.median(walls), 2),
        "quartiles_cpu_ms": [round(q, 2) for q in statistics.quantiles(cpus, n=4)],
    }


def cpu_seconds_with_new_workers():
    """As cpu_seconds, of the workers that were there before only what they had used: they may be ended to make
    room."""
    plugins = handler._environment()
    before = {worker.pid: cpu_seconds_of(worker.pid) for worker in plugins._workers.values()}

    def cpu() -> float:
        ended = sum(
            used for pid, used in before.items() if pid not in {w.pid for w in plugins._workers.values()}
        )
        return cpu_seconds() + ended

    return cpu


def main() -> None:
    """Prints the figures."""
    global ROUNDS, FIRST_CALLS
    if "--quick" in sys.argv[1:]:
        ROUNDS, FIRST_CALLS = 5, 4
    archives = Archives()
    environment = handler._environment()
    try:
        # Starts the parent of the workers, which a new environment does before its first call.
        call(event_of(archives.publish(PLUGINS["word_embed"][0], {}), "word_embed", ["first"], 1))
        comparisons = [compare(archives, name, count) for name in PLUGINS for count in COUNTS]
        firsts = [first_calls(archives, name) for name in PLUGINS]
        main_one = next(c for c in comparisons if c["plugin"] == "ngram_embed" and c["rows"] == COUNTS[-1])
        print(
            json.dumps(
                {
                    "runner_vs_bare": main_one["cpu_ratio"],
                    "plugin_first_call_cpu_ms": max(first["cpu_ms"] for first in firsts),
                    "details": {"comparisons": comparisons, "first_calls": firsts},
                }
            )
        )
    finally:
        environment.close()
        archives.server.shutdown()


main()
