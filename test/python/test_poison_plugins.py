"""The corpus of hostile plugins (test/fixtures/plugins/poison_corpus): each deed has the outcome that stands next to
it, and costs no other row, no later call and no other plugin anything."""

from __future__ import annotations

import importlib
import os
import sys

import pytest
from conftest import PLUGINS, Runner, by_row, read_plugin

FEATURE = ("poison_corpus_v1_embedding", 4)
AS_ROOT = os.getuid() == 0
BESIDE = ["one", "three", None, "", "seven", "größer ☃", "nan", "0"]
PLACE = 3
"""Of the row with the deed: in the first of two frames, before the last of its rows."""

BYSTANDER = """
import json
import numpy as np
import pandas as pd
def build_steps(**kwargs):
    def step(batch):
        batch = pd.DataFrame(json.loads(json.dumps(batch.to_dict("records"))))
        batch["v"] = [np.array([len(t), 1], np.float32) for t in batch["data"]]
        return batch
    return {"steps": [step]}
"""


def outcomes():
    """The table of the corpus, without doing any of it."""
    sys.path.insert(0, str(PLUGINS))
    try:
        module = importlib.import_module("poison_corpus.pipeline")
        return [outcome for _, outcome in module.DEEDS.values()]
    finally:
        sys.path.remove(str(PLUGINS))
        for name in [n for n in sys.modules if n.split(".")[0] == "poison_corpus"]:
            del sys.modules[name]


OUTCOMES = outcomes()


@pytest.fixture(scope="module")
def corpus(runner):
    return runner.publish(read_plugin(PLUGINS / "poison_corpus"), "poison_corpus_1_0_0", "poison_corpus/")


@pytest.fixture(scope="module")
def bystander(runner):
    return runner.publish({"pipeline.py": BYSTANDER}, "bystander_1_0_0")


def vector(text):
    return [None if text is None else [float(len(text)), 1.0, 2.0, 3.0]]


def assert_outcome(runner, corpus, bystander, outcome):
    """The deed in one row among others; then the same plugin and another one, as if nothing had been."""
    texts = [*BESIDE[:PLACE], "do " + outcome["kind"], *BESIDE[PLACE:]]
    deadline_ms = int((outcome["seconds"] or 30) * 1000)
    limits = {"memory_mb": 384}
    # A deed that hangs has a frame of its own here, so that the time goes into it once.
    batch_size = 5 if outcome["seconds"] is None else 1
    reply = runner(corpus, texts, FEATURE, deadline_ms=deadline_ms, limits=limits, batch_size=batch_size)
    assert "error" not in reply, reply
    found = {failure["row"]: failure for failure in reply["failures"]}
    assert set(found) <= {PLACE}, found
    code = found[PLACE]["code"] if found else "survives"
    assert code in outcome["codes"], found or "the row survived"
    if found:
        assert outcome["says"] in found[PLACE]["message"], found
        assert len(found[PLACE]["message"].encode()) <= 1000
        assert len(found[PLACE]["traceback"] or "") <= 4000
    assert outcome["warns"] in "".join(reply["warnings"]), reply["warnings"]
    assert len(reply["logs"].encode()) <= 64 * 1024
    got = by_row(reply, FEATURE[0])
    assert set(got) == set(range(len(texts))) - set(found)
    assert {n: v for n, v in got.items() if n != PLACE} == {
        n: vector(text) for n, text in enumerate(texts) if n != PLACE
    }
    again = runner(corpus, ["again", "and again"], FEATURE, limits=limits)
    assert by_row(again, FEATURE[0]) == {0: vector("again"), 1: vector("and again")}, again
    other = runner(bystander, ["x", "yyy"])
    assert by_row(other, "v") == {0: [[1.0, 1.0]], 1: [[3.0, 1.0]]}, other
    return reply


def possible(outcome):
    if outcome["needs"] == "other_user" and not AS_ROOT:
        pytest.skip("only as root do workers run as another user than the handler")


@pytest.mark.parametrize("outcome", OUTCOMES, ids=[o["kind"] for o in OUTCOMES])
def test_a_hostile_row_has_its_outcome_and_harms_nothing_else(runner, corpus, bystander, outcome):
    possible(outcome)
    assert_outcome(runner, corpus, bystander, outcome)


def test_one_batch_with_every_deed_keeps_all_other_rows(runner, corpus):
    quick = [o for o in OUTCOMES if o["seconds"] is None and (AS_ROOT or o["needs"] != "other_user")]
    texts = [text for o in quick for text in ("do " + o["kind"], f"beside {o['kind']}")]
    reply = runner(corpus, texts, FEATURE, deadline_ms=240_000, limits={"memory_mb": 384}, batch_size=1)
    found = {failure["row"]: failure for failure in reply["failures"]}
    assert [failure for row, failure in found.items() if row % 2] == []
    got = by_row(reply, FEATURE[0])
    assert {n: v for n, v in got.items() if n % 2} == {
        n: vector(text) for n, text in enumerate(texts) if n % 2
    }
    # Which code it is, one deed may change for the next in the same process; that none passes for good may not change.
    passed = {o["kind"] for n, o in enumerate(quick) if 2 * n not in found}
    assert {o["kind"] for o in quick if "survives" not in o["codes"]} & passed == set()


LEAVING = [
    "leave_much_in_its_folder",
    "leave_links_and_pipes",
    "leave_folders_that_cannot_be_entered",
    "patch_json",
    "patch_builtins",
    "go_elsewhere",
    "keep_what_ends_loudly",
    "leave_a_child_that_writes_into_the_pipes",
]


