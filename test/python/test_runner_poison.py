"""Plugins that misbehave on command: what happens to the row that does it, and that the other rows keep their
vectors."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest
from conftest import PLUGINS, by_row, read_plugin, row

FEATURE = ("poison_v1_embedding", 4)
AS_ROOT = os.getuid() == 0
DENIED = "PermissionError"


@pytest.fixture(scope="module")
def poison(runner):
    return runner.publish(read_plugin(PLUGINS / "poison"), "poison_1_0_0", "poison/")


def vector(text):
    return [[float(len(text)), 1.0, 2.0, 3.0]]


def assert_only_that_row_failed(runner, plugin, deed, code, message, **more):
    """The deed stands in the third of five rows of one frame; afterwards the plugin works as before."""
    texts = ["one", "three", deed, "", "seven"]
    reply = runner(plugin, texts, FEATURE, **more)
    assert "error" not in reply, reply
    assert [(f["row"], f["code"]) for f in reply["failures"]] == [(2, code)], reply["failures"]
    assert message in reply["failures"][0]["message"]
    assert by_row(reply, FEATURE[0]) == {n: vector(t) for n, t in enumerate(texts) if n != 2}
    assert by_row(runner(plugin, ["again"], FEATURE), FEATURE[0]) == {0: vector("again")}
    return reply


# Without root and on a kernel without landlock, it kills the zygote and itself with it.
DIED_WITH_PARENT = ("plugin_died", "its process and the process that had started it ended")
DEEDS = {
    "raise_error": ("plugin_row_failed", "ValueError: this row is no good (pipeline.py:18 in raise_error)"),
    "raise_odd_error": ("plugin_row_failed", "its text cannot be made: RuntimeError"),
    "take_memory": ("plugin_memory", "MemoryError"),
    "recurse": ("plugin_row_failed", "RecursionError"),
    "leave": ("plugin_row_failed", "SystemExit: leaving"),
    "end_process": ("plugin_died", "ended with exit code 7"),
    "crash": ("plugin_died", "killed by SIGSEGV"),
    "kill_self": ("plugin_died", "killed by SIGKILL"),
    "kill_parent": ("plugin_row_failed", DENIED),
    "read_parent_environment": ("plugin_row_failed", DENIED),
    "read_parent_memory": ("plugin_row_failed", DENIED),
    "read_zygote_environment": ("plugin_row_failed", DENIED),
    "write_huge_file": ("plugin_row_failed", "File too large"),
    "open_many_files": ("plugin_row_failed", "Too many open files"),
    "fork_bomb": ("plugin_row_failed", "BlockingIOError"),
    "garbage_answer": ("plugin_protocol_error", "right bytes"),
    "giant_answer": ("plugin_protocol_error", "at most"),
    "close_everything": ("plugin_died", "ended with exit code"),
}


@pytest.mark.parametrize(("deed", "expected"), DEEDS.items(), ids=DEEDS.keys())
def test_a_bad_row_fails_alone_with_its_own_error(runner, poison, deed, expected):
    isolation = runner(poison, [], FEATURE, operation="check")["isolation"]
    if deed == "kill_parent" and not AS_ROOT and not isolation.get("landlock_signals"):
        expected = DIED_WITH_PARENT
    assert_only_that_row_failed(runner, poison, deed, *expected)


def test_the_functions_memory_sets_the_limit_of_the_worker(runner):
    files = {
        # Memory that is asked for and not touched: the limit is on addresses, and the machine stays unburdened.
        "pipeline.py": "import numpy as np\ndef build_steps(**k):\n    def step(batch):\n"
        "        made = np.empty(int(batch['data'][0]) << 20, np.uint8)\n"
        "        batch['v'] = [[1.0, float(len(made) >> 20)]]\n        return batch\n"
        "    return {'steps': [step]}\n"
    }
    for memory_mb, megabytes, fits in ((1024, 400, True), (1024, 900, False), (3008, 900, True)):
        plugin = runner.publish({**files, f"{memory_mb}.txt": ""}, "p_1_0_0")
        context = SimpleNamespace(memory_limit_in_mb=memory_mb, get_remaining_time_in_millis=lambda: 60_000)
        event = {
            "operation": "run",
            "plugin": plugin,
            "features": [{"name": "v", "dims": 2}],
            "rows": [row(0, str(megabytes))],
        }
        reply = runner.modules.handler.handler(event, context)
        assert [f["code"] for f in reply["failures"]] == ([] if fits else ["plugin_memory"])


@pytest.mark.skipif(
    not AS_ROOT, reason="only as root do workers run as another user, who cannot signal the handler"
)
def test_the_handler_cannot_be_killed_by_a_worker_of_another_user(runner, poison):
    assert_only_that_row_failed(runner, poison, "kill_handler", "plugin_row_failed", DENIED)


def test_an_endless_loop_is_found_by_halving_within_the_time_of_the_call(runner, poison):
    reply = assert_only_that_row_failed(
        runner, poison, "loop", "plugin_timeout", "not finished", deadline_ms=6_000
    )
    assert reply["failures"][0]["retryable"] is True


def test_a_query_that_hangs_or_dies_fails_and_is_not_returned_empty(runner, poison):
    died = runner(poison, ["end_process"], FEATURE, operation="embed")
    hung = runner(poison, ["loop"], FEATURE, operation="embed", deadline_ms=500)
    assert [r["failures"][0]["code"] for r in (died, hung)] == ["plugin_died", "plugin_timeout"]
    assert died["outputs"] == hung["outputs"] == []


ODD = {
    "short": ("vector_wrong_shape", "poison_v1_embedding: expected 4 numbers, got shape (2,)"),
    "long": ("vector_wrong_shape", "got shape (5,)"),
    "nested": ("vector_wrong_shape", "got shape (1, 4)"),
    "ragged": ("vector_wrong_shape", "unequal length"),
    "nan": ("vector_not_finite", "index 1 is nan"),
    "infinite": ("vector_not_finite", "index 1 is inf"),
    "too_large_for_float32": ("vector_not_finite", "index 0 is inf"),
    "text": ("vector_not_numeric", "got text"),
    "word": ("vector_not_numeric", "got str"),
    "holes": ("vector_not_numeric", "NoneType"),
    "number": ("vector_wrong_shape", "got shape ()"),
    "dict": ("vector_not_numeric", "got dict"),
    "complex": ("vector_not_numeric", "complex"),
}


@pytest.mark.parametrize(("odd", "expected"), ODD.items(), ids=ODD.keys())
def test_a_bad_vector_fails_its_row_and_says_what_was_expected(runner, poison, odd, expected):
    assert_only_that_row_failed(runner, poison, odd, *expected)


@pytest.mark.parametrize(("deed", "got"), [("step_returns_int", "int"), ("step_returns_none", "NoneType")])
def test_a_step_that_returns_no_table_fails_the_rows_that_make_it_do_so(runner, poison, deed, got):
    assert_only_that_row_failed(runner, poison, deed, "step_wrong_return", f"step 0 (Step) returned {got}")


def test_several_bad_rows_of_every_kind_are_all_found(runner, poison):
    texts = [f"text {n}" for n in range(200)]
    bad = {3: "raise_error", 70: "end_process", 71: "short", 130: "take_memory", 199: "crash"}
    for number, deed in bad.items():
        texts[number] = deed
    reply = runner(poison, texts, FEATURE)
    assert [(f["row"], f["code"]) for f in reply["failures"]] == [
        (3, "plugin_row_failed"),
        (70, "plugin_died"),
        (71, "vector_wrong_shape"),
        (130, "plugin_memory"),
        (199, "plugin_died"),
    ]
    assert by_row(reply, FEATURE[0]) == {n: vector(t) for n, t in enumerate(texts) if n not in bad}


def test_a_plugin_that_fails_on_every_row_stops_after_a_bounded_number_of_tries(runner, poison):
    reply = runner(poison, ["raise_error"] * 1000, FEATURE)
    codes = [f["code"] for f in reply["failures"]]
    assert len(codes) == 1000 and set(codes) == {"plugin_row_failed", "plugin_not_probed"}
    assert codes.count("plugin_row_failed") <= 256
    untried = next(f for f in reply["failures"] if f["code"] == "plugin_not_probed")
    assert untried["retryable"] is True and "this row is no good" in untried["message"]


def test_a_flood_of_output_is_cut_and_the_batch_goes_on(runner, poison):
    reply = runner(poison, ["print_flood", "other"], FEATURE)
    assert reply["failures"] == [] and len(by_row(reply, FEATURE[0])) == 2
    assert len(reply["logs"].encode()) <= 64 * 1024 and reply["logs"].startswith("xxx")


def test_the_worker_sees_only_the_clean_variables(runner, poison):
    reply = runner(poison, ["environment"], FEATURE)
    columns = reply["outputs"][0]["columns"]
    assert not [n for n in columns["variables"] if "AWS" in n or "SECRET" in n or "TOKEN" in n]
    assert set(columns["variables"]) <= set(runner.modules._processes.clean_environment()) | {
        "TMPDIR",
        "LC_CTYPE",
        "PWD",
    }
    limits = runner.modules._limits
    user = columns["user"]
    assert (user in limits.OWN_USERS or user == limits.NOBODY) if AS_ROOT else user == os.getuid()


@pytest.mark.parametrize("deed", ["leave_child", "leave_grandchild", "leave_thread", "come_back_twice"])
def test_what_a_plugin_leaves_running_is_ended_after_the_call(runner, poison, deed):
    reply = runner(poison, [deed, "other"], FEATURE)
    assert reply["failures"] == [] and by_row(reply, FEATURE[0])[1] == vector("other")
    ours = runner.modules.handler._plugins
    assert deed == "come_back_twice" or poison["sha256"] not in ours._workers
    assert ours.zygote.sweep() == 0
    assert by_row(runner(poison, ["again"], FEATURE), FEATURE[0]) == {0: vector("again")}


def test_a_forged_answer_for_rows_that_were_not_asked_for_is_refused(runner, poison):
    reply = runner(poison, ["forged_answer"], FEATURE)
    assert reply["outputs"] == [] and [f["code"] for f in reply["failures"]] == ["plugin_protocol_error"]


def test_a_patched_library_stays_in_its_own_process(runner, poison):
    reply = runner(poison, ["patch_pandas"], FEATURE)
    assert by_row(reply, FEATURE[0]) == {0: vector("patch_pandas")}
    other = dict(read_plugin(PLUGINS / "word_embed"))
    plugin = runner.publish(other, "word_embed_1_0_0")
    assert runner(plugin, ["a"], ("word_embed_v1_embedding", 128))["failures"] == []
