"""The ways in which plugins are written, each run for real: entries, signatures, prepare, imports, changes to
the rows."""

from __future__ import annotations

import textwrap

import pytest
from conftest import by_row, row

EMBED = """
def embed(text):
    return [float(len(str(text))), 1.0]

def step(batch):
    batch["v"] = [embed(t) for t in batch["data"]]
    return batch
"""
LENGTHS = {0: [[3.0, 1.0]], 1: [[5.0, 1.0]]}
ROWS = ["abc", "hello"]


def pipeline(text, embed=EMBED):
    return embed + textwrap.dedent(text)


ENTRIES = {
    "build_steps with the five arguments": """
        def build_steps(extractor_request=None, container=None, base_steps=None, dataset_size=None,
        content_flags=None):
            assert base_steps == [] and content_flags == {} and dataset_size == 2 and container is not None
            return {"steps": base_steps + [step], "prepare": lambda ds: ds}
    """,
    "build_steps that takes everything": """
        def build_steps(**kwargs):
            offered = {"extractor_request", "container", "base_steps", "dataset_size", "content_flags"}
            assert set(kwargs) == offered
            return {"steps": [step]}
    """,
    "build_steps without arguments": """
        def build_steps():
            return {"steps": [step]}
    """,
    "build_steps with one argument, keyword only": """
        def build_steps(*, dataset_size):
            assert dataset_size == 2
            return {"steps": [step]}
    """,
    "build_steps with positional-only arguments": """
        def build_steps(extractor_request, /, dataset_size=0):
            assert extractor_request.feature_extractor_id == "p_1_0_0" and dataset_size == 2
            return {"steps": [step]}
    """,
    "build_steps as a coroutine": """
        async def build_steps(**kwargs):
            return {"steps": [step]}
    """,
    "extract alone, without a container": """
        def extract(**kwargs):
            assert "container" not in kwargs
            class Result:
                steps = [step]
                prepare = None
            return Result()
    """,
    "both entries: build_steps is used": """
        def extract(**kwargs):
            raise AssertionError("not this one")
        def build_steps(**kwargs):
            return {"steps": [step]}
    """,
    "a plain list of steps": """
        def build_steps(**kwargs):
            return [step]
    """,
    "a tuple of steps": """
        def build_steps(**kwargs):
            return {"steps": (step,)}
    """,
    "a step that is a class": """
        class Step:
            def __init__(self, config=None, **kwargs):
                self.config = config or {}
            def __call__(self, batch):
                return step(batch)
        def build_steps(**kwargs):
            return {"steps": [Step]}
    """,
    "a step that is a coroutine function": """
        import asyncio
        async def later(batch):
            await asyncio.sleep(0)
            return step(batch)
        def build_steps(**kwargs):
            return {"steps": [later]}
    """,
    "an object whose call is a coroutine": """
        class Later:
            async def __call__(self, batch):
                return step(batch)
        def build_steps(**kwargs):
            return {"steps": [Later()]}
    """,
    "a step that runs a loop of its own": """
        import asyncio
        async def inner(batch):
            return step(batch)
        def build_steps(**kwargs):
            return {"steps": [lambda batch: asyncio.run(inner(batch))]}
    """,
    "two steps, the second using the first": """
        def first(batch):
            batch["text"] = batch["data"].str.upper()
            return batch
        def second(batch):
            batch["v"] = [embed(t) for t in batch["text"]]
            return batch.drop(columns=["text"])
        def build_steps(**kwargs):
            return {"steps": [first, second]}
    """,
    "arrays instead of lists": """
        import numpy as np
        def arrays(batch):
            batch["v"] = [np.array(embed(t)) for t in batch["data"]]
            return batch
        def build_steps(**kwargs):
            return {"steps": [arrays]}
    """,
    "a declared pipeline": """
        from engine.plugins.extractors.pipeline import (
            PipelineDefinition, StepDefinition, RowCondition, build_pipeline_steps)
        class Service:
            def __init__(self, scale=1, config=None):
                assert scale == 2 and config == {"scale": 2}
            def __call__(self, batch):
                return step(batch)
        class Never:
            def __call__(self, batch):
                raise AssertionError
        def build_steps(**kwargs):
            return build_pipeline_steps(PipelineDefinition("p", "1.0.0", [
                StepDefinition(Service, "cpu", {"scale": 2}, condition=RowCondition.IS_TEXT),
                StepDefinition(Never, condition=RowCondition.IS_IMAGE),
                StepDefinition(Never, enabled=False),
            ]))
    """,
    "prepare is the identity": """
        def build_steps(**kwargs):
            return {"steps": [step], "prepare": lambda ds: ds}
    """,
    "prepare does everything": """
        def build_steps(**kwargs):
            return {"steps": [], "prepare": step}
    """,
    "prepare is a coroutine": """
        async def prepare(ds):
            return ds
        def build_steps(**kwargs):
            return {"steps": [step], "prepare": prepare}
    """,
    "prepare maps batches in a chain, as on Ray": """
        class Upper:
            def __init__(self, suffix):
                self.suffix = suffix
            def __call__(self, batch):
                batch["data"] = [t.upper() for t in batch["data"]]
                return batch
        def build_steps(**kwargs):
            return {"steps": [step], "prepare": lambda ds: ds.map_batches(
                Upper, fn_constructor_args=("x",), batch_size=1, num_cpus=1, batch_format="pandas",
            ).map_batches(lambda b: b)}
    """,
    "prepare maps batches of arrays": """
        def double(batch):
            batch["data"] = [t[::-1] for t in batch["data"]]
            return batch
        def build_steps(**kwargs):
            return {"steps": [step], "prepare": lambda ds: ds.map_batches(double, batch_format="numpy")}
    """,
    "prepare maps rows": """
        def build_steps(**kwargs):
            return {"steps": [step], "prepare": lambda ds: ds.map(lambda row: {**row, "data":
            row["data"][::-1]})}
    """,
    "prepare is written for pandas": """
        import pandas as pd
        def prepare(ds):
            assert isinstance(ds, pd.DataFrame) and ds.count() == 2 and len(ds) == 2
            assert type(ds.to_pandas()) is pd.DataFrame
            ds.at[0, "data"] = "abc"
            kept = ds.dropna(subset=["data"])
            assert type(kept) is pd.DataFrame
            sizes = kept.groupby("blob_property").size()
            assert sizes["text"] == 2
            return kept.merge(pd.DataFrame({"object_id": ["obj_0", "obj_1"], "extra": [1, 2]}),
            on="object_id")
        def build_steps(**kwargs):
            return {"steps": [step], "prepare": prepare}
    """,
    "the container says that it has no services": """
        def build_steps(container=None, **kwargs):
            try:
                container.llm
            except AttributeError as error:
                assert "not available" in str(error)
            else:
                raise AssertionError
            return {"steps": [step]}
    """,
    "helpers of the hosted product": """
        from shared.plugins.sdk import concurrent_api_calls, parallel_io
        async def one(text):
            return embed(text)
        async def helped(batch):
            batch["v"] = await concurrent_api_calls(list(batch["data"]), one, max_concurrent=2)
            assert parallel_io(list(batch["data"]), embed, max_workers=4) == list(batch["v"])
            return batch
        def build_steps(**kwargs):
            return {"steps": [helped]}
    """,
}


