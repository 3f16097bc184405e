"""Names and descriptions for clusters from the words of their texts, by c-TF-IDF.

A term weighs (its share of the cluster's terms) x log(1 + A / f), where A is the mean number of terms in a cluster and
f how often the term occurs in all of them. Terms are single words and pairs of neighbouring words. The texts come from
strangers: what leaves this module as a label or keyword consists of letters, digits, spaces and commas.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass

from _stop_words import STOP_WORDS

LABEL_CHARS_MAX = 80
_LABEL_TERMS = 3
_KEYWORDS_LOOKED_AT = 400
_WORDS_PER_TEXT_MAX = 400
_WORD_CHARS_MAX = 40
_STEM_CHARS_MIN = 5
_MANY_TEXTS = 100
_MIN_TEXTS_OF_MANY = 3
_ADDRESS = re.compile(r'(?:https?://|www\.)\S+|\S+@\S+\.\S+', re.IGNORECASE)
_TAG = re.compile(r'<[^<>]{0,200}>')
_WORD_OR_BREAK = re.compile(r"[^\W_]+(?:['’][^\W_]+)*|[.!?;:,()\[\]{}\"“”|\n]")
_SHORTENED = frozenset(('t', 'll', 're', 've', 'd', 'm'))


@dataclass(frozen=True)
class Description:
    """label: at most 80 characters, unlike that of any other cluster. keywords: terms, heaviest first, no word twice.
    summary: one or two sentences that quote a typical text; escape it on display."""

    label: str
    keywords: list[str]
    summary: str


def terms(text: str) -> list[list[str]]:
    """The words of a text that may carry a topic, in runs of neighbours.

    A run ends at punctuation and at every word that is left out, so that a pair of words is one that a reader would
    find in the text.
    """
    runs: list[list[str]] = [[]]
    for found in _WORD_OR_BREAK.findall(_TAG.sub(' ', _ADDRESS.sub(' ', text)).lower())[:_WORDS_PER_TEXT_MAX]:
        word = found.replace('’', "'")
        if "'" in word:
            stem, _, ending = word.rpartition("'")
            word = '' if ending in _SHORTENED else stem.replace("'", '')
        usable = (
            word[:1].isalnum()
            and not word.isnumeric()
            and (1 < len(word) <= _WORD_CHARS_MAX or (word and word > '\u2fff'))
            and word not in STOP_WORDS
        )
        if usable:
            runs[-1].append(word)
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]


def describe(texts: list[str], labels: list[int], keywords: int, typical: list[list[str]]) -> list[Description]:
    """One description for each cluster 0, 1, ...

    texts, labels: one for each document; label -1 is noise and serves as background. keywords: how many to list.
    typical: for each cluster some texts near its centre, nearest first.
    """
    count = len(typical)
    per_text = [_counted(text) for text in texts]
    in_texts: Counter[str] = Counter()
    groups: dict[int, Counter[str]] = {label: Counter() for label in sorted(set(labels))}
    spread: dict[int, Counter[str]] = {label: Counter() for label in groups}
    for label, counted in zip(labels, per_text, strict=True):
        in_texts.update(counted.keys())
        groups[label].update(counted)
        spread[label].update(counted.keys())
    sizes = Counter(labels)
    min_texts = _MIN_TEXTS_OF_MANY if len(texts) >= _MANY_TEXTS else 1
    everywhere: Counter[str] = Counter()
    for counted in groups.values():
        everywhere.update(counted)
    mean_terms = sum(everywhere.values()) / max(len(groups), 1)

    ranked = []
    for cluster in range(count):
        own = groups.get(cluster, Counter())
        total = sum(own.values())
        weights = {
            term: times / total * math.log(1.0 + mean_terms / everywhere[term])
            for term, times in own.items()
            if in_texts[term] >= min_texts
        }
        # What only one of several members says describes that member. If nothing else is left, it has to do.
        shared = {term: w for term, w in weights.items() if spread[cluster][term] > 1 or sizes[cluster] < 3}
        if not (shared or weights):
            weights = {term: times / total for term, times in own.items()}
        ranked.append(_without_repeats(shared or weights, max(keywords, _LABEL_TERMS + count)))
    return [
        Description(label, chosen[:keywords], _summary(sizes[cluster], len(texts), chosen, typical[cluster]))
        for cluster, (label, chosen) in enumerate(zip(_unlike_labels(ranked), ranked, strict=True))
    ]


def _counted(text: str) -> Counter[str]:
    counted: Counter[str] = Counter()
    for run in terms(text):
        counted.update(run)
        counted.update(f'{first} {second}' for first, second in zip(run, run[1:], strict=False) if first != second)
    return counted


def _without_repeats(weights: dict[str, float], wanted: int) -> list[str]:
    """The heaviest terms, leaving out each that shares a word with a heavier one. Of equals, the longer says more."""
    # Sums of floats in another order differ in the last digits; equal weights have to look equal.
    order = sorted(weights, key=lambda term: (-round(weights[term], 12), -term.count(' '), term))
    chosen: list[str] = []
    taken: list[str] = []
    for term in order[:_KEYWORDS_LOOKED_AT]:
        words = term.split(' ')
        if len(chosen) < wanted and not any(_same_word(word, other) for word in words for other in taken):
            chosen.append(term)
            taken += words
    return chosen


def _same_word(word: str, other: str) -> bool:
    """Whether two words are forms of one: "card" and "cards", "verify" and "verification". A guess, never shown."""
    if word == other:
        return True
    short, long = sorted((word, other), key=len)
    if len(short) < _STEM_CHARS_MIN:
        return len(short) > 2 and long in (f'{short}s', f'{short}es')
    shared = len(short) - 1 if len(short) > _STEM_CHARS_MIN else len(short)
    return long.startswith(short[:shared])


def _unlike_labels(ranked: list[list[str]]) -> list[str]:
    labels: list[str] = []
    for cluster, chosen in enumerate(ranked):
        label = ''
        for terms_used in range(min(_LABEL_TERMS, len(chosen)), len(chosen) + 1):
            label = _joined(chosen[:terms_used])
            if label and label not in labels:
                break
        if not label or label in labels:
            label = f'{label[: LABEL_CHARS_MAX - 20]} {cluster + 1}'.strip() if label else f'cluster {cluster + 1}'
        labels.append(label)
    return labels


def _joined(chosen: list[str]) -> str:
    label = ''
    for term in chosen:
        longer = f'{label}, {term}' if label else term
        if len(longer) > LABEL_CHARS_MAX:
            break
        label = longer
    return label


def _summary(size: int, total: int, chosen: list[str], typical: list[str]) -> str:
    what = f'{size} of {total} documents'
    marks = chosen[:_LABEL_TERMS]
    if len(marks) > 1:
        what += f' in which {", ".join(marks[:-1])} and {marks[-1]} stand out'
    elif marks:
        what += f' in which {marks[0]} stands out'
    quote = next((' '.join(text.split()) for text in typical if text.strip()), '')
    return f'{what}. Typical: “{quote}”' if quote else f'{what}.'
