"""The launcher's mends, each shown on a running emulator with functions made by boto3."""

import base64
import importlib.util
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import boto3
import pytest
from botocore.config import Config

ROOT = Path(__file__).resolve().parents[2]
LAUNCHER = ROOT / "local" / "emulator.py"
ROLE = "arn:aws:iam::000000000000:role/test"

NODE_HANDLER = """
let calls = 0;
export const handler = async (event) => {
  calls += 1;
  if (event.log) console.log(event.log);
  if (event.sync === 'plain') throw 'just text';
  if (event.fail) throw Object.assign(new Error(event.fail), { name: 'Custom' });
  if (event.waitMs) await new Promise((done) => setTimeout(done, event.waitMs));
  if (event.exit) process.exit(3);
  return { calls, pid: process.pid, size: event.text ? event.text.length : 0, echo: event.echo ? event.text : '' };
};
"""

PYTHON_HANDLER = """
import os, sys
calls = 0
class Custom(Exception):
    pass
def handler(event, context):
    global calls
    calls += 1
    if event.get("log"):
        print(event["log"])
    if event.get("bytes"):
        os.write(2, bytes(range(128, 256)) * 4096 + b"\\n")
    if event.get("fail"):
        raise Custom(event["fail"])
    if event.get("exit"):
        os._exit(3)
    return {"calls": calls, "pid": os.getpid(), "size": len(event.get("text", "")), "echo": event.get("text", "")}
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def environment(folder, port):
    (folder / "package.json").write_text('{"type":"commonjs"}')
    return {
        "PATH": f"{ROOT / 'node_modules' / '.bin'}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "LANG": "C.UTF-8",
        "PYTHONUTF8": "1",
        "BIND_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(port),
        "MINISTACK_HOST": "127.0.0.1",
        "LAMBDA_EXECUTOR": "local",
        "GRANARY_LEASH": "1",
        "GRANARY_WORKERS_PER_FUNCTION": "2",
    }


def start(folder):
    """Start an emulator that ends with this process; returns it and its endpoint."""
    port = free_port()
    log = open(folder / "log", "wb")  # noqa: SIM115
    process = subprocess.Popen(
        [sys.executable, str(LAUNCHER)],
        env=environment(folder, port),
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=log,
        start_new_session=True,
    )
    log.close()
    endpoint = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(f"{endpoint}/_ministack/health", timeout=2):
                return process, endpoint
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError((folder / "log").read_text()[-4000:]) from None


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("emulator")
    process, endpoint = start(folder)
    yield endpoint
    process.stdin.close()
    assert process.wait(timeout=30) is not None


def client(endpoint, service):
    return boto3.client(
        service,
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
        config=Config(retries={"max_attempts": 1}, read_timeout=60),
    )


def make_function(endpoint, name, language, timeout=20):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        if language == "node":
            archive.writestr("index.mjs", NODE_HANDLER)
        if language == "python":
            archive.writestr("index.py", PYTHON_HANDLER)
    functions = client(endpoint, "lambda")
    functions.create_function(
        FunctionName=name,
        Runtime="nodejs24.x" if language == "node" else "python3.13",
        Role=ROLE,
        Handler="index.handler",
        Timeout=timeout,
        Code={"ZipFile": packed.getvalue()},
    )
    return functions


def invoke(functions, name, event):
    """Invoke and return (FunctionError or None, decoded payload, log text)."""
    reply = functions.invoke(FunctionName=name, Payload=json.dumps(event), LogType="Tail")
    log = base64.b64decode(reply.get("LogResult", "")).decode(errors="replace")
    return reply.get("FunctionError"), json.loads(reply["Payload"].read()), log


@pytest.mark.parametrize("language", ["node", "python"])
def test_an_error_keeps_its_own_name(endpoint, language):
    functions = make_function(endpoint, f"named-{language}", language)
    failed, payload, _ = invoke(functions, f"named-{language}", {"fail": "no such thing"})
    assert failed == "Unhandled"
    assert payload["errorType"] == "Custom"
    assert payload["errorMessage"] == "no such thing"


def test_something_thrown_that_is_no_error_is_named_by_its_type(endpoint):
    functions = make_function(endpoint, "thrown-text", "node")
    failed, payload, _ = invoke(functions, "thrown-text", {"sync": "plain"})
    assert (failed, payload["errorType"], payload["errorMessage"]) == ("Unhandled", "string", "just text")


@pytest.mark.parametrize("language", ["node", "python"])
def test_a_worker_survives_its_handlers_error(endpoint, language):
    name = f"survivor-{language}"
    functions = make_function(endpoint, name, language)
    _, first, _ = invoke(functions, name, {})
    invoke(functions, name, {"fail": "once"})
    _, third, _ = invoke(functions, name, {})
    assert third["pid"] == first["pid"]
    assert third["calls"] == 3


@pytest.mark.parametrize("language", ["node", "python"])
def test_a_worker_that_dies_is_replaced_and_says_so(endpoint, language):
    name = f"mortal-{language}"
    functions = make_function(endpoint, name, language)
    _, first, _ = invoke(functions, name, {})
    failed, payload, _ = invoke(functions, name, {"exit": True})
    assert (failed, payload["errorType"]) == ("Unhandled", "Runtime.ExitError")
    _, again, _ = invoke(functions, name, {})
    assert again["pid"] != first["pid"]
    assert again["calls"] == 1


def test_a_timeout_is_named_as_on_aws(endpoint):
    functions = make_function(endpoint, "slow", "node", timeout=1)
    failed, payload, _ = invoke(functions, "slow", {"waitMs": 60_000})
    assert (failed, payload["errorType"]) == ("Unhandled", "Sandbox.Timedout")


@pytest.mark.parametrize("language", ["node", "python"])
def test_each_invocation_gets_its_own_log_lines(endpoint, language):
    name = f"talker-{language}"
    functions = make_function(endpoint, name, language)
    invoke(functions, name, {})
    for word in ["first", "", "third", "fourth"]:
        _, _, log = invoke(functions, name, {"log": word})
        assert log == word
    _, _, log = invoke(functions, name, {"log": "last words", "fail": "gone"})
    assert log.startswith("last words")
    assert "granary-end-of-log" not in log


def test_bytes_that_are_not_text_do_not_block_a_worker(endpoint):
    functions = make_function(endpoint, "noisy", "python")
    for _ in range(3):
        failed, payload, _ = invoke(functions, "noisy", {"bytes": True})
        assert failed is None, payload
    assert payload["calls"] == 3


@pytest.mark.parametrize("language", ["node", "python"])
def test_six_megabytes_go_in_and_out(endpoint, language):
    name = f"wide-{language}"
    functions = make_function(endpoint, name, language)
    text = "é" * 2_500_000
    failed, payload, _ = invoke(functions, name, {"text": text, "echo": True})
    assert failed is None
    assert payload["size"] == len(text)
    assert payload["echo"] == text


def test_a_burst_of_calls_waits_for_workers_instead_of_starting_more(endpoint):
    make_function(endpoint, "busy", "node", timeout=30)
    with ThreadPoolExecutor(12) as pool:
        calls = [
            pool.submit(lambda: invoke(client(endpoint, "lambda"), "busy", {"waitMs": 20})) for _ in range(24)
        ]
        replies = [call.result() for call in calls]
    assert [failed for failed, _, _ in replies] == [None] * 24
    assert len({payload["pid"] for _, payload, _ in replies}) <= 2


@pytest.mark.parametrize(
    ("caught", "status", "output"),
    [("Custom", "SUCCEEDED", {"was": "caught"}), ("Other", "FAILED", None)],
)
def test_a_workflow_catches_an_error_by_its_name(endpoint, caught, status, output):
    name = f"caught-{caught}"
    make_function(endpoint, name, "node")
    states = client(endpoint, "stepfunctions")
    definition = {
        "StartAt": "Work",
        "States": {
            "Work": {
                "Type": "Task",
                "Resource": "arn:aws:states:::lambda:invoke",
                "Parameters": {"FunctionName": name, "Payload": {"fail": "on purpose"}},
                "Catch": [{"ErrorEquals": [caught], "Next": "Caught"}],
                "End": True,
            },
            "Caught": {"Type": "Pass", "Result": {"was": "caught"}, "End": True},
        },
    }
    machine = states.create_state_machine(name=name, definition=json.dumps(definition), roleArn=ROLE)
    run = states.start_execution(stateMachineArn=machine["stateMachineArn"], input="{}")
    deadline = time.monotonic() + 30
    while (found := states.describe_execution(executionArn=run["executionArn"]))["status"] == "RUNNING":
        assert time.monotonic() < deadline
    assert found["status"] == status
    assert (json.loads(found["output"]) if output else found["error"]) == (output or "Custom")


def test_the_emulator_ends_with_its_children_when_its_starter_closes_the_leash(tmp_path):
    process, endpoint = start(tmp_path)
    functions = make_function(endpoint, "child", "node")
    _, payload, _ = invoke(functions, "child", {})
    process.stdin.close()
    assert process.wait(timeout=30) == 0
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            os.kill(payload["pid"], 0)
        except ProcessLookupError:
            return
    os.kill(payload["pid"], signal.SIGKILL)
    raise AssertionError("a worker outlived the emulator")


def launcher():
    spec = importlib.util.spec_from_file_location("granary_launcher", LAUNCHER)
    module = importlib.util.module_from_spec(spec)
    sys.modules["granary_launcher"] = module
    spec.loader.exec_module(module)
    return module


def test_a_log_ends_at_its_own_mark_and_needs_no_wait():
    module = launcher()
    path = importlib.util.find_spec(module.RUNTIME).origin
    loader = module.MendingLoader(module.RUNTIME, path)
    runtime = importlib.util.module_from_spec(importlib.util.spec_from_loader(module.RUNTIME, loader))
    loader.exec_module(runtime)
    worker = runtime.Worker("any", {}, b"")
    worker._proc = object()
    for line in ["one", "", "two", f"{module.LOG_END}r1", "three", f"{module.LOG_END}r2"]:
        worker._stderr_queue.put(line)
    assert worker._drain_stderr_to_end("r1") == "one\ntwo"
    assert worker._drain_stderr_to_end("r2") == "three"


def test_the_launcher_refuses_a_version_that_its_mends_do_not_fit():
    module = launcher()
    with pytest.raises(RuntimeError, match="is there 0 times, not once"):
        module.mend_source(module.RUNTIME, "nothing of it")
    twice = "".join(mend.old for mend in module.MENDS if mend.module == module.SERVICE) * 2
    with pytest.raises(RuntimeError, match="is there 2 times, not once"):
        module.mend_source(module.SERVICE, twice)


def test_every_mend_fits_the_installed_version():
    launcher().check_mends()