@pytest.mark.parametrize("text", ENTRIES.values(), ids=ENTRIES.keys())
def test_each_way_of_writing_the_entry_gives_the_same_vectors(runner, text):
    reply = runner(runner.publish({"pipeline.py": pipeline(text)}, "p_1_0_0"), ROWS)
    assert (reply.get("error"), reply.get("failures")) == (None, []), reply
    assert by_row(reply, "v") == LENGTHS


IMPORTS = {
    "relative": {
        "pipeline.py": "from .u import step\ndef build_steps(**k): return {'steps': [step]}",
        "u.py": EMBED,
    },
    "absolute by the package's name": {
        "pipeline.py": "from my_plugin.u import step\ndef build_steps(**k): return {'steps': [step]}",
        "u.py": EMBED,
    },
    "from processors": {
        "pipeline.py": "from processors.core import step\ndef build_steps(**k): return {'steps': [step]}",
        "processors/__init__.py": "",
        "processors/core.py": EMBED,
    },
    "from processors without __init__": {
        "pipeline.py": "from processors.core import step\ndef build_steps(**k): return {'steps': [step]}",
        "processors/core.py": EMBED,
    },
    "relative from processors, which reaches up": {
        "pipeline.py": "from .processors.core import step\ndef build_steps(**k): return {'steps': [step]}",
        "processors/__init__.py": "",
        "processors/core.py": "from ..u import step",
        "u.py": EMBED,
    },
    "vendored": {
        "pipeline.py": "import wheel_of_theirs\ndef build_steps(**k): return {'steps': [wheel_of_theirs.step]}",
        "vendor/wheel_of_theirs/__init__.py": EMBED,
    },
    "names that the runner uses too": {
        "pipeline.py": "import _vectors, handler, _contract\ndef build_steps(**k): return {'steps': [_vectors.step]}",
        "_vectors.py": EMBED,
        "handler.py": "",
        "_contract.py": "",
    },
    "a package of its own called shared": {
        "pipeline.py": "from shared.mine import step\ndef build_steps(**k): return {'steps': [step]}",
        "shared/__init__.py": "",
        "shared/mine.py": EMBED,
    },
    "late, of the standard library": {
        "pipeline.py": EMBED
        + "def build_steps(**k):\n    import colorsys, sqlite3, xmlrpc.client\n    return {'steps': [step]}",
    },
    "late, of pandas": {
        "pipeline.py": EMBED
        + "def build_steps(**k):\n    import pandas.plotting, numpy.polynomial\n    return {'steps': [step]}",
    },
    "weights beside the code": {
        "pipeline.py": EMBED
        + "import json\nfrom pathlib import Path\n"
        + "W = json.loads((Path(__file__).resolve().parent / 'models' / 'w.json').read_text())\n"
        + "def build_steps(**k):\n    assert W == {'a': 1}\n    return {'steps': [step]}",
        "models/w.json": '{"a": 1}',
    },
}


