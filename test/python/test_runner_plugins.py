"""Whole plugins through the runner: the tutorial's, our own of the same shape, and what a call may ask
for."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from conftest import PLUGINS, ROOT, by_row, load_function, read_plugin, row, vectors_of

TUTORIAL = ROOT.parent / "shared" / "reference" / "text_embed"
TEXTS = [
    "Quantum computers err",
    "  ",
    None,
    "plain words",
    "größer ☃ 漢字",
    "nan",
    "plain words",
    "x" * 5000,
]

STEP = """
def build_steps(**kwargs):
    def step(batch):
        batch["v"] = [[float(len(str(t))), 1.0] for t in batch["data"]]
        return batch
    return {"steps": [step]}
"""


def direct(folder, feature, texts):
    """The plugin's own step, called in this process on one frame."""
    sys.path.insert(0, str(folder.parent))
    try:
        module = importlib.import_module(f"{folder.name}.pipeline")
    finally:
        sys.path.remove(str(folder.parent))
        for name in [n for n in sys.modules if n.split(".")[0] == folder.name]:
            del sys.modules[name]
    (step,) = module.build_steps()["steps"]
    return step(pd.DataFrame({"data": pd.Series(texts, dtype=object)}))[feature].tolist()


def assert_same_as_direct(runner, folder, feature, dims):
    plugin = runner.publish(read_plugin(folder), f"{folder.name}_1_0_0", f"{folder.name}/")
    reply = runner(plugin, TEXTS, (feature, dims), batch_size=3)
    assert reply["failures"] == []
    got = by_row(reply, feature)
    for number, expected in enumerate(direct(folder, feature, TEXTS)):
        (vector,) = got[number]
        assert (vector is None) == (expected is None)
        if expected is not None:
            np.testing.assert_array_equal(np.array(vector, np.float32), np.array(expected, np.float32))
    query = runner(plugin, ["plain words"], (feature, dims), operation="embed")
    assert by_row(query, feature)[0] == got[3]


def test_the_tutorial_plugin_runs_unmodified_and_gives_the_vectors_of_a_direct_call(runner):
    if not TUTORIAL.is_dir():
        pytest.skip(f"the tutorial's plugin is not at {TUTORIAL}")
    assert_same_as_direct(runner, TUTORIAL, "text_embed_v1_embedding", 128)


@pytest.mark.parametrize(
    ("folder", "feature"),
    [
        (PLUGINS / "word_embed", "word_embed_v1_embedding"),
        (ROOT / "examples" / "text_embed", "text_embed_v1_embedding"),
    ],
    ids=["the fixture of the tutorial's shape", "the example"],
)
def test_a_plugin_of_the_tutorials_shape_gives_the_vectors_of_a_direct_call(runner, folder, feature):
    assert_same_as_direct(runner, folder, feature, 128)


def test_check_loads_the_plugin_builds_its_steps_and_tells_which_protections_took(runner):
    reply = runner(runner.publish({"pipeline.py": STEP}, "p_1_0_0"), [], operation="check")
    assert reply["ok"] is True and reply["load_ms"] >= 0
    taken = reply["isolation"]
    assert all(
        taken[k]
        for k in ("session", "memory", "file_size", "open_files", "core", "hidden", "dies_with_parent")
    )


def test_check_answers_with_the_failure_of_a_plugin_that_does_not_load(runner):
    reply = runner(
        runner.publish({"pipeline.py": "import nothing_like_it"}, "p_1_0_0"), [], operation="check"
    )
    assert reply["ok"] is False and reply["error"]["code"] == "plugin_load_failed"


def test_rows_may_come_from_an_address(runner, server):
    plugin = runner.publish({"pipeline.py": STEP}, "p_1_0_0")
    server.files["/rows.json"] = json.dumps([row(4, "abc"), row(2, "a")]).encode()
    reply = runner(plugin, [], rows=None, rows_url=server.url("/rows.json"))
    assert by_row(reply, "v") == {4: [[3.0, 1.0]], 2: [[1.0, 1.0]]}
    missing = runner(plugin, [], rows=None, rows_url=server.url("/none.json"))
    assert missing["error"] == {
        "code": "rows_download_failed",
        "message": "rows_url: status 404",
        "retryable": True,
    }


