"""What the validator says about manifests and code: every fault at once, with place, key and remedy, and
nothing executed."""

from __future__ import annotations

import base64
import json
import re
import textwrap

import pytest
from conftest import PLUGINS, ROOT, load_function, read_plugin

MODULES = load_function("plugin-validator", "handler", "_manifest", "_findings", "_source")
TUTORIAL = ROOT.parent / "shared" / "reference" / "text_embed"

FEATURE = (
    '{"feature_type": "embedding", "feature_name": "p_v1", "embedding_dim": 128, "distance_metric": "cosine"}'
)
GOOD = f"""feature_extractor_name = "my_plugin"
version = "1.0.0"
features = [{FEATURE}]
"""
PIPELINE = "def build_steps(**kwargs):\n    return {'steps': [], 'column': 'p_v1'}\n"


def validate(files, name="my_plugin", version="1.0.0", others=(), **more):
    encoded = [
        {"path": path, "content_base64": base64.b64encode(c if isinstance(c, bytes) else c.encode()).decode()}
        for path, c in files.items()
    ]
    answer = MODULES.handler.handler(
        {"name": name, "version": version, "files": encoded, "other_files": list(others), **more}, None
    )
    json.dumps(answer, ensure_ascii=False).encode("utf-8")
    for finding in answer["errors"] + answer["warnings"]:
        path, line, column = finding["location"]
        assert isinstance(path, str) and line >= 1 and column >= 1
        assert (
            finding["message"] and finding["fix"] and set(finding) == {"type", "location", "message", "fix"}
        )
    assert answer["ok"] is not bool(answer["errors"])
    assert (answer["manifest"] is not None) is answer["ok"]
    return answer


def manifest(text, pipeline=PIPELINE, **more):
    return validate({"manifest.py": text, "pipeline.py": pipeline}, **more)


def kinds(answer):
    return [e["type"] for e in answer["errors"]]


def feature(**changes):
    """A manifest whose one feature has changes: a value of None removes the key."""
    base = {
        "feature_type": '"embedding"',
        "feature_name": '"p_v1"',
        "embedding_dim": "128",
        "distance_metric": '"cosine"',
    }
    entries = {k: v for k, v in {**base, **changes}.items() if v is not None}
    body = "{" + ", ".join(f'"{k}": {v}' for k, v in entries.items()) + "}"
    return GOOD.replace(FEATURE, body)


NORMAL = {
    "feature_extractor_name": "my_plugin",
    "version": "1.0.0",
    "description": "",
    "features": [
        {
            "feature_type": "embedding",
            "feature_name": "p_v1",
            "embedding_dim": 128,
            "distance_metric": "cosine",
        }
    ],
    "output_schema": {},
    "input_mappings": {},
    "dependencies": [],
    "compute_profile": {
        "resource_type": "cpu",
        "batch_size": 64,
        "max_concurrency": 2,
        "memory_class": "standard",
    },
    "container_image": None,
    "secrets": [],
    "tier": None,
    "tier_label": None,
    "supported_input_types": [],
}