@pytest.mark.parametrize("kind", LEAVING)
def test_another_tenant_of_the_same_plugin_finds_nothing_of_it(runner, corpus, kind):
    limits = {"memory_mb": 384}
    runner(corpus, ["do " + kind], FEATURE, limits=limits, tenant="org/one")
    texts = ["do find_nothing_that_another_left", "sound"]
    reply = runner(corpus, texts, FEATURE, limits=limits, tenant=f"org/{kind}")
    assert by_row(reply, FEATURE[0]) == {n: vector(text) for n, text in enumerate(texts)}


NEEDS_NO_KERNEL = [o for o in OUTCOMES if o["group"] in ("endings", "prying", "files", "leftovers", "answers")]


@pytest.fixture(scope="module")
def bare_runner(server):
    """A runner that uses none of the protections that not every kernel offers."""
    running = Runner(server)
    running.modules.handler._plugins = running.modules._plugins.Plugins(harden=False)
    yield running
    running.modules.handler._environment().close()


@pytest.mark.parametrize("outcome", NEEDS_NO_KERNEL, ids=[o["kind"] for o in NEEDS_NO_KERNEL])
def test_the_outcome_does_not_rest_on_protections_that_a_kernel_may_lack(
    bare_runner, corpus, bystander, outcome
):
    possible(outcome)
    assert_outcome(bare_runner, corpus, bystander, outcome)


def test_without_those_protections_the_check_says_so(bare_runner, corpus):
    taken = bare_runner(corpus, [], operation="check")["isolation"]
    assert not taken.get("seccomp") and not taken.get("landlock_files") and not taken["network_namespace"]
    assert taken["session"] and taken["memory"] and taken["hidden"]


AT_IMPORT = {
    "an endless import": ("while True: pass", "plugin_load_timeout", "did not end"),
    "an import that sleeps": ("import time; time.sleep(1000)", "plugin_load_timeout", "did not end"),
    "an import that leaves": ("import sys; sys.exit(0)", "plugin_load_failed", "SystemExit"),
    "an import that ends the process": ("import os; os._exit(3)", "plugin_load_failed", "exit code 3"),
    "an import that crashes": ("import os; os.abort()", "plugin_load_failed", "SIGABRT"),
    "an import that takes memory": ("x = bytearray(64 << 30)", "plugin_load_failed", "MemoryError"),
    "an import that forks": ("import os\nwhile True: os.fork()", "plugin_load_failed", ""),
    "an import that closes the pipes": (
        "import os; os.closerange(3, 256)",
        "plugin_load_failed",
        "its process",
    ),
    "an import that answers itself": (
        "import os, struct\nbody = b'[1, 2]'\nfor fd in range(3, 64):\n    try:\n"
        "        os.write(fd, struct.pack('<4sIQ', b'GRN1', len(body), 0) + body)\n"
        "    except OSError: pass\n",
        "plugin_load_failed",
        "",
    ),
    "an import that raises what has no text": (
        "class Odd(Exception):\n    def __str__(self): raise SystemExit\nraise Odd",
        "plugin_load_failed",
        "Odd",
    ),
    "an import that fills the disk": (
        "import os, time\nfor n in range(6):\n    fd = os.open(f'f{n}', os.O_WRONLY | os.O_CREAT)\n"
        "    os.posix_fallocate(fd, 0, 60 << 20)\ntime.sleep(20)",
        "plugin_load_failed",
        "MB",
    ),
    "an import that recurses": ("def f(): return f()\nf()", "plugin_load_failed", "RecursionError"),
    "a file of brackets": ("(" * 20_000, "plugin_load_failed", "pipeline.py"),
    "a file of null bytes": ("x = 1\n\0\0", "plugin_load_failed", "null"),
    "steps that are built without end": (
        "def build_steps():\n    while True: pass",
        "plugin_load_timeout",
        "building the steps",
    ),
    "steps that are generated without end": (
        "import itertools\ndef build_steps():\n    return {'steps': itertools.repeat(print)}",
        "plugin_load_failed",
        "MemoryError",
    ),
    "an entry that patches everything": (
        "import builtins, json\njson.dumps = builtins.len = None\ndef build_steps(): return []",
        "plugin_load_failed",
        "",
    ),
}


@pytest.mark.parametrize(("text", "code", "says"), AT_IMPORT.values(), ids=AT_IMPORT.keys())
def test_a_plugin_that_is_hostile_when_it_is_loaded_fails_its_call_alone(runner, bystander, text, code, says):
    plugin = runner.publish({"pipeline.py": text}, "hostile_1_0_0")
    limits = {"memory_mb": 256}
    reply = runner(plugin, ["a"], deadline_ms=1_500 if "timeout" in code else 20_000, limits=limits)
    assert reply["error"]["code"] == code and says in reply["error"]["message"], reply["error"]
    other = runner(bystander, ["x", "yyy"])
    assert by_row(other, "v") == {0: [[1.0, 1.0]], 1: [[3.0, 1.0]]}


def test_nothing_that_the_corpus_left_is_there_afterwards(runner, bystander):
    plugins = runner.modules.handler._plugins
    for key in list(plugins._workers):
        plugins.lose(key, at_once=True, mask=lambda text: text)
    assert plugins.zygote.sweep() == 0
    left = sorted(p.name for p in plugins._work.path.iterdir() if p.name.startswith(("scratch", "blobs/")))
    assert left == []
    assert not os.path.exists("/tmp/granary-poison-corpus")
