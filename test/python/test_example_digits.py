"""The example plugin for images: what it makes of a picture, whatever the picture's size."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image, UnidentifiedImageError
from sklearn.datasets import load_digits

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
sys.path.insert(0, str(EXAMPLES))

from digits_image import manifest, pipeline  # noqa: E402

COLUMN = "digits_image_v1_pixels"


def run(paths):
    rows = pd.DataFrame({"data": ["https://example.com/x"] * len(paths), "local_path": paths}, dtype=object)
    (step,) = pipeline.build_steps()["steps"]
    return step(rows)


@pytest.mark.parametrize("side", [8, 32, 64])
def test_an_enlarged_digit_gives_the_pixels_that_it_was_made_of(tmp_path, side):
    subprocess.run(
        [sys.executable, EXAMPLES / "make_digits.py", tmp_path, "--count", "30", "--side", str(side)],
        check=True,
        capture_output=True,
    )
    labels = [json.loads(line) for line in (tmp_path / "labels.jsonl").read_text().splitlines()]
    digits = load_digits()
    assert [one["digit"] for one in labels] == digits.target[:30].tolist()
    made = run([str(tmp_path / one["image"]) for one in labels])
    wanted = digits.data[:30] / np.linalg.norm(digits.data[:30], axis=1, keepdims=True)
    # A shade of 16 becomes one of 255 in the file.
    assert np.abs(np.array(made[COLUMN].tolist()) - wanted).max() < 2e-3
    assert made["width"].tolist() == made["height"].tolist() == [side] * 30


def test_colours_transparency_and_other_shapes_are_read_too(tmp_path):
    for mode, name in (("RGB", "a.png"), ("RGBA", "b.png"), ("P", "c.gif"), ("L", "d.jpg")):
        Image.linear_gradient("L").resize((50, 20)).convert(mode).save(tmp_path / name)
    made = run([str(tmp_path / name) for name in ("a.png", "b.png", "c.gif", "d.jpg")])
    vectors = np.array(made[COLUMN].tolist())
    assert vectors.shape == (4, manifest.features[0]["embedding_dim"])
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1)
    assert (vectors @ vectors.T).min() > 0.99


def test_a_black_image_and_a_row_without_a_file_have_no_vector(tmp_path):
    Image.new("L", (9, 9)).save(tmp_path / "black.png")
    assert run([str(tmp_path / "black.png"), None])[COLUMN].tolist() == [None, None]


def test_a_file_that_is_no_image_raises_so_that_its_row_fails_alone(tmp_path):
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(UnidentifiedImageError):
        run([str(tmp_path / "text.png")])


def test_an_image_that_claims_to_be_huge_is_refused(tmp_path):
    Image.new("1", (8000, 8000)).save(tmp_path / "bomb.png")
    with pytest.raises(Image.DecompressionBombError):
        run([str(tmp_path / "bomb.png")])
