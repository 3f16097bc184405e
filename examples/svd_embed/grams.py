"""What a text consists of: the n-grams of its words, counted in hashed places. Training and use must agree on this."""

import re
import zlib

import numpy as np

PLACES = 2048
GRAM_CHARS_MIN = 3
GRAM_CHARS_MAX = 5
WORD = re.compile(r"[^\W_]+")
# A longer run of characters is no word but a token, an address or an attack; its start is enough.
WORD_CHARS_MAX = 40


def counts_of(text):
    """How often each place is met by the n-grams of the words of `text`; each word is padded by spaces."""
    counts = np.zeros(PLACES)
    for word in WORD.findall(text.lower()):
        padded = f" {word[:WORD_CHARS_MAX]} "
        for size in range(GRAM_CHARS_MIN, GRAM_CHARS_MAX + 1):
            for start in range(len(padded) - size + 1):
                counts[zlib.crc32(padded[start : start + size].encode("utf-8")) % PLACES] += 1
    return counts


def weighted(counts, rarity):
    """TF-IDF at length one: repeats count less than twice, and what is everywhere counts little."""
    vector = np.log1p(counts) * rarity
    length = np.linalg.norm(vector)
    return vector / length if length > 0 else vector
