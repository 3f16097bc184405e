"""The process model: what is hidden, what ends with the handler, what a lost zygote costs, what the wire lets
through."""

from __future__ import annotations

import array
import json
import math
import os
import select
import signal
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import PLUGINS, ROOT, by_row, load_function, read_plugin

MODULES = load_function(
    "plugin-runner", "_wire", "_reply", "_vectors", "_dataset", "_processes", "_limits", "_errors"
)
wire, reply_module = MODULES._wire, MODULES._reply

OUTLIVED = """
import json, os, sys
sys.path.insert(0, sys.argv[1])
import handler
answer = handler.handler(json.loads(sys.argv[2]), None)
plugins = handler._plugins
pids = [plugins.zygote._process.pid, *(w.pid for w in plugins._workers.values())]
sys.__stdout__.write(json.dumps({"answer": answer, "pids": pids, "folder": str(plugins._work.path)}) + "\\n")
sys.__stdout__.flush()
sys.stdin.read()
"""


def start_handler(runner, extra_environment):
    plugin = runner.publish(read_plugin(PLUGINS / "word_embed"), "word_embed_1_0_0", "word_embed/")
    event = {"operation": "check", "plugin": plugin, "features": [], "deadline_ms": 60_000}
    process = subprocess.Popen(
        [sys.executable, "-c", OUTLIVED, str(ROOT / "functions" / "plugin-runner"), json.dumps(event)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **extra_environment},
    )
    for line in process.stdout:
        said = json.loads(line)
        if "pids" in said:
            return process, said
    raise AssertionError("the handler ended before it answered")


@pytest.mark.parametrize("how", ["killed", "terminated", "finished"])
def test_zygote_worker_and_folder_go_with_the_handler(runner, tmp_path, how):
    tmp_path.chmod(0o755)
    process, said = start_handler(runner, {"TMPDIR": str(tmp_path)})
    assert said["answer"]["ok"] is True
    assert os.path.isdir(said["folder"]) and len(said["pids"]) == 2
    watched = [os.pidfd_open(pid) for pid in said["pids"]]
    try:
        if how == "finished":
            process.stdin.close()
        else:
            process.send_signal(signal.SIGKILL if how == "killed" else signal.SIGTERM)
        process.wait(20)
        for pidfd in watched:
            assert select.select([pidfd], [], [], 20)[0], "a process outlived the handler"
        assert not os.path.exists(said["folder"])
    finally:
        for pidfd in watched:
            os.close(pidfd)
        process.stdout.close()
        process.stdin.close()


def test_the_work_folder_lies_in_the_temporary_folder_that_was_set(runner, tmp_path, monkeypatch):
    # As root it would lie elsewhere if the workers' user could not pass; pytest's own folder is such a place.
    monkeypatch.setattr(MODULES._processes, "_passable", lambda folder: True)
    monkeypatch.setattr(MODULES._processes.tempfile, "tempdir", str(tmp_path))
    work = MODULES._processes.WorkFolder()
    assert work.path.parent == tmp_path
    work.remove()
    assert list(tmp_path.iterdir()) == []


def test_a_zygote_that_was_killed_is_replaced_at_the_next_call(runner):
    plugin = runner.publish(read_plugin(PLUGINS / "word_embed"), "word_embed_1_0_0")
    feature = ("word_embed_v1_embedding", 128)
    before = runner(plugin, ["some words"], feature)
    zygote = runner.modules.handler._plugins.zygote
    zygote._process.kill()
    zygote._process.wait()
    after = runner(plugin, ["some words"], feature)
    assert by_row(after, feature[0]) == by_row(before, feature[0])


def test_the_handler_hides_its_environment_before_it_loads_anything_else():
    source = (ROOT / "functions" / "plugin-runner" / "handler.py").read_text()
    first = [
        line
        for line in source.split('"""', 2)[2].splitlines()
        if line.strip() and not line.startswith(("#", "from __"))
    ]
    assert first[:2] == ["import _limits", "_limits.hide_from_children()"]