ACCEPTED = {
    "the least": (GOOD, {}),
    "a name for the dimensions": (
        GOOD.replace("128", "DIMS").replace("features", "DIMS = 128\nfeatures", 1),
        {},
    ),
    "sums and negative numbers": (
        GOOD + 'description = "two " + "parts"\ntier = -(-1)\n',
        {"description": "two parts", "tier": 1},
    ),
    "adjacent strings over lines": (GOOD + 'description = ("a"\n  "b")\n', {"description": "ab"}),
    "an f-string": ('N = "p"\nV = 1\n' + GOOD.replace('"p_v1"', 'f"{N}_v{V}"'), {}),
    "lists joined": (GOOD.replace(f"[{FEATURE}]", f"[] + [{FEATURE}]"), {}),
    "a tuple of features": (GOOD.replace(f"[{FEATURE}]", f"({FEATURE},)"), {}),
    "annotated": (GOOD.replace("version =", "version: str ="), {}),
    "the last assignment counts": ('version = "9.9.9"\n' + GOOD, {}),
    "several names at once": (
        GOOD + 'tier_label = description = "x"\n',
        {"tier_label": "x", "description": "x"},
    ),
    "short version": (GOOD.replace("1.0.0", "v1"), {}),
    "functions and imports beside": (
        "import os\nfrom typing import List\n" + GOOD + "def f():\n    return 1\nx = os.getcwd()\n",
        {},
    ),
    "a byte order mark": ("\ufeff" + GOOD, {}),
    "windows line ends": (GOOD.replace("\n", "\r\n"), {}),
    "a UTF-8 cookie": ("# -*- coding: utf-8 -*-\n" + GOOD, {}),
    "other keys": (
        GOOD
        + 'tier = 1\ntier_label = "SIMPLE"\ninput_mappings = {"text": "text"}\nsupported_input_types = ["text"]\n'
        'compute_profile = {"resource_type": "cpu", "batch_size": 16, "max_concurrency": 4, "memory_class": "small"}\n'
        'secrets = ["API_TOKEN", "B2"]\ncontainer_image = None\ndependencies = ["numpy>=2", "Pandas"]\n',
        {
            "tier": 1,
            "tier_label": "SIMPLE",
            "input_mappings": {"text": "text"},
            "supported_input_types": ["text"],
            "compute_profile": {
                "resource_type": "cpu",
                "batch_size": 16,
                "max_concurrency": 4,
                "memory_class": "small",
            },
            "secrets": ["API_TOKEN", "B2"],
            "dependencies": ["numpy>=2", "Pandas"],
        },
    ),
    "the class style": (
        f"""
from pydantic import BaseModel
metadata = {{"feature_extractor_name": "my_plugin", "version": "1.0", "description": "d", "category": "text",
             "inference_type": "x"}}
class Input(BaseModel):
    text: str
class Output(BaseModel):
    p_v1: list
input_schema = Input
output_schema = Output
supported_input_types = ["text"]
features = [{FEATURE}]
""",
        {"description": "d", "supported_input_types": ["text"]},
    ),
    "eight features": (
        GOOD.replace(FEATURE, ", ".join(FEATURE.replace("p_v1", f"p_v{n}") for n in range(8))),
        {"features": [{**NORMAL["features"][0], "feature_name": f"p_v{n}"} for n in range(8)]},
    ),
    "the largest vector, by dot": (
        feature(embedding_dim="4096", distance_metric='"dot"'),
        {"features": [{**NORMAL["features"][0], "embedding_dim": 4096, "distance_metric": "dot"}]},
    ),
}


@pytest.mark.parametrize(("text", "changes"), ACCEPTED.values(), ids=ACCEPTED.keys())
def test_a_good_manifest_is_read_and_normalised(text, changes):
    answer = manifest(text, PIPELINE + "# " + ", ".join(f"p_v{n}" for n in range(8)))
    assert answer["errors"] == []
    assert answer["manifest"] == {**NORMAL, **changes}
    assert answer["entry"] == "build_steps" and answer["has_realtime"] is False


