"""Turns texts into vectors by hashing the character n-grams of their words.

No weights, no training, no network: the vector of a text depends on its letters alone, so texts that share
words (or parts of words) come out near each other. It compares wording, not meaning: "car" and "automobile"
are strangers to it.

How a text becomes 128 numbers:

1. Lower-case it, take its words, drop stop words, cut off common English endings ("qubits" -> "qubit").
2. Pad each word by a space on both sides and take its n-grams of 3 to 5 characters. The CRC-32 of an n-gram
   gives its place (remainder modulo 128) and its sign (top bit); random signs let unrelated n-grams that share
   a place cancel on average. Scale the result to length 1, so that long words do not count for more.
3. Add up the word vectors. A word that occurs n times has weight n ** 1.25: what an article repeats is what it
   is about. Figures get a quarter of a word's weight, because a year or an amount says little about a topic.
4. Scale the sum to length 1.

That suits articles. In questions of one line the small words say what is asked ("how do I", "why was"): a collection
with the parameter {"words": "all"} takes every word as it stands, and every n-gram counts the same.
"""

import re
import zlib
from types import SimpleNamespace

import numpy as np

DIMS = 128
GRAM_CHARS_MIN = 3
GRAM_CHARS_MAX = 5
REPEAT_EXPONENT = 1.25
FIGURE_WEIGHT = 0.25

# A longer run of characters is no word but a token, an address or an attack; its start is enough.
WORD_CHARS_MAX = 40
# 20,000 word vectors are 20 MB; a full table is emptied, which costs time but changes no result.
TABLE_WORDS_MAX = 20_000

WORD = re.compile(r"[^\W_]+")

# English words that say nothing about a text's subject.
STOP_WORDS = frozenset(
    # articles, pronouns, question words
    "a an the i me my you your he him his she her it its we us our they them their this that these those "
    "who whom whose which what when where why how whether each every either neither both all any some none "
    "no one ones other others another anyone anything everyone nobody nothing something same such itself own "
    # prepositions and conjunctions
    "about above across after against along among around as at away back before behind below between beyond by "
    "down during for from in into near of off on onto out outside over per round since through to together "
    "toward towards under until up upon with within without and but or nor if because although though unless "
    "while than then so "
    # auxiliary and colourless verbs
    "be is am are was were been being have has had do does did done can could cannot may might must shall should "
    "will would need needs become becomes became begin begins began call called come comes came find found get "
    "gets got give gives given gave go goes going gone went keep keeps kept know known knew let lets make makes "
    "made making mean means meant put puts say says said see seen saw seem seems set sets show shows shown start "
    "starts started stay stays take takes taken took turn turns turned use uses used using work works "
    # adverbs and adjectives of degree, order and manner
    "again almost already also always ago best better early else enough especially even ever far fast few first "
    "good great here high however just large largest last late later least less like likely little long longer "
    "low lower many more most much never new next not now often old once only perhaps quite rather really several "
    "short simply slow small soon still there therefore thus too usually very well yet "
    # numbers in words, units of time, vague nouns
    "two three four five six seven eight nine ten half third hundred thousand million billion day days week weeks "
    "month months year years hour hours minute minutes second seconds time times today decade decades "
    "kind part parts people place side thing things way ways word words world number amount".split()
)

# Longest ending first; each replacement keeps singular and plural, or two tenses, on one stem.
ENDINGS = (("sses", "ss"), ("ies", "y"), ("ing", ""), ("ed", ""), ("es", "e"), ("s", ""))
STEM_CHARS_MIN = 3


def stem(word):
    """Cuts one common English ending off `word`, if at least three characters remain. Crude on purpose: the
    n-grams of "bake" and "bak" overlap anyway, so a wrong cut costs little."""
    if word.endswith("ss"):
        return word
    for ending, replacement in ENDINGS:
        if word.endswith(ending):
            cut = word[: -len(ending)] + replacement
            return cut if len(cut) >= STEM_CHARS_MIN else word
    return word


def gram_sums(word):
    """Hashes the n-grams of one word into DIMS places: the sum of the signs that fall on each."""
    padded = f" {word} "
    vector = np.zeros(DIMS)
    for size in range(GRAM_CHARS_MIN, GRAM_CHARS_MAX + 1):
        for start in range(len(padded) - size + 1):
            code = zlib.crc32(padded[start : start + size].encode("utf-8", "surrogatepass"))
            vector[code % DIMS] += -1.0 if code >> 31 else 1.0
    return vector


def scaled_to_unit(vector):
    """Returns `vector` at length 1; an all-zero vector is returned as it is."""
    length = np.sqrt(vector @ vector)
    return vector / length if length > 0 else vector


