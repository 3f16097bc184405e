"""What the validator says is there, is there when the plugin runs: packages of the runtime and under vendor/."""

from __future__ import annotations

import base64
import importlib.metadata
import sys
from pathlib import Path

import pytest
from conftest import load_function, vectors_of

MODULES = load_function("plugin-validator", "handler", "_runtime")

MANIFEST = """
feature_extractor_name = "media_embed"
version = "1.0.0"
features = [{{"feature_type": "embedding", "feature_name": "v", "embedding_dim": 2, "distance_metric": "cosine"}}]
dependencies = {dependencies!r}
"""
STEPS = """
def build_steps(**kwargs):
    return {"steps": [step]}

def step(batch):
    batch["v"] = [[float(len(text)), measure()] for text in batch["data"]]
    return batch
"""
MEDIA = """
import io

import numpy as np
import soundfile
from PIL import Image
from pypdf import PdfReader, PdfWriter


def measure():
    image = io.BytesIO()
    Image.new("L", (8, 4)).save(image, "PNG")
    sound = io.BytesIO()
    soundfile.write(sound, np.zeros(100, dtype="int16"), 8000, format="WAV")
    pages = io.BytesIO()
    writer = PdfWriter()
    writer.add_blank_page(width=10, height=10)
    writer.write(pages)
    for file in (image, sound, pages):
        file.seek(0)
    read, _ = soundfile.read(sound)
    return float(Image.open(image).size[0] * 10_000 + len(read) * 10 + len(PdfReader(pages).pages))
"""


def validated(files: dict[str, str | bytes]) -> list[dict]:
    """The errors of the validator, for this very interpreter."""

    def content(path: str) -> bytes:
        return files[path].encode() if isinstance(files[path], str) else files[path]

    read = [p for p in files if p.endswith((".py", ".dist-info/METADATA", ".dist-info/WHEEL"))]
    event = {
        "name": "media_embed",
        "version": "1.0.0",
        "files": [{"path": p, "content_base64": base64.b64encode(content(p)).decode()} for p in read],
        "other_files": [p for p in files if p not in read],
    }
    return MODULES.handler.handler(event, None)["errors"]


def plugin(dependencies: list[str], more: dict[str, str | bytes], pipeline: str) -> dict[str, str | bytes]:
    return {
        "manifest.py": MANIFEST.format(dependencies=dependencies),
        "pipeline.py": pipeline + STEPS,
        **more,
    }


def test_every_package_of_the_runtime_can_be_depended_on_and_used_by_a_plugin(runner):
    versions = MODULES._runtime.runtime_versions(sys.version_info.minor)
    files = plugin([f"{name}=={version}" for name, version in versions.items()], {}, MEDIA)
    assert validated(files) == []
    reply = runner(runner.publish(files, "media_embed_1_0_0"), ["abc"])
    assert reply["failures"] == [], reply
    assert vectors_of(reply, "v").tolist() == [[3.0, 81_001.0]]


def test_a_package_that_was_unpacked_into_vendor_is_accepted_and_imported(runner):
    """A real wheel, as pip unpacked it on this machine: pure Python, and no part of the runtime."""
    package = importlib.metadata.distribution("h11")
    vendored = {
        f"vendor/{file}": Path(package.locate_file(file)).read_bytes()
        for file in package.files or []
        if ".." not in file.parts and file.suffix != ".pyc"
    }
    assert any(path.endswith("WHEEL") for path in vendored)
    pipeline = "import h11\n\ndef measure():\n    return float(h11.__file__.split('/')[-3] == 'vendor')\n"
    files = plugin([f"h11=={package.version}"], vendored, pipeline)
    assert validated(files) == []
    reply = runner(runner.publish(files, "media_embed_1_0_0"), ["ab"])
    assert vectors_of(reply, "v").tolist() == [[2.0, 1.0]], reply

    without = {path: content for path, content in files.items() if "/h11" not in path}
    (error,) = validated(without)
    assert error["type"] == "dependency_not_available"


@pytest.mark.parametrize("name", ["numpy", "pandas"])
def test_a_copy_of_what_the_runner_has_loaded_is_not_used_as_the_validator_says(runner, name):
    files = plugin(
        [name],
        {
            f"vendor/{name}/__init__.py": "__version__ = 'ours'\n",
            f"vendor/{name}-99.0.dist-info/METADATA": f"Name: {name}\nVersion: 99.0\n",
        },
        f"import {name}\n\ndef measure():\n    return float({name}.__version__ == 'ours')\n",
    )
    assert validated(files) == []
    reply = runner(runner.publish(files, "media_embed_1_0_0"), ["a"])
    assert vectors_of(reply, "v").tolist() == [[1.0, 0.0]], reply
    (error,) = validated({**files, "manifest.py": MANIFEST.format(dependencies=[f"{name}>=99"])})
    assert error["type"] == "dependency_version"