REFUSED = {
    "no name": (GOOD.replace("feature_extractor_name", "name"), ["missing_key"], 1, 8),
    "another name than the upload's": (GOOD.replace("my_plugin", "other"), ["name_mismatch"], 1, 26),
    "a name too short": (GOOD.replace("my_plugin", "ab"), ["bad_name"], 1, 26),
    "a name with a line end": (GOOD.replace("my_plugin", "my_plugin\\n"), ["bad_name"], 1, 26),
    "a name that is a number": (GOOD.replace('"my_plugin"', "5"), ["bad_name"], 1, 26),
    "another version": (GOOD.replace("1.0.0", "1.0.1"), ["version_mismatch"], 2, 11),
    "a version that is a number": (GOOD.replace('"1.0.0"', "1.0"), ["bad_version"], 2, 11),
    "a version of four parts": (GOOD.replace("1.0.0", "1.0.0.0"), ["bad_version"], 2, 11),
    "digits of other scripts": (GOOD.replace("1.0.0", "١.0.0"), ["bad_version"], 2, 11),
    "no features": (GOOD.replace("features", "features_", 1), ["missing_key"], 3, 13),
    "features that are a dict": (GOOD.replace(f"[{FEATURE}]", FEATURE), ["bad_features"], 3, 12),
    "no feature in the list": (GOOD.replace(FEATURE, ""), ["bad_features"], 3, 12),
    "nine features": (
        GOOD.replace(FEATURE, ", ".join(FEATURE.replace("p_v1", f"p_v{n}") for n in range(9))),
        ["bad_features"],
        3,
        12,
    ),
    "the same feature twice": (
        GOOD.replace(FEATURE, f"{FEATURE}, {FEATURE}"),
        ["duplicate_feature"],
        3,
        None,
    ),
    "a feature that is a string": (GOOD.replace(FEATURE, '"p_v1"'), ["bad_features"], 3, 13),
    "no feature_name": (feature(feature_name=None), ["missing_feature_key"], 3, 13),
    "a feature of another type": (feature(feature_type='"label"'), ["bad_feature_type"], 3, 30),
    "a feature named as an input column": (feature(feature_name='"data"'), ["bad_feature_name"], 3, 59),
    "a feature name with a slash": (feature(feature_name='"a/b"'), ["bad_feature_name"], 3, 59),
    "zero dimensions": (feature(embedding_dim="0"), ["bad_embedding_dim"], 3, None),
    "4097 dimensions": (feature(embedding_dim="4097"), ["bad_embedding_dim"], 3, None),
    "dimensions true": (feature(embedding_dim="True"), ["bad_embedding_dim"], 3, None),
    "dimensions as text": (feature(embedding_dim='"128"'), ["bad_embedding_dim"], 3, None),
    "dimensions as a float": (feature(embedding_dim="128.0"), ["bad_embedding_dim"], 3, None),
    "an unknown metric": (feature(distance_metric='"hamming"'), ["bad_distance_metric"], 3, None),
    "dimensions by a call": (feature(embedding_dim="int(128)"), ["not_a_literal"], 3, None),
    "dimensions by an unknown name": (feature(embedding_dim="D"), ["not_a_literal"], 3, None),
    "features by a comprehension": (GOOD.replace(f"[{FEATURE}]", "[f for f in x]"), ["not_a_literal"], 3, 12),
    "features by a function": (GOOD.replace(f"[{FEATURE}]", "make()"), ["not_a_literal"], 3, 12),
    "a formatted f-string": (feature(feature_name='f"{1:03d}"'), ["not_a_literal"], 3, None),
    "features under if": (
        "if True:\n    features = []\n" + GOOD.split("features")[0],
        ["not_a_literal"],
        2,
        5,
    ),
    "features changed later": (GOOD + 'features[0]["embedding_dim"] = 256\n', ["not_a_literal"], 4, 1),
    "features appended to": (GOOD + "features.append({})\n", ["not_a_literal"], 4, 1),
    "features added to": (GOOD + "features += []\n", ["not_a_literal"], 4, 1),
    "assigned as a pair": (GOOD + 'version, x = "1.0.0", 1\n', ["not_a_literal"], 4, 1),
    "a key twice": (
        GOOD.replace('"embedding_dim": 128', '"embedding_dim": 128, "embedding_dim": 64'),
        ["duplicate_key"],
        3,
        None,
    ),
    "a key that is a number": (GOOD.replace("{", "{1: 2, "), ["key_not_a_string"], 3, None),
    "a dict unpacked": (GOOD.replace("{", "{**x, "), ["not_a_literal"], 3, None),
    "infinite": (feature(embedding_dim="1e999"), ["number_out_of_range"], 3, None),
    "minus infinite": (feature(embedding_dim="-1e999"), ["number_out_of_range"], 3, None),
    "not a number": (feature(embedding_dim="float('nan')"), ["not_a_literal"], 3, None),
    "beyond JSON": (feature(embedding_dim=str(2**60)), ["number_out_of_range"], 3, None),
    "a lone surrogate": (GOOD.replace("my_plugin", "\\ud800bc"), ["bad_text"], 1, 26),
    "NUL in a string": (GOOD.replace("my_plugin", "my\\0plugin"), ["bad_text"], 1, 26),
    "bytes": (GOOD.replace('"my_plugin"', 'b"my_plugin"'), ["not_a_literal"], 1, 26),
    "a container image": (
        GOOD + 'container_image = "registry/x:1"\n',
        ["container_image_not_supported"],
        4,
        19,
    ),
    "a GPU": (GOOD + 'compute_profile = {"resource_type": "gpu"}\n', ["gpu_not_supported"], 4, 37),
    "a number of GPUs": (GOOD + 'compute_profile = {"num_gpus": 1}\n', ["gpu_not_supported"], 4, 32),
    "a batch size of zero": (GOOD + 'compute_profile = {"batch_size": 0}\n', ["bad_compute_profile"], 4, 34),
    "a compute profile by a call": (
        GOOD + "compute_profile = dict(resource_type='gpu')\n",
        ["not_a_literal"],
        4,
        19,
    ),
    "a package that is not there": (
        GOOD + 'dependencies = ["numpy", "torch>=2"]\n',
        ["dependency_not_available"],
        4,
        26,
    ),
    "a dependency that is an address": (
        GOOD + 'dependencies = ["x @ https://e/x.whl"]\n',
        ["bad_dependency"],
        4,
        17,
    ),
    "a dependency that is an option": (
        GOOD + 'dependencies = ["--index-url=x"]\n',
        ["bad_dependency"],
        4,
        17,
    ),
    "dependencies in a string": (GOOD + 'dependencies = "numpy"\n', ["bad_dependencies"], 4, 16),
    "metadata that is computed": ("metadata = make()\n", ["not_a_literal"], 1, 12),
    "a syntax error": (GOOD + "x = (\n", ["syntax_error"], 4, 5),
    "an indentation error": (GOOD + "  x = 1\n", ["syntax_error"], 4, None),
    "NUL in the source": (GOOD + "\0", ["nul_in_source"], 4, 1),
    "Latin-1": (GOOD.encode() + b"# caf\xe9\n", ["unsupported_encoding"], 4, 1),
    "a Latin-1 cookie": ("# coding: latin-1\n" + GOOD, ["unsupported_encoding"], 1, 1),
    "a cookie that hides code": ("# coding: utf-7\n" + GOOD, ["unsupported_encoding"], 1, 1),
    "an unknown cookie": ("# coding: klingon\n" + GOOD, ["unsupported_encoding"], 1, 1),
    "UTF-16": (GOOD.encode("utf-16"), None, 1, 1),
    "too large": (GOOD + "#" * (256 * 1024), ["source_too_large"], 1, 1),
    "nested parentheses": (GOOD + "x = " + "(" * 5000 + ")" * 5000, ["syntax_error"], 4, None),
    "nested minus": (GOOD + "x = " + "-" * 100_000 + "1", ["source_too_deep"], 1, 1),
    "a long sum": (GOOD + "x = " + "1+" * 50_000 + "1", ["source_too_deep"], 1, 1),
    "a long chain of attributes": (GOOD + "x = a" + ".b" * 50_000, ["source_too_deep"], 1, 1),
    "a huge integer": (GOOD + "x = " + "9" * 100_000, ["syntax_error"], None, None),
    "nested lists": (GOOD.replace(f"[{FEATURE}]", "[" * 60 + "]" * 60), ["too_large"], 3, None),
    "a list that doubles": (
        GOOD + "a = [1, 2]\n" + "a = a + a\n" * 60 + "dependencies = a\n",
        ["not_a_literal"],
        None,
        None,
    ),
    "a text that doubles": (
        GOOD + 'a = "xy"\n' + "a = a + a\n" * 60 + "dependencies = [a]\n",
        ["not_a_literal"],
        None,
        None,
    ),
    "a tree of names": (
        GOOD + "a = [1]\n" + "a = [a, a]\n" * 60 + "compute_profile = {'x': a}\n",
        ["not_a_literal"],
        None,
        None,
    ),
    "a schema too large to keep": (
        GOOD + 'a = "x" * 1\nt = "' + "y" * 1000 + '"\noutput_schema = {"k": [' + "t, " * 90 + "]}\n",
        ["manifest_too_large"],
        1,
        1,
    ),
    "empty": ("", ["missing_key"] * 3, 1, 1),
}


