"""What a call brings to a plugin beside its rows (secrets, memory, blobs, realtime questions), and what the answer
says of errors and warnings."""

from __future__ import annotations

import base64
import json
import os
import select
import signal
import textwrap
import time

import pytest
from conftest import by_row, load_function, row

STEP = """
def build_steps(**kwargs):
    def step(batch):
        batch["v"] = [[float(len(str(t))), 1.0] for t in batch["data"]]
        return batch
    return {"steps": [step]}
"""
SECRET = "s3cr3t/va+lue é\nsecond line of the key"


def publish(runner, pipeline=STEP, realtime=None, **more):
    files = {"pipeline.py": textwrap.dedent(pipeline), **more}
    if realtime is not None:
        files["realtime.py"] = textwrap.dedent(realtime)
    return runner.publish(files, "p_1_0_0")


def columns(reply):
    assert reply.get("failures") == [], reply
    return [output["columns"] for output in reply["outputs"]]


READS_SECRETS = """
kept = []
def build_steps(container=None, **kwargs):
    async def step(batch):
        got = container.secrets.get("API_KEY")
        kept.append(container.secrets)
        batch["v"] = [[1.0, 2.0]] * len(batch)
        batch["length"] = len(await container.secrets.get("API_KEY"))
        batch["same"] = got == await container.secrets.get("API_KEY") and isinstance(got, str)
        batch["names"] = [[await container.secrets.list(), container.secrets.list()]] * len(batch)
        return batch
    return {"steps": [step]}
"""


def test_secrets_are_given_by_name_with_and_without_await(runner):
    reply = runner(publish(runner, READS_SECRETS), ["a"], secrets={"API_KEY": SECRET, "OTHER": "x"})
    names = ["API_KEY", "OTHER"]
    assert columns(reply) == [{"length": len(SECRET), "same": True, "names": [names, names]}]


def test_a_secret_that_was_not_given_says_where_to_declare_it(runner):
    reply = runner(publish(runner, READS_SECRETS), ["a"], secrets={"OTHER": "x"})
    (failure,) = reply["failures"]
    assert failure["code"] == "plugin_row_failed"
    assert '"API_KEY" was not given' in failure["message"] and "manifest.py" in failure["message"]


def test_a_process_that_was_given_secrets_serves_no_call_with_others(runner):
    remembers = """
    seen = []
    def build_steps(container=None, **kwargs):
        def step(batch):
            batch["before"] = len(seen)
            seen.extend(container.secrets.list())
            batch["v"] = [[1.0, 2.0]] * len(batch)
            return batch
        return {"steps": [step]}
    """
    plugin = publish(runner, remembers)
    given = [{"A": "one"}, {"A": "one"}, {"A": "two"}, {}, None, {"A": "one"}]
    assert [columns(runner(plugin, ["a"], secrets=s))[0]["before"] for s in given] == [0, 1, 0, 0, 0, 0]


def test_secrets_are_gone_when_the_call_is_over_and_never_in_the_environment(runner):
    peeks = """
    import os, signal
    def look(*_):
        try:
            said = str(box.secrets.get("A"))
        except KeyError as error:
            said = str(error)
        fd = os.open("partly", os.O_WRONLY | os.O_CREAT)
        os.write(fd, said.encode())
        os.close(fd)
        os.rename("partly", "seen")
    def build_steps(container=None, **kwargs):
        global box
        box = container
        def step(batch):
            batch["v"] = [[1.0, 2.0]] * len(batch)
            batch["value"] = str(box.secrets.get("A"))
            batch["environment"] = any("one" in value for value in os.environ.values())
            signal.signal(signal.SIGUSR1, look)
            return batch
        return {"steps": [step]}
    """
    plugin = publish(runner, peeks)
    assert columns(runner(plugin, ["a"], secrets={"A": "one"})) == [{"value": "one", "environment": False}]
    workers = runner.modules.handler._plugins._workers
    (worker,) = [w for key, w in workers.items() if key.endswith(plugin["sha256"])]
    # Between the calls the plugin is woken up and looks once more.
    os.kill(worker.pid, signal.SIGUSR1)
    give_up_at = time.monotonic() + 30
    while not (worker._scratch / "seen").exists() and time.monotonic() < give_up_at:
        select.select([], [], [], 0.005)
    assert "was not given" in (worker._scratch / "seen").read_text()


