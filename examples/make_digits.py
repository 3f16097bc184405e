"""Writes scikit-learn's handwritten digits as PNG files, for the plugin ``digits_image``.

    .local/venv/bin/python examples/make_digits.py FOLDER [--count 200] [--side 32]

FOLDER gets ``digit-0000.png`` ... and ``labels.jsonl`` with a line for each: ``{"image": ..., "digit": ...}``, which
``granary plugin test`` takes as it is. The 1,797 images come with scikit-learn (UCI, "Optical Recognition of
Handwritten Digits", CC BY 4.0): 8 x 8 pixels with 17 shades, here enlarged without smoothing.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

SHADES = 16


def write_digits(folder, count, side):
    """Writes the first ``count`` images, each ``side`` pixels wide and high; returns their labels."""
    folder.mkdir(parents=True, exist_ok=True)
    digits = load_digits()
    lines = []
    for number, (pixels, digit) in enumerate(zip(digits.images[:count], digits.target[:count])):
        name = f"digit-{number:04d}.png"
        grey = np.round(pixels * 255 / SHADES).astype(np.uint8)
        Image.fromarray(grey).resize((side, side), Image.Resampling.NEAREST).save(folder / name)
        lines.append({"image": name, "digit": int(digit)})
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "labels.jsonl").write_text(text, encoding="utf-8")
    return [line["digit"] for line in lines]


def main():
    """Reads the command line."""
    parser = argparse.ArgumentParser(description="Writes scikit-learn's digits as PNG files.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=1797, help="the first so many; 1797 is all")
    parser.add_argument("--side", type=int, default=32, help="pixels, best a multiple of 8")
    given = parser.parse_args()
    if not 1 <= given.count <= 1797 or not 8 <= given.side <= 4096:
        parser.error("--count is from 1 to 1797, --side from 8 to 4096")
    labels = write_digits(given.folder, given.count, given.side)
    print(f"{len(labels)} images and labels.jsonl in {given.folder}")


if __name__ == "__main__":
    main()