@pytest.mark.parametrize(("text", "expected", "line", "column"), REFUSED.values(), ids=REFUSED.keys())
def test_a_bad_manifest_is_refused_with_kind_and_place(text, expected, line, column):
    answer = manifest(text)
    assert answer["ok"] is False
    if expected is not None:
        assert kinds(answer) == expected, answer["errors"]
    where = answer["errors"][0]["location"]
    assert where[0] == "manifest.py"
    assert line is None or where[1] == line, where
    assert column is None or where[2] == column, where


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("name", "feature_name"),
        ("type", "feature_type"),
        ("dimensions", "embedding_dim"),
        ("dims", "embedding_dim"),
        ("dim", "embedding_dim"),
        ("distance", "distance_metric"),
        ("metric", "distance_metric"),
        ("embeding_dim", "embedding_dim"),
        ("Feature_Name", "feature_name"),
    ],
)
def test_a_wrong_feature_key_is_named_with_the_key_to_use(wrong, right):
    answer = manifest(GOOD.replace(f'"{right}"', f'"{wrong}"'))
    (error,) = answer["errors"]
    assert error["type"] == "wrong_feature_key"
    assert error["message"] == f'features[0]: unknown key "{wrong}"; use "{right}"'
    assert error["fix"] == f'rename "{wrong}" to "{right}"'
    assert error["location"] == ["manifest.py", 3, GOOD.splitlines()[2].index(f'"{right}"') + 1]


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("name", "feature_extractor_name"),
        ("plugin_name", "feature_extractor_name"),
        ("feature_extractor", "feature_extractor_name"),
        ("plugin_version", "version"),
        ("feature", "features"),
    ],
)
def test_a_needed_key_that_has_another_name_is_pointed_out(wrong, right):
    answer = manifest(re.sub(rf"^{right} =", f"{wrong} =", GOOD, flags=re.M))
    (error,) = [one for one in answer["errors"] if one["type"] == "missing_key"]
    assert f'{right} is missing (did you mean this by "{wrong}"?)' in error["message"]