@pytest.mark.parametrize(
    ("operation", "held"),
    [
        ({"op": "run", "frames": [[0, 1], [1, 2]]}, [["A"], ["A"], []]),
        ({"op": "run", "frames": []}, [[]]),
        ({"op": "run", "frames": [[0, 1]], "parameters": "unfit"}, [[]]),
        ({"op": "answer", "inputs": {}}, [[]]),
        ({"op": "load", "folder": "/nowhere", "package": "p"}, [[]]),
    ],
    ids=["rows", "no rows", "steps that cannot be built", "a question", "a plugin that is not there"],
)
def test_secrets_are_gone_before_the_last_answer_of_a_call_can_be_read(monkeypatch, operation, held):
    module = load_function("plugin-runner", "_worker")._worker
    worker = module._Worker(-1, -1, {}, None)

    def build(message):
        if message["parameters"] == "unfit":
            raise ValueError("unfit")

    found = []
    monkeypatch.setattr(module._wire, "write_blocking", lambda fd, message: found.append(list(worker.secrets.list())))
    monkeypatch.setattr(worker, "build", build)
    monkeypatch.setattr(worker.heeded, "begin", lambda folder: None)
    worker.plugin = type("Loaded", (), {"folder": "/nowhere"})()
    worker.secrets.open({"A": "one"})
    common = {"parameters": {}, "realtime": False, "features": []}
    getattr(worker, operation["op"])({**common, **operation})
    worker.loop.close()
    assert found == held


def test_values_of_secrets_are_masked_in_everything_that_is_said_about_a_call(runner):
    blabs = """
    import base64, json, sys, urllib.parse, warnings
    def build_steps(container=None, **kwargs):
        def step(batch):
            key = container.secrets.get("API_KEY")
            print("value", key)
            print("shown", repr(str(key)), json.dumps(key), urllib.parse.quote(key, safe=""), file=sys.stderr)
            print(base64.b64encode(key.encode()).decode())
            warnings.warn("careful with " + key)
            if "bad" in list(batch["data"]):
                raise ValueError("cannot use " + key)
            batch["v"] = [[1.0, 2.0]] * len(batch)
            return batch
        return {"steps": [step]}
    """
    reply = runner(publish(runner, blabs), ["good", "bad"], secrets={"API_KEY": SECRET})
    said = json.dumps([reply["logs"], reply["failures"], reply["warnings"]], ensure_ascii=False)
    for form in (SECRET, "s3cr3t", base64.b64encode(SECRET.encode()).decode(), "second line of the key"):
        assert form not in said
    assert "[secret API_KEY]" in reply["logs"] and "[secret API_KEY]" in reply["failures"][0]["message"]
    assert "[secret API_KEY]" in reply["warnings"][0]
    assert "cannot use [secret API_KEY]" in reply["failures"][0]["traceback"]


def test_a_secret_is_masked_in_the_error_of_a_call_that_fails_and_where_the_log_is_cut(runner):
    fails = """
    def build_steps(container=None, **kwargs):
        print("x" * (64 * 1024 - 20) + container.secrets.get("API_KEY") * 3)
        raise ValueError(container.secrets.get("API_KEY"))
    """
    value = "0123456789abcdefghijklmnop"
    reply = runner(publish(runner, fails), ["a"], secrets={"API_KEY": value})
    assert reply["error"]["code"] == "plugin_load_failed"
    assert value not in json.dumps(reply) and "012345678" not in reply["logs"]
    assert len(reply["logs"].encode()) <= 64 * 1024