def test_a_result_above_4_mb_goes_to_the_result_url_and_is_the_same_result(runner, server):
    wide = STEP.replace("[float(len(str(t))), 1.0]", "[float(len(str(t)))] * 4096")
    plugin = runner.publish({"pipeline.py": wide}, "wide_1_0_0")
    texts = ["a" * n for n in range(200)]
    reply = runner(plugin, texts, ("v", 4096), result_url=server.url("/result"))
    assert {k: reply[k] for k in ("result_at_url", "outputs", "failures", "dropped")} == {
        "result_at_url": True,
        "outputs": 200,
        "failures": 0,
        "dropped": 0,
    }
    stored = json.loads(server.uploads["/result"])
    assert vectors_of(stored, "v")[:, 4095].tolist() == [float(n) for n in range(200)]
    server.statuses["/refused"] = [403]
    refused = runner(plugin, texts, ("v", 4096), result_url=server.url("/refused"))
    assert refused["error"]["code"] == "result_upload_failed" and refused["error"]["retryable"] is True


def test_a_result_that_lambda_cannot_return_is_an_error_when_there_is_no_result_url(runner):
    wide = STEP.replace("[float(len(str(t))), 1.0]", "[float(len(str(t)))] * 4096")
    reply = runner(runner.publish({"pipeline.py": wide}, "wide_1_0_0"), ["a"] * 300, ("v", 4096))
    assert reply["error"]["code"] == "result_too_large"


def test_a_binary_blob_is_fetched_first_and_a_missing_one_fails_its_own_row_only(runner, server):
    reads = """
    import pathlib
    def build_steps(**kwargs):
        def step(batch):
            batch["v"] = [[float(len(pathlib.Path(p).read_bytes())), 1.0] for p in batch["local_path"]]
            batch["suffix"] = [pathlib.Path(p).suffix for p in batch["local_path"]]
            return batch
        return {"steps": [step]}
    """.replace("\n    ", "\n")
    server.files["/blob"] = b"\x89PNG" + bytes(96)
    rows = [
        row(0, "https://x/a", blob_url=server.url("/blob"), mime_type="image/png"),
        row(1, "https://x/b", blob_url=server.url("/no-such-blob")),
        row(2, "https://x/c", blob_url=server.url("/blob"), mime_type="image/png"),
    ]
    reply = runner(runner.publish({"pipeline.py": reads}, "p_1_0_0"), rows)
    assert by_row(reply, "v") == {0: [[100.0, 1.0]], 2: [[100.0, 1.0]]}
    assert reply["outputs"][0]["columns"] == {"suffix": ".png"}
    assert [(f["row"], f["code"], f["retryable"]) for f in reply["failures"]] == [
        (1, "blob_download_failed", True)
    ]
    assert not list(runner.modules.handler._plugins._work.path.glob("blobs/*"))


def test_the_archive_is_fetched_once_and_a_worker_serves_call_after_call(runner, server):
    counting = """
    calls = []
    def build_steps(**kwargs):
        def step(batch):
            calls.append(1)
            batch["v"] = [[float(len(calls)), 1.0]] * len(batch)
            return batch
        return {"steps": [step]}
    """.replace("\n    ", "\n")
    plugin = runner.publish({"pipeline.py": counting}, "counting_1_0_0")
    assert [by_row(runner(plugin, ["a"]), "v")[0][0][0] for _ in range(3)] == [1.0, 2.0, 3.0]
    assert sum(plugin["sha256"] in path for path in server.requests) == 1