def test_all_faults_are_reported_at_once():
    text = textwrap.dedent("""
        feature_extractor_name = "other_name"
        version = "2.0.0"
        container_image = "x"
        compute_profile = {"resource_type": "gpu", "batch_size": -1}
        dependencies = ["torch", "numpy"]
        features = [
            {"type": "embedding", "name": "a", "dimensions": 128, "distance": "cosine"},
            {"feature_type": "embedding", "feature_name": "b", "embedding_dim": 0, "distance_metric":
            "euclidean"},
        ]
    """)
    answer = validate({"manifest.py": text, "pipeline.py": "import subprocess\n"})
    assert sorted(kinds(answer)) == sorted(
        [
            "name_mismatch",
            "version_mismatch",
            "container_image_not_supported",
            "gpu_not_supported",
            "bad_compute_profile",
            "dependency_not_available",
            "wrong_feature_key",
            "wrong_feature_key",
            "wrong_feature_key",
            "wrong_feature_key",
            "bad_embedding_dim",
            "bad_distance_metric",
            "forbidden_import",
            "entry_missing",
        ]
    )
    fixes = {e["type"]: e["fix"] for e in answer["errors"]}
    assert fixes["bad_distance_metric"] == 'use "euclid"'
    assert "vendor" in fixes["dependency_not_available"]


def test_columns_count_characters_and_not_bytes():
    answer = manifest(GOOD.replace("features = [", "features = ['☃☃', "))
    assert answer["errors"][0]["location"] == ["manifest.py", 3, 13]
    answer = manifest(GOOD + "x = '☃☃'; container_image = 'y'\n")
    assert answer["errors"][0]["location"] == ["manifest.py", 4, 29]


def test_the_manifest_is_never_executed(tmp_path):
    mark = tmp_path / "executed"
    text = (
        GOOD + f"import pathlib\npathlib.Path({str(mark)!r}).touch()\ndescription = pathlib.Path('x').name\n"
    )
    answer = manifest(text)
    assert not mark.exists() and answer["ok"] is True
    assert [w["type"] for w in answer["warnings"]] == ["not_a_literal"]