@pytest.mark.parametrize("top", ["my_plugin/", ""], ids=["under a top folder", "at the root"])
@pytest.mark.parametrize("files", IMPORTS.values(), ids=IMPORTS.keys())
def test_each_way_of_importing_works(runner, files, top):
    reply = runner(runner.publish({"__init__.py": "", **files}, "my_plugin_1_0_0", top), ROWS)
    assert (reply.get("error"), reply.get("failures")) == (None, []), reply
    assert by_row(reply, "v") == LENGTHS


def run_step(runner, body, rows, **more):
    text = (
        "def embed(text):\n    return [float(len(str(text))), 1.0]\n\ndef step(batch):\n"
        + textwrap.indent(textwrap.dedent(body), "    ")
    )
    files = {"pipeline.py": text + "\ndef build_steps(**kwargs):\n    return {'steps': [step]}\n"}
    return runner(runner.publish(files, "p_1_0_0"), rows, **more)


def test_none_stays_none_and_the_columns_hold_objects(runner):
    body = """
        assert batch["data"].dtype == object and batch["mime_type"].dtype == object
        batch["v"] = [None if t is None else embed(t) for t in batch["data"]]
        batch["seen"] = [repr(t) for t in batch["data"]]
        return batch
    """
    reply = run_step(runner, body, ["abc", None])
    assert by_row(reply, "v") == {0: [[3.0, 1.0]], 1: [None]}
    assert [o["columns"] for o in reply["outputs"]] == [{"seen": "'abc'"}, {"seen": "None"}]


def test_the_frame_has_the_documented_columns_with_the_rows_values(runner):
    body = """
        batch["v"] = [embed(t) for t in batch["data"]]
        batch["seen"] = batch.drop(columns=["v"]).to_dict("records")
        return batch
    """
    given = row(7, "abc", __s3_url="s3://b/k")
    (output,) = run_step(runner, body, [given])["outputs"]
    expected = {("__row" if k == "row" else k): v for k, v in given.items()}
    assert output["columns"]["seen"] == {**expected, "local_path": None}


def test_frames_have_the_batch_size_and_the_rest_comes_last(runner):
    body = """
        batch["v"] = [[float(len(batch)), 0.0]] * len(batch)
        return batch
    """
    reply = run_step(runner, body, ["a"] * 10, batch_size=4)
    assert [v[0][0] for v in by_row(reply, "v").values()] == [4.0] * 8 + [2.0] * 2


