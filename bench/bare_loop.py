"""The yardstick of batches: a plugin's steps called in a loop over frames, with nothing around them.

    python bare_loop.py PLUGIN_FOLDER < texts.json

Reads {"texts": [...], "counts": [...], "rows": frame size} and prints {"runs": [{"count", "wall_ms", "cpu_ms"}]},
one run for each count over that many of the texts, each with steps that were just built.
"""

import importlib
import json
import sys
import time
from pathlib import Path

import pandas as pd


def run(build_steps, texts, rows):
    steps = build_steps({}, None, None)["steps"]
    wall, cpu = time.perf_counter(), time.process_time()
    for start in range(0, len(texts), rows):
        frame = pd.DataFrame({"data": texts[start : start + rows]})
        for step in steps:
            frame = step(frame)
    return {
        "count": len(texts),
        "wall_ms": (time.perf_counter() - wall) * 1000,
        "cpu_ms": (time.process_time() - cpu) * 1000,
    }


def main():
    folder = Path(sys.argv[1])
    sys.path.insert(0, str(folder.parent))
    build_steps = importlib.import_module(f"{folder.name}.pipeline").build_steps
    asked = json.load(sys.stdin)
    texts, rows = asked["texts"], asked["rows"]
    # The first frame pays for what pandas and numpy set up once.
    run(build_steps, texts[:rows], rows)
    json.dump({"runs": [run(build_steps, texts[:count], rows) for count in asked["counts"]]}, sys.stdout)


main()