@pytest.mark.parametrize(
    "secrets",
    [["A"], {"a": "x"}, {"A": 5}, {"A": None}, {"1A": "x"}, {"A": "x" * 70_000}, {"A" * 65: "x"}],
    ids=["list", "lower", "number", "null", "digit", "long", "long name"],
)
def test_secrets_of_a_wrong_form_are_refused_without_showing_a_value(runner, secrets):
    error = runner(publish(runner), ["a"], secrets=secrets)["error"]
    assert error["code"] == "bad_request" and "secrets" in error["message"] and "xxx" not in error["message"]


def test_the_memory_of_a_call_is_the_limit_of_the_worker_and_another_limit_makes_another_worker(runner):
    takes = """
    import numpy as np, os
    def build_steps(**kwargs):
        def step(batch):
            made = [np.empty(int(t) << 20, np.uint8) for t in batch["data"]]
            batch["v"] = [[1.0, 2.0]] * len(batch)
            batch["pid"] = os.getpid()
            return batch
        return {"steps": [step]}
    """
    plugin = publish(runner, takes)
    codes = {}
    for memory_mb in (128, 1024):
        for megabytes in ("64", "512"):
            reply = runner(plugin, [megabytes], limits={"memory_mb": memory_mb})
            codes[memory_mb, megabytes] = [failure["code"] for failure in reply["failures"]]
    assert codes == {(128, "64"): [], (128, "512"): ["plugin_memory"], (1024, "64"): [], (1024, "512"): []}
    same = {columns(runner(plugin, ["1"], limits={"memory_mb": 128}))[0]["pid"] for _ in range(2)}
    assert len(same) == 1


@pytest.mark.parametrize("limits", [[], {"memory_mb": 0}, {"memory_mb": "1"}, {"memory_mb": True}])
def test_limits_of_a_wrong_form_are_refused(runner, limits):
    assert runner(publish(runner), ["a"], limits=limits)["error"]["code"] == "bad_request"


def test_a_blob_that_comes_in_the_row_is_a_file_for_the_plugin_and_a_bad_one_fails_alone(runner):
    reads = """
    import pathlib
    def build_steps(**kwargs):
        def step(batch):
            batch["v"] = [[float(len(pathlib.Path(p).read_bytes())), 1.0] for p in batch["local_path"]]
            batch["suffix"] = [pathlib.Path(p).suffix for p in batch["local_path"]]
            return batch
        return {"steps": [step]}
    """
    image = base64.b64encode(b"\x89PNG" + bytes(96)).decode()
    rows = [
        row(0, None, blob_base64=image, mime_type="image/png"),
        row(1, None, blob_base64="not base64!"),
        row(2, None, blob_base64="", mime_type="image/png"),
        row(3, None, blob_base64=7),
    ]
    reply = runner(publish(runner, reads), rows, operation="embed")
    assert by_row(reply, "v") == {0: [[100.0, 1.0]], 2: [[0.0, 1.0]]}
    assert reply["outputs"][0]["columns"] == {"suffix": ".png"}
    assert [(f["row"], f["code"]) for f in reply["failures"]] == [(1, "blob_invalid"), (3, "blob_invalid")]


REALTIME = {
    "a class on the base class that is called": """
        from shared.plugins.inference.serve import BaseInferenceService
        class InferenceService(BaseInferenceService):
            async def __call__(self, inputs, parameters):
                return ANSWER(inputs, parameters)
    """,
    "a class with run_inference": """
        class TextInferenceService:
            def run_inference(self, inputs, parameters):
                return ANSWER(inputs, parameters)
    """,
    "a class with both, the call going on to run_inference": """
        from shared.plugins.inference.serve import BaseInferenceService
        class MyInferenceService(BaseInferenceService):
            def __init__(self, **kwargs):
                super().__init__(**kwargs)
            async def run_inference(self, inputs, parameters):
                return ANSWER(inputs, parameters)
            async def __call__(self, inputs, parameters):
                return await self.run_inference(inputs, parameters)
    """,
    "a factory": """
        def get_inference_service(**kwargs):
            class Service:
                async def run_inference(self, inputs, parameters):
                    return ANSWER(inputs, parameters)
            return Service()
    """,
    "a factory of a function": """
        async def get_inference_service(config=None):
            return lambda inputs, parameters: ANSWER(inputs, parameters)
    """,
}
ANSWERS = """
import numpy as np
def ANSWER(inputs, parameters):
    scale = parameters.get("scale", 1)
    if "pairs" in inputs:
        return {"scores": np.array([float(len(q) * len(d)) for q, d in inputs["pairs"]])}
    if "texts" in inputs:
        return {"embeddings": [[float(len(t)) * scale, 1] for t in inputs["texts"]]}
    return {"embedding": np.array([len(inputs["text"]) * scale, 1], np.float32), "model": "letters"}
"""