def test_rows_that_are_filtered_reordered_and_multiplied_keep_their_identity(runner):
    body = """
        batch = batch.iloc[::-1]
        batch = batch[batch["data"] != "drop"]
        batch = batch.assign(data=[t.split() for t in batch["data"]]).explode("data").reset_index(drop=True)
        batch["v"] = [embed(t) for t in batch["data"]]
        batch["part"] = batch["data"]
        return batch
    """
    reply = run_step(runner, body, [row(5, "one three"), row(3, "drop"), row(9, "four")])
    assert by_row(reply, "v") == {5: [[3.0, 1.0], [5.0, 1.0]], 9: [[4.0, 1.0]]}
    assert reply["dropped"] == [3]
    assert [(o["row"], o["ordinal"], o["columns"]["part"]) for o in reply["outputs"]] == [
        (5, 0, "one"),
        (5, 1, "three"),
        (9, 0, "four"),
    ]


def test_a_new_table_of_the_same_length_is_matched_by_position(runner):
    body = """
        import pandas as pd
        return pd.DataFrame({"v": [embed(t) for t in batch["data"]]})
    """
    assert by_row(run_step(runner, body, ROWS), "v") == LENGTHS


@pytest.mark.parametrize(
    "body",
    [
        "import pandas as pd\nreturn pd.DataFrame({'v': [[1.0, 2.0]]})",
        "batch = batch.drop(columns=['__row']).iloc[:1]\nbatch['v'] = [[1.0, 2.0]]\nreturn batch",
        "batch['__row'] = 77\nbatch['v'] = [[1.0, 2.0]] * len(batch)\nreturn batch",
        "batch['__row'] = None\nbatch['v'] = [[1.0, 2.0]] * len(batch)\nreturn batch",
    ],
    ids=["a shorter new table", "the column dropped and a row too", "a number not given", "no numbers"],
)
def test_lost_row_identity_is_an_error_of_the_frame_that_says_what_to_keep(runner, body):
    reply = run_step(runner, body, ["a", "b", "c"], batch_size=3)
    assert reply["outputs"] == []
    assert [(f["row"], f["code"]) for f in reply["failures"]] == [(n, "row_identity_lost") for n in range(3)]
    assert "__row" in reply["failures"][0]["message"]


def test_more_than_a_hundred_outputs_of_a_row_fail_that_row_only(runner):
    body = """
        batch = batch.loc[batch.index.repeat([101 if t == "many" else 100 for t in batch["data"]])]
        batch["v"] = [[1.0, 2.0]] * len(batch)
        return batch.reset_index(drop=True)
    """
    reply = run_step(runner, body, ["many", "few"])
    assert {o["row"] for o in reply["outputs"]} == {1} and len(reply["outputs"]) == 100
    assert [(f["row"], f["code"]) for f in reply["failures"]] == [(0, "too_many_outputs")]


def test_a_row_with_content_for_which_no_step_wrote_the_column_is_a_failure_and_a_blank_one_is_not(runner):
    reply = run_step(runner, "batch['vv'] = [[1.0, 2.0]] * len(batch)\nreturn batch", ["abc", "  ", None])
    assert [(f["row"], f["code"]) for f in reply["failures"]] == [(0, "feature_column_missing")]
    assert "vv" in reply["failures"][0]["message"]
    assert by_row(reply, "v") == {1: [None], 2: [None]}


def test_outputs_without_any_vector_are_warned_of_and_single_ones_are_not(runner):
    some = "[[1.0, 2.0] if t == 'has' else None for t in batch['data']]"
    text = f"""
        def build_steps():
            def step(batch):
                batch["v"] = {some}
                return batch
            return {{"steps": [step]}}
    """
    plugin = runner.publish({"pipeline.py": pipeline(text)}, "p_1_0_0")
    assert runner(plugin, ["has", "has not"])["warnings"] == []
    assert runner(plugin, ["has not", "nor this"])["warnings"] == [
        "none of 2 outputs has a vector, so no search finds them"
    ]


def test_one_of_two_features_may_be_missing(runner):
    features = [{"name": "v", "dims": 2}, {"name": "w", "dims": 3}]
    body = "batch['w'] = [[1.0, 2.0, 3.0], None]\nreturn batch"
    reply = run_step(runner, body, ROWS, features=features)
    assert (
        reply["failures"] == []
        and reply["vectors"]["v"]["count"] == 0
        and reply["vectors"]["w"]["count"] == 1
    )
    assert [o["features"] for o in reply["outputs"]] == [{"v": None, "w": 0}, {"v": None, "w": None}]