def test_a_schema_that_lacks_a_feature_and_code_that_never_names_it_are_warned_about():
    answer = manifest(GOOD + 'output_schema = {"other": {}}\n', "def build_steps():\n    return []\n")
    assert [w["type"] for w in answer["warnings"]] == ["feature_not_in_schema", "feature_not_in_code"]


@pytest.mark.parametrize(
    ("given", "normal"),
    [
        ("v1", "1.0.0"),
        ("1.0", "1.0.0"),
        ("v2.1", "2.1.0"),
        ("1.02.3", "1.2.3"),
        ("", None),
        ("1.x", None),
        ("1.0.0\n", None),
    ],
)
def test_versions_are_normalised(given, normal):
    assert MODULES._manifest.normalise_version(given) == normal


@pytest.mark.parametrize("name", ["text_embed", "word_embed", "word_realtime", "example"])
def test_the_plugins_of_tutorial_fixtures_and_examples_pass_without_a_remark(name):
    folder = {"text_embed": TUTORIAL, "example": ROOT / "examples" / "text_embed"}.get(name, PLUGINS / name)
    if not folder.is_dir():
        pytest.skip(f"the tutorial's plugin is not at {folder}")
    files = {path: content for path, content in read_plugin(folder).items() if path.endswith(".py")}
    answer = validate(files, "text_embed" if name == "example" else name)
    assert answer["errors"] == [] and answer["warnings"] == []
    assert answer["has_realtime"] is (name == "word_realtime")
    assert answer["manifest"]["features"][0]["distance_metric"] == "cosine"


# -- the files of an archive
# ------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", ["manifest.py", "pipeline.py"])
def test_a_missing_file_is_named_and_found_where_it_was_put_instead(missing):
    files = {"manifest.py": GOOD, "pipeline.py": PIPELINE}
    files["inner/" + missing] = files.pop(missing)
    answer = validate(files)
    assert kinds(answer) == ["missing_file"]
    assert missing in answer["errors"][0]["message"] and f"inner/{missing}" in answer["errors"][0]["message"]


@pytest.mark.parametrize(
    ("pipeline", "entry"),
    [
        ("def build_steps(): pass", "build_steps"),
        ("async def build_steps(): pass", "build_steps"),
        ("def extract(): pass", "extract"),
        ("def extract(): pass\ndef build_steps(): pass", "build_steps"),
        ("from .core import build_steps", "build_steps"),
        ("build_steps = lambda **k: []", "build_steps"),
        (
            "try:\n    from a import b as build_steps\nexcept ImportError:\n    def extract(): pass",
            "build_steps",
        ),
        ("class A:\n    def build_steps(self): pass", None),
        ("def f():\n    def extract(): pass", None),
        ("", None),
    ],
)
def test_the_entry_of_the_pipeline_is_found_at_its_top_level(pipeline, entry):
    answer = manifest(GOOD, pipeline)
    assert answer["entry"] == entry
    assert kinds(answer) == ([] if entry else ["entry_missing"])


@pytest.mark.parametrize(
    ("text", "fine"),
    [
        ("class InferenceService: pass", True),
        ("class MyInferenceService: pass", True),
        ("def get_inference_service(**k): pass", True),
        ("from shared.plugins.inference.serve import BaseInferenceService", False),
        ("x = 1", False),
    ],
)
def test_realtime_needs_an_entry_too(text, fine):
    answer = validate({"manifest.py": GOOD, "pipeline.py": PIPELINE, "realtime.py": text})
    assert answer["has_realtime"] is True
    assert kinds(answer) == ([] if fine else ["realtime_entry_missing"])


@pytest.mark.parametrize(
    "paths",
    [
        ["vendor/torch/__init__.py"],
        ["vendor/torch-2.1.0.dist-info/METADATA", "vendor/torch/__init__.py"],
        ["vendor/Torch.py"],
        ["vendor/TORCH-2.1.0.dist-info/RECORD", "vendor/functorch/__init__.py"],
    ],
)
def test_a_vendored_package_meets_a_dependency(paths):
    assert manifest(GOOD + 'dependencies = ["torch>=2"]\n', others=paths)["ok"] is True


