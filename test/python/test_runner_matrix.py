"""Combinations of the ways in which plugins are written: signatures, forms of prepare with forms of steps,
conditions of declared steps by the kind of blob, files of the archive, modules of the hosted product."""

from __future__ import annotations

import itertools
import textwrap

import pytest
from conftest import by_row, row

STEP = """
def embed(text):
    return [float(len(str(text))), 1.0]

def step(batch):
    batch["v"] = [embed(t) for t in batch["data"]]
    return batch
"""
ARGUMENTS = ("extractor_request", "container", "base_steps", "dataset_size", "content_flags")
CHECKS = {
    "extractor_request": "extractor_request.extractor_config.parameters.scale == 2",
    "container": "container.secrets.list() == []",
    "base_steps": "base_steps == []",
    "dataset_size": "dataset_size == 2",
    "content_flags": "content_flags == {}",
}
ROWS = ["abc", "hello"]
LENGTHS = {0: [[3.0, 1.0]], 1: [[5.0, 1.0]]}


def run(runner, pipeline, rows=ROWS, files=None, **more):
    text = STEP + textwrap.dedent(pipeline)
    plugin = runner.publish({"pipeline.py": text, "__init__.py": "", **(files or {})}, "p_1_0_0")
    reply = runner(plugin, rows, parameters={"scale": 2}, **more)
    assert (reply.get("error"), reply.get("failures")) == (None, []), reply
    return reply


def subsets(names):
    return [c for size in range(len(names) + 1) for c in itertools.combinations(names, size)]


STYLES = {
    "required": lambda names: ", ".join(names),
    "with defaults": lambda names: ", ".join(f"{name}=None" for name in names),
    "keyword only and the rest": lambda names: ", ".join(["*", *names] if names else []) + (", " if names else "") + "**rest",
}


@pytest.mark.parametrize("style", STYLES.values(), ids=STYLES.keys())
@pytest.mark.parametrize("names", subsets(ARGUMENTS), ids=lambda names: "+".join(names) or "none")
def test_build_steps_gets_those_of_the_five_arguments_that_it_names(runner, names, style):
    checks = "".join(f"    assert {CHECKS[name]}\n" for name in names)
    rest = f"    assert set(rest) == set({ARGUMENTS}) - set({names})\n" if "rest" in style(names) else ""
    text = f"def build_steps({style(names)}):\n{checks}{rest}    return {{'steps': [step]}}\n"
    assert by_row(run(runner, text), "v") == LENGTHS


RESULTS = {
    "an object": "type('Result', (), {'steps': [step], 'prepare': None})()",
    "an object without prepare": "type('Result', (), {'steps': [step]})()",
    "a dict": "{'steps': [step], 'prepare': lambda ds: ds}",
    "a list": "[step]",
}


@pytest.mark.parametrize("result", RESULTS.values(), ids=RESULTS.keys())
@pytest.mark.parametrize("names", subsets([a for a in ARGUMENTS if a != "container"])[::3], ids="+".join)
def test_extract_gets_those_of_its_four_arguments_that_it_names(runner, names, result):
    checks = "".join(f"    assert {CHECKS[name]}\n" for name in names)
    text = f"def extract({', '.join(names)}):\n{checks}    return {result}\n"
    assert by_row(run(runner, text), "v") == LENGTHS


# What prepare does, and the vectors that come of it: "a" is dropped or doubled where it can be.
ONE, GONE, TWICE = [[1.0, 1.0]], None, [[1.0, 1.0], [1.0, 1.0]]
PREPARES = {
    "none": ("None", ONE),
    "identity": ("lambda ds: ds", ONE),
    "a DataFrame": ("lambda ds: ds[ds['data'] != 'a'].reset_index(drop=True)", GONE),
    "dropna, assign, sort": ("lambda ds: ds.dropna(subset=['data']).assign(x=1).sort_values('data')", ONE),
    "explode": (
        "lambda ds: ds.assign(data=[[t] * (2 if t == 'a' else 1) for t in ds['data']]).explode('data')",
        TWICE,
    ),
    "map_batches": ("lambda ds: ds.map_batches(lambda b: b[b['data'] != 'a'], batch_size=1)", GONE),
    "map_batches of arrays": (
        "lambda ds: ds.map_batches(lambda b: {k: v[b['data'] != 'a'] for k, v in b.items()}, batch_format='numpy')",
        GONE,
    ),
    "map": ("lambda ds: ds.map(lambda r: {**r, 'extra': 1})", ONE),
    "filter": ("lambda ds: ds.filter(lambda r: r['data'] != 'a')", GONE),
    "flat_map": ("lambda ds: ds.flat_map(lambda r: [r] * (2 if r['data'] == 'a' else 1))", TWICE),
    "a chain to pandas": ("lambda ds: ds.filter(lambda r: True).map(lambda r: r).to_pandas()", ONE),
    "a coroutine": ("wait", ONE),
}
STEPS = {
    "a function": "step",
    "a class": "Step",
    "an object": "Step()",
    "a coroutine function": "later",
    "an object whose call is a coroutine": "Later()",
    "declared": "StepDefinition(Step)",
    "declared for texts": "StepDefinition(Step, condition=RowCondition.IS_TEXT)",
    "reordering": "lambda b: step(b.iloc[::-1])",
}
FORMS = """
from engine.plugins.extractors.pipeline import StepDefinition, RowCondition
class Step:
    def __init__(self, config=None, **kwargs):
        self.config = config
    def __call__(self, batch):
        return step(batch)
async def later(batch):
    return step(batch)
class Later:
    async def __call__(self, batch):
        return step(batch)
async def wait(ds):
    return ds
"""