def test_the_environment_of_workers_is_made_of_a_short_list(monkeypatch):
    for name in list(os.environ):
        if name not in ("PATH", "PYTEST_CURRENT_TEST"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SESSION_TOKEN", "secret")
    names = set(MODULES._processes.clean_environment())
    assert names == {"PATH", "LANG", "HOME", "PYTHONHASHSEED"} | {
        f"{n}_NUM_THREADS" for n in ("OMP", "OPENBLAS", "MKL", "NUMEXPR", "VECLIB")
    }


def pipe_with(data: bytes):
    read_end, write_end = os.pipe()
    os.write(write_end, data)
    os.close(write_end)
    unused_read, unused_write = os.pipe()
    os.close(unused_read)
    return wire.Channel(unused_write, read_end, None)


def message(
    header: bytes,
    blocks: bytes = b"",
    magic: bytes = b"GRN2",
    claimed: int | None = None,
    checksum: int | None = None,
) -> bytes:
    length = len(blocks) if claimed is None else claimed
    checksum = zlib.crc32(header + blocks) if checksum is None else checksum
    return struct.pack("<4sIQI", magic, len(header), length, checksum) + header + blocks


BROKEN = {
    "wrong magic": (message(b'{"blocks": []}', magic=b"GRN1"), "WireError"),
    "too long": (message(b'{"blocks": []}', claimed=65 << 20), "WireError"),
    "not JSON": (message(b"{blocks"), "WireError"),
    "not UTF-8": (message(b'{"blocks": ["\xff"]}'), "WireError"),
    "nested too deeply": (message(b"[" * 20_000), "WireError"),
    "no lengths": (message(b"{}"), "WireError"),
    "lengths that are no numbers": (message(b'{"blocks": [true]}'), "WireError"),
    "negative length": (message(b'{"blocks": [-1, 1]}'), "WireError"),
    "lengths that do not add up": (message(b'{"blocks": [3]}', b"ab"), "WireError"),
    "a list": (message(b"[1]"), "WireError"),
    "a wrong checksum": (message(b'{"blocks": [3]}', b"abc", checksum=7), "WireError"),
    "not a number": (message(b'{"blocks": [], "x": NaN}'), "WireError"),
    "infinity": (message(b'{"blocks": [], "x": -Infinity}'), "WireError"),
    "a number beyond a float": (message(b'{"blocks": [], "x": [1e999]}'), "WireError"),
    "an integer of more than 64 bits": (message(b'{"blocks": [], "x": {"y": 10000000000000000000}}'), "WireError"),
    "an integer of thousands of digits": (message(b'{"blocks": [], "x": %s}' % (b"9" * 5000)), "WireError"),
    "half a character": (message(b'{"blocks": [], "x": "\\ud800"}'), "WireError"),
    "half a character in a key": (message(b'{"blocks": [], "\\udfff": 1}'), "WireError"),
    "cut off": (message(b'{"blocks": [3]}', b"abc")[:-1], "PeerGone"),
    "nothing": (b"", "PeerGone"),
}


@pytest.mark.parametrize(("data", "error"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_message_is_recognised(data, error):
    channel = pipe_with(data)
    with pytest.raises(getattr(wire, error)):
        channel.receive(time.monotonic() + 5)
    channel.close()


def test_what_only_looks_like_half_a_character_or_a_giant_number_passes():
    odd = {"x": ["\\ud800", "\U0001f600", "e100 1e999", "1" * 40, 2**62, 1e300]}
    channel = pipe_with(b"".join(wire.encode(odd)))
    assert channel.receive(time.monotonic() + 5)[0] == {**odd, "blocks": []}
    channel.close()


def test_a_message_arrives_as_it_was_sent():
    parts = wire.encode({"frame": [0, 2], "text": "größer ☃"}, [b"abc", b"", b"\0\1"])
    channel = pipe_with(b"".join(parts))
    header, blocks = channel.receive(time.monotonic() + 5)
    assert header == {"frame": [0, 2], "text": "größer ☃", "blocks": [3, 0, 2]} and blocks == [
        b"abc",
        b"",
        b"\0\1",
    ]
    channel.close()


def good_answer():
    return {
        "frame": [0, 2],
        "vectors": [["v", 2, 1]],
        "failures": [[8, "plugin_row_failed", "no"]],
        "warnings": [],
        "rows": [7, 7],
        "places": [[0, None]],
        "columns": {"a": [1, 2], "b": [None, 3]},
        "absent": {"b": [0]},
    }, [np.array([1, 2], "<f4").tobytes()]


FORGED = {
    "another frame": lambda h, b: h.update(frame=[2, 4]),
    "a row not asked for": lambda h, b: h.update(rows=[7, 9]),
    "a row that failed too": lambda h, b: h.update(rows=[7, 8]),
    "a row that is true": lambda h, b: h.update(rows=[7, True]),
    "a row that is a list": lambda h, b: h.update(rows=[7, [7]]),
    "more outputs of a row than allowed": lambda h, b: h.update(
        rows=[7] * 101, places=[[None] * 101], columns={}, absent={}
    ),
    "a vector that is not there": lambda h, b: h.update(places=[[1, None]]),
    "a negative place": lambda h, b: h.update(places=[[-1, None]]),
    "a place that is true": lambda h, b: h.update(places=[[True, None]]),
    "a place that is a string": lambda h, b: h.update(places=[["0", None]]),
    "too few places": lambda h, b: h.update(places=[[0]]),
    "places of no feature": lambda h, b: h.update(places=[]),
    "columns that are a list": lambda h, b: h.update(columns=[]),
    "a column too short": lambda h, b: h.update(columns={"a": [1]}),
    "a column that is no list": lambda h, b: h.update(columns={"a": "xy"}),
    "a block too short": lambda h, b: b.__setitem__(0, b[0][:-1]),
    "a block too many": lambda h, b: b.append(b""),
    "another feature": lambda h, b: h.update(vectors=[["w", 2, 1]]),
    "other dimensions": lambda h, b: h.update(vectors=[["v", 1, 2]]),
    "NaN": lambda h, b: b.__setitem__(0, np.array([1, np.nan], "<f4").tobytes()),
    "infinity": lambda h, b: b.__setitem__(0, np.array([-np.inf, 1], "<f4").tobytes()),
    "a code not in the table": lambda h, b: h["failures"][0].__setitem__(1, "all_good"),
    "a code that is a list": lambda h, b: h["failures"][0].__setitem__(1, ["x"]),
    "a message that is no text": lambda h, b: h["failures"][0].__setitem__(2, 5),
    "a failure twice": lambda h, b: h["failures"].append([8, "plugin_row_failed", "no"]),
    "no rows": lambda h, b: h.pop("rows"),
    "an error of another form": lambda h, b: h.update(error="bad"),
}


def check(header, blocks):
    return reply_module.check_frame(header, blocks, (0, 2), [7, 8], [("v", 2)])


def test_a_good_answer_is_taken_over():
    checked = check(*good_answer())
    assert (checked.rows, checked.places) == ([7, 7], [[0, None]])
    assert checked.columns == [{"a": 1}, {"a": 2, "b": 3}]
    assert checked.failures == [(8, "plugin_row_failed", "no", None)]


@pytest.mark.parametrize("forge", FORGED.values(), ids=FORGED.keys())
def test_a_forged_answer_is_refused(forge):
    header, blocks = good_answer()
    forge(header, blocks)
    with pytest.raises(reply_module.WireError):
        check(header, blocks)


def test_finite_blocks_are_told_from_others_for_every_pattern_of_the_last_two_bytes():
    for high in range(65536):
        block = b"\0\0" + struct.pack("<H", high)
        (number,) = array.array("f", block)
        assert reply_module.all_finite(block) == math.isfinite(number)


def test_packing_vectors_agrees_with_looking_at_each_cell_by_itself():
    chance = np.random.default_rng(5)
    kinds = [
        lambda: None,
        lambda: float("nan"),
        lambda: pd.NA,
        lambda: [1.0, 2.0, 3.0],
        lambda: [1, 2, 3],
        lambda: (1.0, 2, 3),
        lambda: np.array([1.0, 2.0, 3.0]),
        lambda: np.array([1, 2, 3], np.float16),
        lambda: [1.0, 2.0],
        lambda: [1.0, float("inf"), 2.0],
        lambda: ["1", "2", "3"],
        lambda: "abc",
        lambda: [10**400, 1, 2],
        lambda: [[1.0], [2.0], [3.0]],
        lambda: [True, 1.0, 2],
        lambda: np.array([1 + 1j, 2, 3]),
        lambda: 7,
        lambda: {},
    ]
    for _ in range(300):
        few = [kinds[i] for i in chance.integers(0, len(kinds), chance.integers(1, 4))]
        cells = [few[i]() for i in chance.integers(0, len(few), 6)]
        places, matrix, faults = MODULES._vectors.pack(cells, 3)
        for index, cell in enumerate(cells):
            alone_places, alone_matrix, alone_faults = MODULES._vectors.pack([cell], 3)
            assert faults.get(index) == alone_faults.get(0)
            assert (places[index] is None) == (alone_places[0] is None)
            if places[index] is not None:
                np.testing.assert_array_equal(matrix[places[index]], alone_matrix[0])
        assert matrix.dtype == np.float32 and len(matrix) == sum(p is not None for p in places)


def test_a_folder_that_another_user_cannot_enter_is_recognised():
    other = os.getuid() + 1
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        inner = Path(name, "a", "b")
        inner.mkdir(parents=True)
        for mode, expected in ((0o755, True), (0o700, False), (0o711, True)):
            Path(name).chmod(0o755)
            inner.parent.chmod(mode)
            assert MODULES._limits.reachable(str(inner), other) is expected
        inner.chmod(0o711)
        assert not MODULES._limits.reachable(str(inner), other)


def test_the_handler_itself_loads_neither_numpy_nor_pandas():
    script = "import sys; sys.path.insert(0, sys.argv[1]); import handler; print([m for m in ('numpy', 'pandas') if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", script, str(ROOT / "functions" / "plugin-runner")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"


def test_a_dataset_answers_to_ray_and_to_pandas():
    Dataset = MODULES._dataset.Dataset
    ds = Dataset(
        pd.DataFrame(
            {"a": pd.Series([1, 2, 3], dtype=object), "b": pd.Series(["x", None, "z"], dtype=object)}
        )
    )
    assert ds.count() == 3 and ds.count(axis=0)["b"] == 2
    assert ds.filter(lambda row: row["a"] > 1).to_pandas()["a"].tolist() == [2, 3]
    assert list(ds.filter(items=["b"]).columns) == ["b"]
    assert ds.flat_map(lambda row: [row] * row["a"]).count() == 6
    assert ds.flat_map(lambda row: []).count() == 0
    assert ds.map(lambda row: {"c": row["b"]}).to_pandas()["c"].tolist() == ["x", None, "z"]
    assert ds.map(str, na_action="ignore").loc[0, "a"] == "1"
    sizes = []
    mapped = ds.map_batches(lambda b: sizes.append(len(b)) or b, batch_size=2)
    assert sizes == [2, 1] and mapped.count() == 3 and isinstance(mapped, Dataset)
    with pytest.raises(TypeError, match="returned int"):
        ds.map_batches(lambda b: 5)


def test_messages_are_cut_to_a_kilobyte_of_sound_text():
    cut = MODULES._errors.cut
    for text in ("☃" * 1000, "a" * 5000, "x\ud800y", "short"):
        made = cut(text)
        assert len(made.encode("utf-8")) <= 1000
    assert cut("short") == "short"