@pytest.mark.parametrize(
    ("path", "fine"),
    [
        ("vendor/a/b.cpython-313-x86_64-linux-gnu.so", True),
        ("vendor/a/b.abi3.so", True),
        ("vendor/a.libs/libz-1.so", True),
        ("vendor/a/b.cpython-312-x86_64-linux-gnu.so", False),
        ("vendor/a/b.cpython-313-aarch64-linux-gnu.so", False),
        ("vendor/a/b.cpython-313-darwin.so", False),
        ("vendor/a/b.cp313-win_amd64.pyd", False),
        ("vendor/a/b.dylib", False),
        ("models/w.npz", True),
    ],
)
def test_compiled_modules_must_fit_the_runner(path, fine):
    answer = manifest(GOOD, others=[path], runtime={"python": "3.13", "machine": "x86_64"})
    assert kinds(answer) == ([] if fine else ["native_file_does_not_fit"])


# -- the scan
# ---------------------------------------------------------------------------------------------------

ERRORS = {
    "import subprocess": "forbidden_import",
    "import subprocess as s": "forbidden_import",
    "from subprocess import run": "forbidden_import",
    "import multiprocessing.pool": "forbidden_import",
    "from multiprocessing import pool": "forbidden_import",
    "import ctypes": "forbidden_import",
    "import socket": "forbidden_import",
    "import threading": "forbidden_import",
    "def f():\n    import socket": "forbidden_import",
    "__import__('subprocess')": "forbidden_import",
    "import importlib\nimportlib.import_module('socket')": "forbidden_import",
    "import os\nos.system('ls')": "forbidden_call",
    "import os as o\no.system('ls')": "forbidden_call",
    "from os import system": "forbidden_call",
    "from os import execv as e\ne('x', [])": "forbidden_call",
    "import os\nos.popen('ls')": "forbidden_call",
    "import os\nrun = os.system\nrun('ls')": "forbidden_call",
    "import os\na = os\nb = a\nb.execve('x', [], {})": "forbidden_call",
    "import os\ngetattr(os, 'system')('ls')": "forbidden_call",
    "import posix\nposix.system('ls')": "forbidden_call",
    "__import__('os').system('ls')": "forbidden_call",
    "from os import *\nsystem('ls')": "forbidden_call",
    "open('x')": "forbidden_call",
    "f = open\nf('x')": "forbidden_call",
    "import io\nio.open('x')": "forbidden_call",
    "import builtins\nbuiltins.open('x')": "forbidden_call",
    "list(map(open, []))": "forbidden_call",
    "eval('1')": "forbidden_call",
    "exec('1')": "forbidden_call",
    "(e := eval)('1')": "forbidden_call",
    "class A:\n    x = eval('1')": "forbidden_call",
    "lambda: open('x')": "forbidden_call",
}


@pytest.mark.parametrize(("code", "kind"), ERRORS.items(), ids=ERRORS.keys())
def test_forbidden_code_is_an_error_at_its_place(code, kind):
    answer = manifest(GOOD, PIPELINE + code)
    assert kind in kinds(answer) and set(kinds(answer)) <= {"forbidden_import", "forbidden_call"}
    assert all(e["location"][0] == "pipeline.py" and e["location"][1] > 2 for e in answer["errors"])


WARNINGS = [
    "import pickle",
    "import marshal",
    "import shelve",
    "import fcntl",
    "import resource",
    "import pty",
    "import os\nos.fork()",
    "import os\nos.kill(1, 9)",
    "import os\nos.killpg(1, 9)",
    "import os\nos.spawnv(0, 'x', [])",
    "compile('1', 'x', 'eval')",
    "globals()",
    "locals()",
    "vars()",
    "setattr(x, 'a', 1)",
    "delattr(x, 'a')",
    "().__class__.__subclasses__()",
    "f.__globals__",
    "import importlib\nimportlib.import_module(name)",
    "__import__(name)",
]


