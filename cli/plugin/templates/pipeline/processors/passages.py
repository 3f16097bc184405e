"""Cuts texts into passages of whole sentences."""

import re

SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


def passages_of(text, words_max):
    """Sentences in their order, joined as long as a passage has at most `words_max` words."""
    passages, words = [], 0
    for sentence in SENTENCE_END.split(text.strip()):
        length = len(sentence.split())
        if passages and words + length <= words_max:
            passages[-1] += " " + sentence
            words += length
        else:
            passages.append(sentence)
            words = length
    return passages


class CutIntoPassages:
    """Makes one row of each passage; the other columns are repeated."""

    def __init__(self, words_max):
        self.words_max = words_max

    def __call__(self, rows):
        rows["passage"] = [passages_of(text, self.words_max) for text in rows["data"]]
        rows = rows.explode("passage", ignore_index=True)
        # The same number in __row: passages of the same text.
        rows["passage_number"] = rows.groupby("__row").cumcount() + 1
        return rows