@pytest.mark.parametrize(("prepare", "expected"), PREPARES.values(), ids=PREPARES.keys())
def test_every_form_of_prepare_goes_with_every_form_of_step(runner, prepare, expected):
    # One plugin for each form of prepare; the form of step is a parameter, as a collection would set it.
    text = FORMS + f"""
def build_steps(extractor_request):
    steps = [{", ".join(STEPS.values())}]
    return {{"steps": [steps[extractor_request.extractor_config.params.form]], "prepare": {prepare}}}
"""
    plugin = runner.publish({"pipeline.py": STEP + text}, "p_1_0_0")
    others = {0: [[2.0, 1.0]], 2: [[3.0, 1.0]]}
    for form, name in enumerate(STEPS):
        reply = runner(plugin, ["bb", "a", "ccc"], parameters={"form": form})
        assert (reply.get("error"), reply.get("failures")) == (None, []), (name, reply)
        assert by_row(reply, "v") == (others | {1: expected} if expected else others), name
        assert reply["dropped"] == ([] if expected else [1]), name


KINDS = {
    "text": "text/plain",
    "image": "image/png",
    "video": "video/mp4",
    "audio": "audio/mpeg",
    "pdf": "application/pdf",
}


@pytest.mark.parametrize("by", ["blob_type", "mime_type"])
@pytest.mark.parametrize("condition", ["ALWAYS", *(f"IS_{kind.upper()}" for kind in KINDS)])
def test_a_declared_step_works_on_the_rows_that_meet_its_condition(runner, condition, by):
    text = f"""
    from engine.plugins.extractors.pipeline import (
        PipelineDefinition, StepDefinition, RowCondition, build_pipeline_steps)
    class Length:
        def __call__(self, batch):
            batch["v"] = [embed(t) for t in batch["data"]]
            batch["seen"] = len(batch)
            return batch
    class Never:
        def __call__(self, batch):
            raise AssertionError
    def build_steps(base_steps=None, **kwargs):
        return build_pipeline_steps(PipelineDefinition(name="p", version="1.0.0", steps=[
            StepDefinition(Length, condition=RowCondition.{condition}),
            StepDefinition(Never, condition=RowCondition.{condition}, enabled=False),
        ]), base_steps=base_steps)
    """
    rows = [
        row(n, kind, blob_type=kind, mime_type=None)
        if by == "blob_type"
        else row(n, kind, blob_type=None, mime_type=mime)
        for n, (kind, mime) in enumerate(KINDS.items())
    ]
    reply = run(runner, text, rows)
    met = [condition in ("ALWAYS", f"IS_{kind.upper()}") for kind in KINDS]
    assert by_row(reply, "v") == {
        n: [[float(len(kind)), 1.0] if met[n] else None] for n, kind in enumerate(KINDS)
    }
    assert [o["columns"].get("seen") for o in reply["outputs"] if met[o["row"]]] == [sum(met)] * sum(met)
    assert [o["row"] for o in reply["outputs"]] == list(range(len(KINDS)))