@pytest.mark.parametrize("code", WARNINGS)
def test_doubtful_code_is_a_warning_and_does_not_stop_the_plugin(code):
    answer = manifest(GOOD, PIPELINE + code)
    assert answer["errors"] == [] and len(answer["warnings"]) >= 1
    assert {w["type"] for w in answer["warnings"]} <= {
        "suspicious_import",
        "suspicious_call",
        "suspicious_attribute",
    }


ALLOWED = [
    "import os\nos.environ['X']\nos.path.join('a', 'b')\nos.getcwd()",
    "getattr(x, 'y')\nhasattr(x, 'y')",
    "import requests, httpx",
    "from PIL import Image\nImage.open('x')",
    "from PIL.Image import open\nopen('x')",
    "import re\ncompile = re.compile\ncompile('x')",
    "df.eval('a + b')\nmodel.eval()",
    "def open(x):\n    return x\nopen(1)",
    "from .files import open\nopen('x')",
    "def f(open):\n    return open(1)",
    "import concurrent.futures\nimport asyncio",
    "import numpy as np\nnp.load('w.npz')",
    "from pathlib import Path\nPath('x').read_text()",
    "print(__file__, __name__, type(x).__name__)",
    "re = '\\d'",
]


@pytest.mark.parametrize("code", ALLOWED)
def test_ordinary_code_raises_no_remark(code):
    answer = manifest(GOOD, PIPELINE + code)
    assert answer["errors"] == [] and answer["warnings"] == []


def test_every_file_is_scanned_and_vendored_packages_only_raise_warnings():
    answer = validate(
        {
            "manifest.py": GOOD,
            "pipeline.py": PIPELINE,
            "processors/core.py": "import socket",
            "vendor/lib/a.py": "import socket\nopen('x')",
            "vendor/lib/old.py": "print 'x'",
        }
    )
    assert [(e["type"], e["location"][0]) for e in answer["errors"]] == [
        ("forbidden_import", "processors/core.py")
    ]
    assert {(w["type"], w["location"][0]) for w in answer["warnings"]} == {
        ("forbidden_import", "vendor/lib/a.py"),
        ("forbidden_call", "vendor/lib/a.py"),
        ("syntax_error", "vendor/lib/old.py"),
    }


def test_a_syntax_error_in_any_file_names_the_file_and_the_version_of_python():
    answer = validate({"manifest.py": GOOD, "pipeline.py": PIPELINE, "processors/core.py": "x = (\n\n"})
    (error,) = answer["errors"]
    assert error["type"] == "syntax_error" and error["location"][:2] == ["processors/core.py", 1]
    assert "Python 3." in error["message"] and "Python 3." in error["fix"]


def test_a_file_with_endless_faults_is_answered_with_a_bounded_list():
    answer = manifest(GOOD, PIPELINE + "open('x');" * 20_000)
    assert len(answer["errors"]) == MODULES._findings.FINDINGS_MAX + 1
    assert answer["errors"][-1]["type"] == "more_findings"


@pytest.mark.parametrize(
    "event",
    [
        {},
        {"name": "a", "version": "1.0.0"},
        {"name": "a", "version": "1.0.0", "files": [{"path": "x"}]},
        {"name": "a", "version": "1.0.0", "files": [{"path": "x", "content_base64": "?"}]},
        {"name": "a", "version": "1.0.0", "files": [], "other_files": [1]},
    ],
)
def test_an_event_of_the_wrong_shape_is_the_callers_fault_and_raises(event):
    with pytest.raises(ValueError):
        MODULES.handler.handler(event, None)


def test_the_validator_uses_no_module_that_could_reach_files_or_the_network():
    allowed = {
        "__future__",
        "ast",
        "base64",
        "binascii",
        "dataclasses",
        "difflib",
        "io",
        "json",
        "math",
        "platform",
        "re",
        "sys",
        "time",
        "tokenize",
        "typing",
        "warnings",
    }
    import ast

    for path in sorted((ROOT / "functions" / "plugin-validator").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            assert all(n in allowed or n.startswith("_") for n in names), (path.name, names)