def ask(runner, plugin, inputs, **more):
    event = {"operation": "realtime", "inputs": inputs, "features": [{"name": "v", "dims": 2}], "rows": None}
    return runner(plugin, [], **{**event, **more})


@pytest.mark.parametrize("text", REALTIME.values(), ids=REALTIME.keys())
def test_each_form_of_realtime_answers_texts_lists_and_pairs(runner, text):
    plugin = publish(runner, STEP, ANSWERS + textwrap.dedent(text))
    one = ask(runner, plugin, {"text": "abc"}, parameters={"scale": 2})
    assert one["answer"] == {"embedding": [6.0, 1.0], "model": "letters"}
    assert ask(runner, plugin, {"texts": ["a", "bcd"]})["answer"] == {"embeddings": [[1.0, 1], [3.0, 1]]}
    assert ask(runner, plugin, {"pairs": [["ab", "c"], ["d", "e"]]})["answer"] == {"scores": [2.0, 1.0]}
    assert set(one) == {"answer", "logs", "timings", "warnings"} and one["timings"]["total_ms"] > 0


def test_a_service_for_lists_only_is_asked_with_a_list(runner):
    plugin = publish(
        runner,
        STEP,
        """
        class AnInferenceService:
            def run_inference(self, inputs, parameters):
                return {"embeddings": [[len(t), 1] for t in inputs["texts"]]}
        """,
    )
    assert ask(runner, plugin, {"text": "abc"})["answer"] == {"embeddings": [[3, 1]]}


def test_realtime_gets_secrets_and_what_it_prints_is_kept(runner):
    plugin = publish(
        runner,
        STEP,
        """
        class AnInferenceService:
            def __init__(self, container=None):
                self.container = container
            async def __call__(self, inputs, parameters):
                print("asked with", self.container.secrets.get("KEY"))
                return {"length": len(await self.container.secrets.get("KEY"))}
        """,
    )
    reply = ask(runner, plugin, {"text": "x"}, secrets={"KEY": "very-secret"})
    assert reply["answer"] == {"length": 11} and reply["logs"] == "asked with [secret KEY]\n"


WRONG = {
    "too few numbers": ('{"embedding": [1.0]}', "vector_wrong_shape", "expected 2 numbers, got 1"),
    "one of many too long": ('{"embeddings": [[1.0, 2.0, 3.0]]}', "vector_wrong_shape", "embeddings[0]"),
    "too many vectors": ('{"embeddings": [[1.0, 2.0]] * 2}', "realtime_wrong_answer", "2 vectors for 1"),
    "the feature's name": ('{"v": [1.0]}', "vector_wrong_shape", "v: expected 2"),
    "texts for numbers": ('{"embedding": ["1", "2"]}', "vector_not_numeric", "embedding[0]"),
    "booleans for numbers": ('{"embedding": [True, False]}', "vector_not_numeric", "a bool"),
    "no list": ('{"embedding": "abc"}', "vector_not_numeric", "a str"),
    "NaN": ('{"embedding": [float("nan"), 1.0]}', "vector_not_finite", "nan"),
    "beyond float32": ('{"embedding": [1e300, 1.0]}', "vector_not_finite", "float32"),
    "infinity elsewhere": ('{"score": float("inf")}', "vector_not_finite", "answer.score"),
    "an object": ('{"x": object()}', "realtime_wrong_answer", "object"),
    "bytes": ('b"abc"', "realtime_wrong_answer", "bytes"),
    "a set": ("{1, 2}", "realtime_wrong_answer", "set"),
    "a key that is a number": ("{1: 2}", "realtime_wrong_answer", "key"),
    "a huge integer": ('{"n": 10 ** 40}', "realtime_wrong_answer", "64 bits"),
    "a cycle": ("(lambda x: x.append(x) or x)([])", "realtime_wrong_answer", "deep"),
    "too much": ('{"x": "a" * (5 << 20)}', "realtime_wrong_answer", "bytes"),
    "too many parts": ('{"x": [0] * 3_000_000}', "realtime_wrong_answer", "parts"),
    "an error": ("1 / 0", "realtime_failed", "ZeroDivisionError"),
    "an exit": ("exit(3)", "realtime_failed", "SystemExit"),
    "memory": ("bytearray(8 << 30)", "plugin_memory", "MemoryError"),
    "the end of its process": ("__import__('os')._exit(4)", "plugin_died", "exit code 4"),
}


