"""Turns images into vectors of 8 x 8 grey pixels.

Granary puts the bytes of each object into a file before the steps run and names it in the column `local_path`; the
column `data` holds the address that it came from, which a plugin cannot reach. A query by an image comes the same way,
so batches and queries need nothing of their own.

The vector is the picture itself, made small: two digits are near if they have ink in the same places. That serves small,
centred figures, and no photographs.
"""

import numpy as np
from PIL import Image

SIDE = 8
OUTPUT_COLUMN = "digits_image_v1_pixels"

# A file of a few bytes may claim to be an image of billions of pixels; Pillow refuses twice this.
Image.MAX_IMAGE_PIXELS = 25_000_000


def read_pixels(path):
    """Size of the image (width, height) and the mean brightness of its 8 x 8 squares, 0 to 1."""
    with Image.open(path) as image:
        # BOX is the plain mean, so that an enlarged image gives the same squares as the small one.
        squares = image.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)
        return image.size, np.asarray(squares, dtype=np.float64).reshape(-1) / 255


def embed(pixels):
    """The pixels at length one, or None if all are black: a direction is what cosine compares."""
    length = np.linalg.norm(pixels)
    return (pixels / length).tolist() if length > 0 else None


class EmbedImages:
    """The one step: adds the vector and the size of each image. A file that is no image fails alone."""

    def __call__(self, rows):
        sizes, vectors = [], []
        for path in rows["local_path"]:
            # A row without a file, such as a query by text, has no vector.
            size, pixels = read_pixels(path) if isinstance(path, str) else ((None, None), np.zeros(SIDE * SIDE))
            sizes.append(size)
            vectors.append(embed(pixels))
        rows[OUTPUT_COLUMN] = vectors
        rows["width"] = [width for width, _ in sizes]
        rows["height"] = [height for _, height in sizes]
        return rows


def build_steps(extractor_request=None, container=None, **kwargs):
    """Granary's entry point."""
    return {"steps": [EmbedImages()]}