def test_a_plugin_that_was_pushed_out_by_others_still_answers(runner):
    plugins = [runner.publish({"pipeline.py": STEP + f"\n# {n}\n"}, f"p{n}_1_0_0") for n in range(5)]
    for plugin in [*plugins, *plugins[:2]]:
        assert by_row(runner(plugin, ["abc"]), "v") == {0: [[3.0, 1.0]]}


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"sha256": "0" * 64}, "archive_hash_mismatch"),
        ({"sha256": "ab"}, "bad_request"),
        ({"root": "../x"}, "bad_request"),
        ({"root": "other/"}, "plugin_load_failed"),
    ],
)
def test_a_wrong_archive_is_refused_before_anything_of_it_runs(runner, change, code):
    plugin = {**runner.publish({"pipeline.py": STEP + "\n# wrong\n"}, "p_1_0_0"), **change}
    assert runner(plugin, ["a"])["error"]["code"] == code


def test_an_archive_download_is_tried_again_after_a_server_error_and_not_redirected(runner, server):
    plugin = runner.publish({"pipeline.py": STEP + "\n# flaky\n"}, "p_1_0_0")
    path = f"/{plugin['sha256']}.zip"
    server.statuses[path] = [503, 500]
    assert by_row(runner(plugin, ["abc"]), "v") == {0: [[3.0, 1.0]]}
    other = runner.publish({"pipeline.py": STEP + "\n# moved\n"}, "p_1_0_0")
    server.statuses[f"/{other['sha256']}.zip"] = [302]
    assert runner(other, ["a"])["error"] == {
        "code": "archive_download_failed",
        "message": "the archive could not be downloaded: status 302",
        "retryable": True,
    }
    assert "/elsewhere" not in server.requests


@pytest.mark.parametrize(
    "change",
    [
        {"operation": "walk"},
        {"rows": [{"data": "x"}]},
        {"rows": [row(1, "a"), row(1, "b")]},
        {"deadline_ms": 0},
        {"batch_size": 0},
        {"features": [{"name": "v"}]},
        {"features": [{"name": "v", "dims": 5000}]},
        {"parameters": [1]},
        {"plugin": {}},
        {"rows": None},
        {"features": [{"name": "v", "dims": 2}, {"name": "v", "dims": 2}]},
    ],
    ids=json.dumps,
)
def test_an_event_that_is_not_understood_is_answered_with_bad_request(runner, change):
    plugin = runner.publish({"pipeline.py": STEP}, "p_1_0_0")
    error = runner(plugin, ["a"], **change)["error"]
    assert error["code"] == "bad_request" and error["retryable"] is False


def test_the_functions_remaining_time_bounds_the_call(runner):
    sleeper = STEP.replace("def step(batch):", "def step(batch):\n        while True: pass")
    plugin = runner.publish({"pipeline.py": sleeper}, "sleeper_1_0_0")

    class Context:
        memory_limit_in_mb = 1024

        def get_remaining_time_in_millis(self):
            return 1_500

    event = {
        "operation": "embed",
        "plugin": plugin,
        "features": [{"name": "v", "dims": 2}],
        "rows": [row(0, "x")],
        "deadline_ms": 60_000,
    }
    reply = runner.modules.handler.handler(event, Context())
    assert [(f["code"], f["retryable"]) for f in reply["failures"]] == [("plugin_timeout", True)]


def test_realtime_embeds_a_query_with_the_parameters_of_the_call(runner):
    folder = PLUGINS / "word_realtime"
    plugin = runner.publish(read_plugin(folder), "word_realtime_1_0_0", "word_realtime/")
    feature = ("word_realtime_v1_embedding", 8)
    batch = runner(plugin, ["one two two"], feature)
    query = runner(plugin, ["one two two"], feature, operation="embed", realtime=True)
    doubled = runner(
        plugin, ["one two two"], feature, operation="embed", realtime=True, parameters={"scale": 2}
    )
    assert by_row(query, feature[0]) == by_row(batch, feature[0])
    np.testing.assert_array_equal(vectors_of(doubled, feature[0]), 2 * vectors_of(batch, feature[0]))


def test_the_printed_table_of_codes_is_the_table(runner):
    table = load_function("plugin-runner", "_errors")._errors.CODES
    script = ROOT / "functions" / "plugin-runner" / "_errors.py"
    printed = json.loads(
        subprocess.run([sys.executable, str(script)], capture_output=True, check=True).stdout
    )
    assert printed == {code: {"retryable": r, "title": t} for code, (r, t) in table.items()}
