"""The launcher's mends, each shown on a running emulator with functions made by boto3."""

import base64
import importlib.util
import io
import json
import os
import random
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
from botocore.exceptions import ClientError

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
  return { calls, pid: process.pid, size: event.text?.length ?? 0, echo: event.echo ? event.text : '' };
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
    text = event.get("text", "")
    return {"calls": calls, "pid": os.getpid(), "size": len(text), "echo": text}
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


def start(folder, port=None, **settings):
    """Start an emulator that ends with this process; returns it and its endpoint."""
    port = port or free_port()
    log = open(folder / "log", "wb")  # noqa: SIM115
    process = subprocess.Popen(
        [sys.executable, str(LAUNCHER)],
        env={**environment(folder, port), **settings},
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


def make_function(endpoint, name, language, timeout=20, code=None):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        if language == "node":
            archive.writestr("index.mjs", code or NODE_HANDLER)
        if language == "python":
            archive.writestr("index.py", code or PYTHON_HANDLER)
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


def make_table(endpoint, name, **more):
    tables = client(endpoint, "dynamodb")
    tables.create_table(
        **more,
        TableName=name,
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": n, "AttributeType": "S"} for n in ("pk", "sk")],
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
    )
    return tables


def pages(tables, **query):
    """All sort keys that a query finds, page by page."""
    found, start = [], {}
    while True:
        reply = tables.query(TableName="pages", ScanIndexForward=query["forward"], **query["call"], **start)
        found += [item["sk"]["S"] for item in reply["Items"]]
        if "LastEvaluatedKey" not in reply:
            return found
        start = {"ExclusiveStartKey": reply["LastEvaluatedKey"]}


def test_a_query_finds_the_same_items_as_a_naive_one_in_every_order_and_page_size(endpoint):
    chance = random.Random(7)
    tables = make_table(endpoint, "pages")
    ends = [b + c for b in ("", "1", "10", "2") for c in ("", "x", "\U0001f600")]
    keys = [begin + end for begin in ("A#", "B#", "Bé", "b#") for end in ends]
    conditions = {
        "": lambda key, low, high: True,
        " AND begins_with(sk, :low)": lambda key, low, high: key.startswith(low),
        " AND begins_with ( #s , :low )": lambda key, low, high: key.startswith(low),
        " AND sk = :low": lambda key, low, high: key == low,
        " AND #s < :low": lambda key, low, high: key < low,
        " AND sk <= :low": lambda key, low, high: key <= low,
        " AND sk > :low": lambda key, low, high: key > low,
        " AND #s >= :low": lambda key, low, high: key >= low,
        " AND sk BETWEEN :low AND :high": lambda key, low, high: low <= key <= high,
    }
    there = set()
    for _ in range(6):
        for key in chance.sample(keys, 16):
            item = {"pk": {"S": "P"}, "sk": {"S": key}}
            if key in there and chance.random() < 0.5:
                tables.delete_item(TableName="pages", Key=item)
                there.remove(key)
            else:
                tables.put_item(TableName="pages", Item=item)
                there.add(key)
        for text, holds in conditions.items():
            low, high = sorted(chance.sample([*keys, "A", "B#3"], 2))
            values = {":p": {"S": "P"}, ":low": {"S": low}, ":high": {"S": high}}
            used = {name: value for name, value in values.items() if name in "pk = :p" + text}
            call = {"KeyConditionExpression": "pk = :p" + text, "ExpressionAttributeValues": used}
            if "#s" in text:
                call["ExpressionAttributeNames"] = {"#s": "sk"}
            expected = sorted(key for key in there if holds(key, low, high))
            limit = chance.choice([{}, {"Limit": 1}, {"Limit": 3}])
            assert pages(tables, forward=True, call={**call, **limit}) == expected, (text, low, high)
            assert pages(tables, forward=False, call={**call, **limit}) == expected[::-1], (text, low, high)


def test_a_wrong_key_condition_is_still_refused(endpoint):
    tables = make_table(endpoint, "refusals")
    tables.put_item(TableName="refusals", Item={"pk": {"S": "P"}, "sk": {"S": "1"}})
    with pytest.raises(ClientError, match="ValidationException"):
        tables.query(
            TableName="refusals",
            KeyConditionExpression="pk = :p AND begins_with(sk, :n)",
            ExpressionAttributeValues={":p": {"S": "P"}, ":n": {"N": "1"}},
        )


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


STREAM_READER = """
import boto3
def handler(event, context):
    for record in event["Records"]:
        boto3.client("dynamodb").put_item(TableName="seen", Item=record["dynamodb"]["Keys"])
"""


def test_a_stream_reader_goes_on_after_an_orderly_stop_and_start(tmp_path):
    saved = tmp_path / "saved"
    settings = {
        "PERSIST_STATE": "1",
        "S3_PERSIST": "1",
        "STATE_DIR": str(tmp_path / "state"),
        "S3_DATA_DIR": str(tmp_path / "s3"),
        "GRANARY_SAVED_FILE": str(saved),
    }

    def seen_after_writing(endpoint, key):
        tables = client(endpoint, "dynamodb")
        item = {"pk": {"S": "P"}, "sk": {"S": key}}
        tables.put_item(TableName="written", Item=item)
        deadline = time.monotonic() + 30
        while "Item" not in tables.get_item(TableName="seen", Key=item):
            assert time.monotonic() < deadline, f"{key} was not read from the stream"

    process, endpoint = start(tmp_path, **settings)
    stream = {"StreamEnabled": True, "StreamViewType": "KEYS_ONLY"}
    tables = make_table(endpoint, "written", StreamSpecification=stream)
    make_table(endpoint, "seen")
    functions = make_function(endpoint, "reader", "python", code=STREAM_READER)
    functions.create_event_source_mapping(
        FunctionName="reader",
        EventSourceArn=tables.describe_table(TableName="written")["Table"]["LatestStreamArn"],
        StartingPosition="TRIM_HORIZON",
    )
    for key in ("1", "2", "3"):
        seen_after_writing(endpoint, key)
    process.terminate()
    assert process.wait(timeout=30) == 0
    process.stdin.close()
    assert saved.exists()
    port = int(endpoint.rsplit(":", 1)[1])
    process, endpoint = start(tmp_path, port, **settings)
    seen_after_writing(endpoint, "4")
    process.stdin.close()
    assert process.wait(timeout=30) == 0


def mended(module, name):
    """A mended module of the emulator, loaded in this process under its own name but not registered."""
    loader = module.MendingLoader(name, importlib.util.find_spec(name).origin)
    loaded = importlib.util.module_from_spec(importlib.util.spec_from_loader(name, loader))
    loader.exec_module(loaded)
    return loaded


def test_a_page_of_a_query_reads_no_more_than_the_page():
    module = launcher()
    tables = mended(module, module.TABLES)
    keys = [{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}]
    types = [{"AttributeName": name, "AttributeType": "S"} for name in ("pk", "sk")]
    made = {"TableName": "any", "KeySchema": keys, "AttributeDefinitions": types}
    assert tables._create_table({**made, "BillingMode": "PAY_PER_REQUEST"})[0] == 200
    for number in range(500):
        item = {"pk": {"S": "P"}, "sk": {"S": f"D#{number:04}"}}
        assert tables._put_item({"TableName": "any", "Item": item})[0] == 200
    evaluated = []
    evaluate = tables._evaluate_condition
    tables._evaluate_condition = lambda *args, **named: evaluated.append(args[1]) or evaluate(*args, **named)
    start = {"pk": {"S": "P"}, "sk": {"S": "D#0300"}}
    query = {
        "TableName": "any",
        "KeyConditionExpression": "pk = :p AND begins_with(sk, :d)",
        "ExpressionAttributeValues": {":p": {"S": "P"}, ":d": {"S": "D#"}},
        "Limit": 10,
        "ExclusiveStartKey": start,
    }
    status, _, body = tables._query(query)
    found = [item["sk"]["S"] for item in json.loads(body)["Items"]]
    assert (status, found) == (200, [f"D#{number:04}" for number in range(301, 311)])
    # The page and its start, which must itself satisfy the condition.
    assert len(evaluated) == 11


def test_a_log_ends_at_its_own_mark_and_needs_no_wait():
    module = launcher()
    worker = mended(module, module.RUNTIME).Worker("any", {}, b"")
    worker._proc = object()
    for line in ["one", "", "two", f"{module.LOG_END}r1", "three", f"{module.LOG_END}r2"]:
        worker._stderr_queue.put(line)
    assert worker._drain_stderr_to_end("r1") == "one\ntwo"
    assert worker._drain_stderr_to_end("r2") == "three"


@pytest.mark.parametrize(("limit", "wanted"), [({"MaxConcurrencyPath": "$.plan.most"}, 3), ({"MaxConcurrency": 2}, 2)])
def test_a_distributed_map_runs_as_many_children_as_its_path_says(limit, wanted):
    module = launcher()
    workflows = mended(module, module.WORKFLOWS)
    workflows._run_sub_machine = lambda *_: {}
    state = {"Type": "Map", "ItemsPath": "$.items", **limit, "End": True}
    given = {"items": list(range(12)), "plan": {"most": 3}}
    execution = {"stateMachineArn": "arn:aws:states:us-east-1:000000000000:stateMachine:m", "executionArn": "e"}
    workflows._run_distributed_map(state, given, given, {"StartAt": "S", "States": {}}, execution, {})
    # What the pool of its workers is made from.
    [run] = workflows._map_runs.values()
    assert run["maxConcurrency"] == wanted


def test_the_launcher_refuses_a_version_that_its_mends_do_not_fit():
    module = launcher()
    with pytest.raises(RuntimeError, match="is there 0 times, not once"):
        module.mend_source(module.RUNTIME, "nothing of it")
    twice = "".join(mend.old for mend in module.MENDS if mend.module == module.SERVICE) * 2
    with pytest.raises(RuntimeError, match="is there 2 times, not once"):
        module.mend_source(module.SERVICE, twice)


def test_every_mend_fits_the_installed_version():
    launcher().check_mends()
