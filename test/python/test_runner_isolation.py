"""Each protection that the runner says it took does what it is there for; none is needed for another to hold."""

from __future__ import annotations

import os

import pytest
from conftest import Runner, row

TRIES = """
import io, os
def tried(what):
    try:
        return "done: " + repr(what())
    except OSError as fault:
        return type(fault).__name__
def connect(address):
    net = __import__("soc" + "ket")
    with net.socket() as made:
        made.settimeout(30)
        made.connect(address)
WORK = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TRIED = {
    "write below the temporary folder": lambda: io.open("/tmp/granary-isolation-test", "w").close(),
    "write in its own folder": lambda: io.open("mine", "w").close(),
    "write to nowhere": lambda: io.open("/dev/null", "w").close(),
    "read its own code": lambda: len(io.open(__file__).read()) > 0,
    "list the folder of all plugins": lambda: len(os.listdir(WORK)) > 0,
    "connect": lambda: connect(("192.0.2.1", 9)),
    "leave its session": lambda: os.setsid(),
    "signal its parent": lambda: os.kill(os.getppid(), 0),
    "read the system's packages": lambda: __import__("colorsys").rgb_to_hsv(0, 0, 0),
    "start a thread pool": lambda: __import__("concurrent.futures").futures.ThreadPoolExecutor(1).submit(int).result(),
    "run an event loop": lambda: __import__("asyncio").run(__import__("asyncio").sleep(0)),
}
def build_steps(**kwargs):
    def step(batch):
        batch["v"] = [[1.0, 2.0]] * len(batch)
        batch["said"] = [tried(TRIED[name]) for name in batch["data"]]
        return batch
    return {"steps": [step]}
"""
ALLOWED = (
    "write in its own folder",
    "write to nowhere",
    "read its own code",
    "read the system's packages",
    "start a thread pool",
    "run an event loop",
)
REFUSED = {
    "landlock_files": ("write below the temporary folder", "list the folder of all plugins"),
    "landlock_network": ("connect",),
    "landlock_signals": ("signal its parent",),
    "seccomp": ("leave its session", "connect"),
    "network_namespace": ("connect",),
    "own_user": ("signal its parent", "list the folder of all plugins"),
}


@pytest.fixture(scope="module", params=[True, False], ids=["with all that the kernel has", "with the least"])
def confined(server, request):
    running = Runner(server)
    running.modules.handler._plugins = running.modules._plugins.Plugins(harden=request.param)
    plugin = running.publish({"pipeline.py": TRIES}, "tries_1_0_0")
    taken = running(plugin, [], operation="check")["isolation"]
    yield running, plugin, taken
    running.modules.handler._environment().close()


def said(confined, names):
    running, plugin, _ = confined
    reply = running(plugin, [row(n, name) for n, name in enumerate(names)])
    assert reply["failures"] == []
    return {name: output["columns"]["said"] for name, output in zip(names, reply["outputs"])}


def test_what_a_plugin_needs_is_allowed_whatever_was_taken(confined):
    assert {n: s for n, s in said(confined, ALLOWED).items() if not s.startswith("done")} == {}


@pytest.mark.parametrize("protection", REFUSED)
def test_what_a_protection_is_for_is_refused_where_it_took(confined, protection):
    if not confined[2].get(protection):
        pytest.skip(f"{protection} did not take here")
    for name, answer in said(confined, REFUSED[protection]).items():
        assert answer in ("PermissionError", "OSError"), (name, answer)


def test_every_protection_is_reported_as_taken_or_not(confined):
    taken = confined[2]
    assert all(type(took) is bool for took in taken.values())
    assert {"session", "memory", "tasks", "no_new_privs", "hidden", "own_user"} <= set(taken)
    assert taken["own_user"] is (os.getuid() == 0) and taken["hidden"] and taken["no_new_privs"]


def test_an_environment_with_egress_says_so_by_one_variable_and_its_plugins_may_make_sockets(server, monkeypatch):
    monkeypatch.setenv("PLUGIN_EGRESS", "on")
    running = Runner(server)
    try:
        handler = running.modules.handler
        handler._plugins = None
        # To this machine's own port of the test: nothing leaves it.
        port = server.server.server_port
        text = TRIES.replace('("192.0.2.1", 9)', f'("127.0.0.1", {port})')
        plugin = running.publish({"pipeline.py": text}, "tries_1_0_0")
        taken = running(plugin, [], operation="check")["isolation"]
        assert not taken["network_namespace"] and not taken.get("landlock_network")
        reply = running(plugin, ["connect", "leave its session"])
        connected, left = (output["columns"]["said"] for output in reply["outputs"])
        assert connected == "done: None"
        assert left == "PermissionError" if taken.get("seccomp") else True
    finally:
        running.modules.handler._environment().close()