@pytest.mark.parametrize(("answer", "code", "message"), WRONG.values(), ids=WRONG.keys())
def test_an_answer_that_is_not_as_it_must_be_fails_the_question_and_the_next_one_is_answered(
    runner, answer, code, message
):
    text = f"""
    class AnInferenceService:
        def run_inference(self, inputs, parameters):
            return {{"embedding": [1, 2]}} if inputs["text"] == "good" else {answer}
    """
    plugin = publish(runner, STEP, text)
    error = ask(runner, plugin, {"text": "bad"})["error"]
    assert error["code"] == code and message in error["message"], error
    assert ask(runner, plugin, {"text": "good"})["answer"] == {"embedding": [1, 2]}
    if code == "realtime_failed":
        assert 'File "realtime.py", line 4, in run_inference' in error["traceback"]


def test_a_service_that_hangs_is_given_up_and_one_that_is_missing_is_named(runner):
    hangs = publish(
        runner, STEP, "class AnInferenceService:\n    def __call__(self, inputs):\n        while True: pass"
    )
    assert ask(runner, hangs, {"text": "x"}, deadline_ms=400)["error"]["code"] == "plugin_timeout"
    error = ask(runner, publish(runner), {"text": "x"})["error"]
    assert error["code"] == "plugin_load_failed" and "realtime.py" in error["message"]


def test_questions_of_a_wrong_form_are_refused(runner):
    for inputs in (None, "text", ["text"], {"text": "x" * (5 << 20)}):
        assert ask(runner, publish(runner), inputs)["error"]["code"] == "bad_request"


def test_a_failed_row_has_the_traceback_of_the_plugins_own_frames(runner):
    fails = """
    import json
    from .deeper import parse
    def build_steps(**kwargs):
        def step(batch):
            batch["v"] = [parse(t) for t in batch["data"]]
            return batch
        return {"steps": [step]}
    """
    deeper = """
    import json
    def parse(text):
        try:
            return json.loads(text)
        except ValueError as fault:
            raise RuntimeError("no vector in " + text) from fault
    """
    plugin = publish(runner, fails, **{"deeper.py": textwrap.dedent(deeper), "__init__.py": ""})
    reply = runner(plugin, ["[1, 2]", "{"])
    (failure,) = reply["failures"]
    trace = failure["traceback"].split("\n")
    assert trace[0] == "Traceback (most recent call last):"
    assert trace[1:3] == ['  File "deeper.py", line 5, in parse', "    return json.loads(text)"]
    assert trace[3].startswith("JSONDecodeError: ")
    assert trace[-1] == "RuntimeError: no vector in {"
    assert '  File "pipeline.py", line 6, in step' in trace
    assert not [line for line in trace if "decoder.py" in line or "/tmp" in line or "_worker" in line]


def test_a_traceback_is_short_even_of_a_deep_recursion_and_keeps_its_end(runner):
    deep = """
    def build_steps(**kwargs):
        def down(n):
            if n == 0:
                raise ValueError("x" * 100_000)
            return down(n - 1)
        def step(batch):
            return down(900)
        return {"steps": [step]}
    """
    trace = runner(publish(runner, deep), ["a"])["failures"][0]["traceback"]
    assert len(trace) <= 4000 and "more times]" in trace and "ValueError: xxx" in trace


