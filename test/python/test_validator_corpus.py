"""The corpus of hostile manifests: each meets its outcome, none takes the validator down or time without
end."""

from __future__ import annotations

import base64
import json
import sys

import pytest
from conftest import ROOT, load_function

sys.path.insert(0, str(ROOT / "test" / "fixtures"))
from hostile_manifests import CORPUS, GOOD, IMAGES  # noqa: E402

handler = load_function("plugin-validator", "handler").handler.handler
PIPELINE = "def build_steps(**kwargs):\n    return {'steps': [], 'column': 'p_v1'}\n"
CLOSED = {"egress": False, "container_images": False, "memory_classes": ["small", "standard"]}


def validate(text: str | bytes, pipeline: str = PIPELINE, **more: object) -> dict:
    content = text if isinstance(text, bytes) else text.encode()
    files = {"manifest.py": content, "pipeline.py": pipeline.encode()}
    event = {
        "name": "my_plugin",
        "version": "1.0.0",
        "files": [
            {"path": path, "content_base64": base64.b64encode(data).decode()} for path, data in files.items()
        ],
        "other_files": [],
        "allow": CLOSED,
        "runtime": {"python": "3.13", "machine": "x86_64"},
        **more,
    }
    answer = handler(event, None)
    wire = json.dumps(answer, allow_nan=False)
    assert len(wire) < 400_000, "an answer of a manifest alone must stay small"
    for finding in answer["errors"] + answer["warnings"]:
        assert finding["message"] and finding["fix"]
        assert not any(ord(c) < 32 for c in finding["message"] + finding["fix"])
    return answer


def matches(findings: list[dict], expected: list[str]) -> bool:
    if "..." in expected:
        findings, expected = findings[: len(expected) - 1], expected[:-1]
    return len(findings) == len(expected) and all(
        f["type"] == kind and (not line or f["location"][1] == int(line))
        for f, (kind, _, line) in zip(findings, (e.partition(":") for e in expected), strict=True)
    )


@pytest.mark.parametrize(("text", "errors", "warnings"), CORPUS.values(), ids=CORPUS.keys())
def test_a_hostile_manifest_meets_its_outcome(text, errors, warnings):
    answer = validate(text)
    found = [
        [(f["type"], f["location"][1], f["message"]) for f in answer[key]] for key in ("errors", "warnings")
    ]
    assert matches(answer["errors"], errors), found
    assert warnings is None or matches(answer["warnings"], warnings), found
    assert answer["ok"] is (not errors)
    if answer["ok"]:
        assert answer["manifest"]["feature_extractor_name"] == "my_plugin"
        assert answer["manifest"]["version"] == "1.0.0"
        assert answer["manifest"]["features"][0]["embedding_dim"] == 128


def test_the_corpus_is_large_and_leaves_the_validator_usable():
    assert len(CORPUS) >= 60
    assert validate(GOOD)["ok"] is True


@pytest.mark.parametrize(("image", "outcome"), IMAGES.items(), ids=[i[:60] for i in IMAGES])
def test_where_images_are_allowed_only_a_private_registry_of_the_cloud_will_do(image, outcome):
    answer = validate(GOOD + f"container_image = {image!r}\n", allow={**CLOSED, "container_images": True})
    assert ([e["type"] for e in answer["errors"]], [w["type"] for w in answer["warnings"]]) == outcome
    if answer["ok"]:
        assert answer["manifest"]["container_image"] == image


def test_a_secret_that_code_asks_for_and_the_manifest_does_not_name_is_warned_about():
    pipeline = (
        "async def step(container, batch):\n"
        '    a = container.secrets.get("NAMED")\n'
        '    b = await container.secrets.get("OTHER")\n'
        "    c = container.secrets.get(name)\n"
        '    d = settings.get("ELSEWHERE")\n'
        "def build_steps(**kwargs): return 'p_v1'\n"
    )
    text = GOOD + 'secrets = ["NAMED"]\n'
    answer = validate(text, pipeline=pipeline)
    (warning,) = answer["warnings"]
    assert answer["ok"] and answer["manifest"]["secrets"] == ["NAMED"]
    assert warning["type"] == "secret_not_named" and warning["location"] == ["pipeline.py", 3, 37]
    assert '"OTHER"' in warning["message"]


def test_an_image_brings_its_own_packages_so_only_the_form_of_dependencies_is_checked():
    image = next(iter(IMAGES))
    text = GOOD + f"container_image = {image!r}\ndependencies = ['torch>=2', 'numpy<1', 'x y']\n"
    answer = validate(text, allow={**CLOSED, "container_images": True})
    assert [e["type"] for e in answer["errors"]] == ["bad_dependency"]


def test_what_the_stage_allows_decides_about_network_and_memory():
    text = GOOD + 'compute_profile = {"resource_type": "api", "memory_class": "large"}\n'
    refused = validate(text)
    assert [e["type"] for e in refused["errors"]] == ["network_closed", "memory_class_not_supported"]
    open_stage = {"egress": True, "container_images": False, "memory_classes": ["standard", "large"]}
    taken = validate(text, allow=open_stage)
    assert taken["ok"] and taken["warnings"] == []
    assert taken["manifest"]["compute_profile"] == {
        "resource_type": "api",
        "batch_size": 64,
        "max_concurrency": 2,
        "memory_class": "large",
    }
    unknown = validate(text, allow=None)
    assert unknown["ok"] and [w["type"] for w in unknown["warnings"]] == ["network_closed"]
    assert validate(GOOD)["manifest"]["secrets"] == []


@pytest.mark.parametrize(
    "allow",
    [
        [],
        {"memory_classes": "large"},
        {"memory_classes": ["huge"]},
        {"memory_classes": [[]]},
        {"egress": "yes"},
    ],
)
def test_an_allowance_of_the_wrong_shape_is_the_callers_fault(allow):
    with pytest.raises(ValueError, match="allow must be"):
        validate(GOOD, allow=allow)