def all_words(text):
    """Lists the words of `text`, repeats included."""
    return [word[:WORD_CHARS_MAX] for word in WORD.findall(text.lower())]


def topic_words(text):
    """Lists the stems that count in `text`, repeats included. A text of stop words alone (a query such as
    "how to") keeps them all, because a poor vector serves better than none."""
    words = all_words(text)
    return [stem(word) for word in words if word not in STOP_WORDS] or words


class TopicWords:
    """What an article is about: stems without stop words, long and short ones alike, repeated ones above all."""

    words = staticmethod(topic_words)

    @staticmethod
    def vector(word):
        return scaled_to_unit(gram_sums(word))

    @staticmethod
    def weight(word, count):
        return count**REPEAT_EXPONENT * (FIGURE_WEIGHT if word.isdigit() else 1.0)


class AllWords:
    """Every word as it stands, each n-gram as often as it occurs."""

    words = staticmethod(all_words)
    vector = staticmethod(gram_sums)

    @staticmethod
    def weight(word, count):
        return count


WORDS = {"topic": TopicWords, "all": AllWords}


class NgramEmbedder:
    """Embeds texts and remembers the vectors of words it has met, which makes it fast on real text. The memory
    never changes a result: the same text gives the same vector in any order and on any machine."""

    def __init__(self, words="topic"):
        if words not in WORDS:
            raise ValueError(f'the parameter "words" is {words!r}; it may be {" or ".join(map(repr, WORDS))}')
        self._choice = WORDS[words]
        self._row_of_word = {}
        self._vectors = np.empty((TABLE_WORDS_MAX, DIMS))

    def embed(self, text):
        """Returns a float32 unit vector of DIMS numbers, or None for a text without a letter or digit."""
        counts = {}
        for word in self._choice.words(text):
            counts[word] = counts.get(word, 0) + 1
        total = np.zeros(DIMS)
        words = list(counts)
        # In slices, because a text may hold more different words than the table.
        for start in range(0, len(words), TABLE_WORDS_MAX):
            part = words[start : start + TABLE_WORDS_MAX]
            weights = [self._choice.weight(word, counts[word]) for word in part]
            total += np.array(weights) @ self._vectors[self._rows(part)]
        unit = scaled_to_unit(total)
        return unit.astype(np.float32) if unit.any() else None

    def _rows(self, words):
        missing = [word for word in words if word not in self._row_of_word]
        if len(self._row_of_word) + len(missing) > TABLE_WORDS_MAX:
            self._row_of_word.clear()
            missing = words
        for word in missing:
            row = len(self._row_of_word)
            self._vectors[row] = self._choice.vector(word)
            self._row_of_word[word] = row
        return [self._row_of_word[word] for word in words]


class NgramEmbedStep:
    """The one step of the plugin: reads column `data`, adds column `ngram_embed_v1_embedding`. A row without
    text gets None there, and therefore no vector; every other column, and the order of rows, stays."""

    input_column = "data"
    output_column = "ngram_embed_v1_embedding"

    def __init__(self, words="topic"):
        self._embedder = NgramEmbedder(words)

    def __call__(self, batch):
        vectors = np.empty(len(batch), dtype=object)
        for position, value in enumerate(batch[self.input_column]):
            # Missing text arrives as None or, once pandas has touched the column, as NaN.
            vector = self._embedder.embed(value) if isinstance(value, str) else None
            vectors[position] = None if vector is None else vector.tolist()
        result = batch.copy()
        result[self.output_column] = vectors
        return result


def build_steps(extractor_request=None, container=None, base_steps=None, dataset_size=None, content_flags=None):
    """Granary's entry point: the steps to run over a batch, and a `prepare` that leaves the batch as it is."""
    step = NgramEmbedStep(**parameters_of(extractor_request))
    return {"steps": [*(base_steps or []), step], "prepare": lambda batch: batch}


def parameters_of(extractor_request):
    """The parameters that the collection gives the plugin, as arguments of the step; none without a request."""
    config = getattr(extractor_request, "extractor_config", None)
    parameters = getattr(config, "parameters", None) or {}
    return {"words": parameters["words"]} if "words" in parameters else {}


def extract(extractor_request=None, base_steps=None, dataset_size=None, content_flags=None):
    """The older entry point: the same steps, as attributes of an object."""
    return SimpleNamespace(
        **build_steps(
            extractor_request=extractor_request,
            base_steps=base_steps,
            dataset_size=dataset_size,
            content_flags=content_flags,
        )
    )