def test_declared_steps_keep_the_order_of_rows_when_some_are_multiplied_and_some_not_met(runner):
    text = """
    from engine.plugins.extractors.pipeline import StepDefinition, RowCondition
    import pandas as pd
    class Twice:
        def __call__(self, batch):
            return pd.concat([batch, batch], ignore_index=True)
    class Places:
        def __call__(self, batch):
            batch["v"] = [[float(n), 0.0] for n in range(len(batch))]
            return batch
    def build_steps(**kwargs):
        return [StepDefinition(Twice, condition="IS_IMAGE"), StepDefinition(Places)]
    """
    rows = [row(0, "a"), row(1, "b", blob_type="image", mime_type=None), row(2, "c")]
    assert by_row(run(runner, text, rows), "v") == {
        0: [[0.0, 0.0]],
        1: [[1.0, 0.0], [2.0, 0.0]],
        2: [[3.0, 0.0]],
    }


@pytest.mark.parametrize("written", ["from shared.plugins import", "from shared.plugins.sdk import"])
def test_files_of_the_archive_are_opened_as_assets_and_nothing_else_is(runner, written):
    text = f"""
    {written} open_asset, download_asset
    def refused(name):
        try:
            open_asset(name)
        except FileNotFoundError as error:
            return str(error)
    def build_steps(**kwargs):
        with open_asset("models/w.bin") as file:
            assert file.read() == b"12"
        with open_asset("models/w.bin", "r") as file:
            assert file.read() == "12"
        assert open(download_asset("models/w.bin")).read() == "12"
        for name in ("../../etc/passwd", "/etc/passwd", "models", "absent.bin", "models/../../../x"):
            assert "not in the archive" in refused(name), name
        assert "no network" in refused("s3://bucket/key")
        return [step]
    """
    assert by_row(run(runner, text, files={"models/w.bin": "12"}), "v") == LENGTHS


def test_helpers_for_many_items_keep_order_bound_what_runs_at_once_and_pass_errors_on(runner):
    text = """
    import asyncio
    from shared.plugins.sdk import parallel_io, concurrent_api_calls
    running, most = 0, 0
    async def one(n):
        global running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        return n * 2
    async def bad(n):
        raise ValueError("no")
    async def helped(batch):
        assert await concurrent_api_calls(range(9), one, max_concurrent=3) == [n * 2 for n in range(9)]
        assert most == 3
        try:
            await concurrent_api_calls([1], bad)
        except ValueError:
            return step(batch)
    def build_steps(**kwargs):
        assert parallel_io(range(5), lambda n: n + 1, max_workers=2) == [1, 2, 3, 4, 5]
        return [helped]
    """
    assert by_row(run(runner, text), "v") == LENGTHS


def test_what_needs_a_service_can_be_imported_and_says_that_it_is_not_there(runner):
    text = """
    from engine.models import load_hf_model, load_namespace_model, lazy_model
    from shared.inference.registry import get_batch_service
    def build_steps(container, **kwargs):
        for call in (load_hf_model, load_namespace_model, lazy_model, get_batch_service):
            try:
                call("x", y=1)
            except RuntimeError as error:
                assert "not available" in str(error) and "archive" in str(error)
            else:
                raise AssertionError
        try:
            container.llm.generate("hello")
        except AttributeError as error:
            assert "container.llm is not available" in str(error) and "container.secrets" in str(error)
        else:
            raise AssertionError
        assert getattr(container, "llm", None) is None
        return [step]
    """
    assert by_row(run(runner, text), "v") == LENGTHS


def test_several_features_each_keep_their_own_rows_and_lengths(runner):
    text = """
    def one(batch):
        batch["title"] = [[float(len(t))] * 3 if t != "hello" else None for t in batch["data"]]
        return batch
    def two(batch):
        batch["v"] = [embed(t) for t in batch["data"]]
        return batch
    def build_steps(**kwargs):
        return {"steps": [one, two]}
    """
    features = [{"name": "v", "dims": 2}, {"name": "title", "dims": 3}]
    reply = run(runner, text, features=features)
    assert by_row(reply, "v") == LENGTHS and by_row(reply, "title") == {0: [[3.0] * 3], 1: [None]}


def test_a_step_that_explodes_drops_and_turns_rows_round_at_once_keeps_every_identity(runner):
    text = """
    def build_steps(**kwargs):
        def split(batch):
            batch = batch[batch["data"].notna()].iloc[::-1]
            batch = batch.assign(data=[list(t) for t in batch["data"]]).explode("data")
            return batch.sample(frac=1, random_state=1)
        return {"steps": [split, step]}
    """
    reply = run(runner, text, ["ab", None, "cde", ""])
    assert {n: len(v) for n, v in by_row(reply, "v").items()} == {0: 2, 2: 3, 3: 1}
    assert reply["dropped"] == [1]