def test_columns_of_the_plugin_come_back_as_json_and_input_columns_do_not(runner):
    body = """
        import datetime, numpy as np, pandas as pd
        batch["v"] = [embed(t) for t in batch["data"]]
        batch["data"] = "changed"
        batch["number"] = np.int64(3)
        batch["share"] = [0.5, float("nan")]
        batch["nested"] = [{"a": [1, np.float32(2.0), None]}, (True, "x")]
        batch["day"] = pd.Timestamp("2026-01-02")
        batch["bytes"] = [b"x", 1]
        batch["surrogate"] = "\\ud800"
        batch["__hidden"] = 1
        batch[5] = 1
        return batch
    """
    reply = run_step(runner, body, ROWS)
    first, second = (o["columns"] for o in reply["outputs"])
    assert first == {
        "number": 3,
        "share": 0.5,
        "nested": {"a": [1, 2.0, None]},
        "day": "2026-01-02T00:00:00",
        "surrogate": "?",
    }
    assert second == {
        "number": 3,
        "share": None,
        "nested": [True, "x"],
        "day": "2026-01-02T00:00:00",
        "surrogate": "?",
        "bytes": 1,
    }
    assert reply["warnings"] == ['column "bytes": 1 values have no form in JSON and were left out']


def test_parameters_reach_the_plugin_by_attribute_and_by_key(runner):
    text = """
        def build_steps(extractor_request=None, **kwargs):
            config = extractor_request.extractor_config
            assert config.parameters is not None and config["params"]["scale"] == config.parameters.scale
            assert extractor_request["extractor_config"].params.get("missing", 4) == 4
            scale = config.parameters["scale"] * config.params.inner.factor
            def scaled(batch):
                batch["v"] = [[n * scale for n in embed(t)] for t in batch["data"]]
                return batch
            return {"steps": [scaled]}
    """
    plugin = runner.publish({"pipeline.py": pipeline(text)}, "p_1_0_0")
    for scale in (2, 3, 2):
        reply = runner(plugin, ["abc"], parameters={"scale": scale, "inner": {"factor": 10}})
        assert by_row(reply, "v") == {0: [[30.0 * scale, 10.0 * scale]]}


LOAD_FAULTS = {
    "syntax error": ("def build_steps(:", "pipeline.py:1"),
    "import error": ("import nothing_of_that_name", "ModuleNotFoundError"),
    "a package that is not there": ("import torch_of_tomorrow", "(pipeline.py:1 in <module>); what the runtime lacks"),
    "a package that is not there, far below": (
        "import importlib\nimportlib.import_module('torch_of_tomorrow')",
        "goes under vendor/",
    ),
    "sys.exit at import": ("import sys\nsys.exit(3)", "SystemExit: 3 (pipeline.py:2"),
    "os._exit at import": ("import os\nos._exit(3)", "exit code 3"),
    "error in build_steps": (
        "def build_steps():\n    raise ValueError('no weights')",
        "ValueError: no weights (pipeline.py:2",
    ),
    "no entry": ("x = 1", "neither build_steps nor extract"),
    "an argument that is not offered": ("def build_steps(session):\n    return {}", '"session"'),
    "nothing returned": ("def build_steps():\n    return None", "NoneType"),
    "no steps": ("def build_steps():\n    return {'steps': []}", "no steps"),
    "a step that is no step": ("def build_steps():\n    return {'steps': ['x']}", "step 0 is a str"),
    "prepare that is no function": (
        "def build_steps():\n    return {'steps': [print], 'prepare': 5}",
        "prepare",
    ),
    "memory at import": ("x = bytearray(64 << 30)", "MemoryError"),
}


@pytest.mark.parametrize(("text", "expected"), LOAD_FAULTS.values(), ids=LOAD_FAULTS.keys())
def test_a_plugin_that_does_not_load_fails_the_call_with_its_file_and_line(runner, text, expected):
    reply = runner(runner.publish({"pipeline.py": text}, "p_1_0_0"), ROWS)
    assert set(reply) == {"error", "logs", "timings"}
    assert reply["error"]["code"] == "plugin_load_failed" and reply["error"]["retryable"] is False
    assert expected in reply["error"]["message"]