def test_a_vector_fault_has_no_traceback_and_a_load_fault_has_one(runner):
    odd = STEP.replace("[float(len(str(t))), 1.0]", "[1.0]")
    assert runner(publish(runner, odd), ["a"])["failures"][0]["traceback"] is None
    broken = runner(publish(runner, "x = 1\ny = x / 0\n"), ["a"])
    assert 'File "pipeline.py", line 2' in broken["error"]["traceback"]


def test_warnings_of_python_are_kept_once_with_their_number_and_not_printed(runner):
    warns = """
    import warnings
    warnings.warn("at import")
    def build_steps(**kwargs):
        warnings.warn("when built", RuntimeWarning)
        def step(batch):
            for text in batch["data"]:
                warnings.warn("look out", UserWarning)
                warnings.warn("old", DeprecationWarning)
            batch["v"] = [[1.0, 2.0]] * len(batch)
            return batch
        return {"steps": [step]}
    """
    reply = runner(publish(runner, warns), ["a"] * 6, batch_size=2)
    assert sorted(reply["warnings"]) == [
        "DeprecationWarning: old (pipeline.py:9) [6 times]",
        "RuntimeWarning: when built (pipeline.py:5)",
        "UserWarning: at import (pipeline.py:3)",
        "UserWarning: look out (pipeline.py:8) [6 times]",
    ]
    assert reply["logs"] == ""


def test_warnings_are_bounded_in_number_and_length(runner):
    floods = """
    import warnings
    def build_steps(**kwargs):
        def step(batch):
            for n in range(1000):
                warnings.warn(f"{n} " + "x" * 10_000)
            batch["v"] = [[1.0, 2.0]] * len(batch)
            return batch
        return {"steps": [step]}
    """
    warnings = runner(publish(runner, floods), ["a"])["warnings"]
    assert len(warnings) == 20 and max(map(len, warnings)) < 500


def test_what_is_printed_is_kept_from_both_streams(runner):
    prints = STEP.replace(
        "def step(batch):",
        "def step(batch):\n        import sys; print('out'); print('err', file=sys.stderr); sys.stdout.write('\\ud800')",
    )
    assert runner(publish(runner, prints), ["a"])["logs"] == "out\nerr\n\\ud800"


def test_one_tenants_process_and_files_are_not_anothers(runner):
    remembers = """
    import os
    seen = []
    def build_steps(**kwargs):
        def step(batch):
            batch["before"] = [[list(seen), os.listdir(".")]] * len(batch)
            seen.extend(batch["data"])
            open("left", "w").close()
            batch["v"] = [[1.0, 2.0]] * len(batch)
            return batch
        return {"steps": [step]}
    """
    plugin = publish(runner, remembers)
    first, second = (columns(runner(plugin, ["mine"], tenant=t)) for t in ("org/a", "org/b"))
    again = columns(runner(plugin, ["x"], tenant="org/a"))
    assert first == second == [{"before": [[], []]}] and again == [{"before": [["mine"], ["left"]]}]


def test_files_that_a_plugin_changed_are_unpacked_anew_for_its_next_process(runner):
    plugin = publish(runner, STEP + "\n# unpacked anew\n")
    assert by_row(runner(plugin, ["abc"]), "v") == {0: [[3.0, 1.0]]}
    plugins = runner.modules.handler._plugins
    (key,) = [key for key in plugins._workers if key.endswith(plugin["sha256"])]
    for change in ("edited", "added", "removed"):
        file = plugins._unpacked[key].folder / "pipeline.py"
        if change == "edited":
            file.chmod(0o644)
            file.write_text("raise SystemExit('not what was uploaded')")
        elif change == "added":
            (file.parent / "pandas.py").write_text("raise SystemExit")
        else:
            file.unlink()
        plugins.lose(key, at_once=True, mask=load_function("plugin-runner", "_secrets")._secrets.Mask({}))
        assert by_row(runner(plugin, ["abc"]), "v") == {0: [[3.0, 1.0]]}, change