def test_a_plugin_that_never_finishes_loading_is_given_up(runner):
    reply = runner(runner.publish({"pipeline.py": "while True: pass"}, "p_1_0_0"), ROWS, deadline_ms=700)
    assert reply["error"]["code"] == "plugin_load_timeout" and reply["error"]["retryable"] is True


REALTIME = {
    "a class with run_inference": """
        class TextInferenceService:
            def run_inference(self, inputs, parameters):
                return {"embedding": [len(inputs["text"]), 1]}
    """,
    "a class that is called": """
        class InferenceService:
            def __call__(self, inputs, parameters):
                return {"embedding": [len(inputs["text"]), 1]}
    """,
    "an async class on the base class": """
        from shared.plugins.inference.serve import BaseInferenceService
        class InferenceService(BaseInferenceService):
            async def __call__(self, inputs, parameters):
                return {"embeddings": [[len(inputs["text"]), 1]]}
    """,
    "a factory": """
        class Service:
            def run_inference(self, inputs, parameters=None):
                return {"embedding": [len(inputs["text"]), 1]}
        def get_inference_service(**kwargs):
            return Service()
    """,
    "a factory without arguments of a function": """
        def get_inference_service():
            return lambda inputs: {"embedding": [len(inputs["text"]), 1]}
    """,
    "an async factory and arrays": """
        import numpy as np
        class Service:
            async def run_inference(self, inputs, parameters):
                return {"embeddings": np.array([[len(inputs["text"]), 1]])}
        async def get_inference_service(config=None):
            return Service()
    """,
    "lists only": """
        class ListInferenceService:
            def run_inference(self, inputs, parameters):
                return {"embeddings": [[len(t), 1] for t in inputs["texts"]]}
    """,
    "named by the feature": """
        from pipeline import embed
        class NamedInferenceService:
            def run_inference(self, inputs, parameters):
                return {"v": embed(inputs["text"])}
    """,
}


@pytest.mark.parametrize("text", REALTIME.values(), ids=REALTIME.keys())
def test_each_way_of_writing_realtime_gives_the_same_vectors(runner, text):
    files = {
        "pipeline.py": pipeline("def build_steps():\n    return {'steps': [step]}\n"),
        "realtime.py": textwrap.dedent(text),
    }
    reply = runner(runner.publish(files, "p_1_0_0"), ROWS, operation="embed", realtime=True)
    assert (reply.get("error"), reply.get("failures")) == (None, []), reply
    assert by_row(reply, "v") == LENGTHS


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("x = 1", "realtime_missing"),
        (None, "plugin_load_failed"),
        ("class XInferenceService:\n    def __init__(self):\n        raise ValueError", "plugin_load_failed"),
    ],
)
def test_a_realtime_that_cannot_be_used_fails_the_call(runner, text, code):
    files = {"pipeline.py": pipeline("def build_steps():\n    return {'steps': [step]}\n")}
    if text is not None:
        files["realtime.py"] = text
    reply = runner(runner.publish(files, "p_1_0_0"), ROWS, operation="embed", realtime=True)
    assert reply["error"]["code"] == code


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ('{"vector": [1, 2]}', "realtime_wrong_answer"),
        ("[1, 2]", "realtime_wrong_answer"),
        ('{"embeddings": []}', "realtime_wrong_answer"),
        ('{"embedding": [1, 2, 3]}', "vector_wrong_shape"),
        ('{"embedding": [1, float("nan")]}', "vector_not_finite"),
        ("1 / 0", "plugin_row_failed"),
    ],
)
def test_a_wrong_realtime_answer_fails_that_query_alone(runner, answer, code):
    files = {
        "pipeline.py": pipeline("def build_steps():\n    return {'steps': [step]}\n"),
        "realtime.py": "class AnInferenceService:\n    def run_inference(self, inputs, parameters):\n"
        "        return {'embedding': [1, 2]} if inputs['text'] == 'good' else " + answer,
    }
    reply = runner(runner.publish(files, "p_1_0_0"), ["bad", "good"], operation="embed", realtime=True)
    assert [(f["row"], f["code"]) for f in reply["failures"]] == [(0, code)]
    assert by_row(reply, "v") == {1: [[1.0, 2.0]]}
