"""What the sample articles and the n-gram plugin promise to the reader of the tutorial's summary."""

import ast
import json
import random
import re
import subprocess
import sys
import zlib
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
sys.path.insert(0, str(EXAMPLES))

import choose_threshold as example  # noqa: E402
from ngram_embed import manifest, pipeline  # noqa: E402

TOPICS = {"quantum", "cooking", "football", "gardening", "medicine", "finance"}
COLUMN = "ngram_embed_v1_embedding"

ARTICLES = example.read_json_lines("articles.jsonl")
NEW_ARTICLES = example.read_json_lines("new-articles.jsonl")
TOPIC_ROWS = example.read_json_lines("topics.jsonl")
HELD_BACK = {row["id"]: row["topic"] for row in TOPIC_ROWS}
LABELLED = [article for article in ARTICLES if "topic" in article]
UNLABELLED = [article for article in ARTICLES if "topic" not in article]


def topic_of(article):
    return article.get("topic") or HELD_BACK[article["id"]]


def embed_text(text):
    return pipeline.NgramEmbedder().embed(text)


@pytest.fixture(scope="module")
def threshold():
    return example.threshold_of(LABELLED, example.embed(LABELLED))


def topics_given(articles, threshold):
    return example.classify(example.embed(articles), LABELLED, example.embed(LABELLED), threshold)


# The articles


def test_there_are_120_articles_with_20_on_each_of_six_topics():
    assert len(ARTICLES) == 120
    assert Counter(map(topic_of, ARTICLES)) == dict.fromkeys(TOPICS, 20)


def test_there_are_12_new_articles_with_two_on_each_topic():
    assert Counter(map(topic_of, NEW_ARTICLES)) == dict.fromkeys(TOPICS, 2)


def test_a_third_of_the_articles_is_labelled_evenly_over_topics_and_over_the_file():
    assert len(LABELLED) == 40
    assert all(count in (6, 7) for count in Counter(map(topic_of, LABELLED)).values())
    assert [sum("topic" in article for article in ARTICLES[start : start + 12]) for start in range(0, 120, 12)] == [4] * 10


def test_the_topics_held_back_cover_exactly_the_articles_without_a_label():
    assert len(TOPIC_ROWS) == len(HELD_BACK) == 92
    assert set(HELD_BACK) == {article["id"] for article in UNLABELLED + NEW_ARTICLES}
    assert all("topic" not in article for article in NEW_ARTICLES)


def test_ids_titles_and_texts_are_unique():
    every = ARTICLES + NEW_ARTICLES
    for field in ("id", "title", "text"):
        assert len({article[field] for article in every}) == len(every)


@pytest.mark.parametrize("article", ARTICLES + NEW_ARTICLES, ids=lambda article: article["id"])
def test_an_article_has_two_to_four_sentences_and_40_to_80_words(article):
    assert set(article) - {"topic"} == {"id", "title", "text"}
    assert 40 <= len(article["text"].split()) <= 80
    assert 2 <= len(re.findall(r"[.!?](?=\s|$)", article["text"])) <= 4


def test_no_two_articles_share_a_run_of_six_words():
    owner = {}
    for article in ARTICLES + NEW_ARTICLES:
        words = re.findall(r"\w+", article["text"].lower())
        for start in range(len(words) - 5):
            run = tuple(words[start : start + 6])
            assert owner.setdefault(run, article["id"]) == article["id"], " ".join(run)


# What the summary of the tutorial promises


def test_the_top_hit_of_each_of_the_three_queries_is_on_its_topic():
    queries = json.loads((EXAMPLES / "queries.json").read_text(encoding="utf-8"))
    assert len(queries) == 3
    vectors = example.embed(ARTICLES)
    for query in queries:
        top = ARTICLES[int((vectors @ embed_text(query["query"])).argmax())]
        assert topic_of(top) == query["topic"], f"{query['query']!r} found {top['title']!r}"


def test_most_unlabelled_articles_get_a_topic_and_most_of_those_the_right_one(threshold):
    given = topics_given(UNLABELLED, threshold)
    assigned = [(topic, HELD_BACK[article["id"]]) for topic, article in zip(given, UNLABELLED) if topic]
    assert len(assigned) >= 0.8 * len(UNLABELLED)
    assert sum(topic == true for topic, true in assigned) >= 0.8 * len(assigned)


def test_both_new_quantum_articles_are_recognised_and_no_other_new_article_is_taken_for_one(threshold):
    given = topics_given(NEW_ARTICLES, threshold)
    taken = {article["id"] for topic, article in zip(given, NEW_ARTICLES) if topic == "quantum"}
    assert taken == {article["id"] for article in NEW_ARTICLES if topic_of(article) == "quantum"}


def test_the_figures_in_the_examples_readme_are_those_of_this_code(threshold):
    text = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    given = topics_given(UNLABELLED, threshold)
    assigned = sum(topic is not None for topic in given)
    right = sum(topic == HELD_BACK[article["id"]] for topic, article in zip(given, UNLABELLED))
    assert f"threshold **{threshold:.3f}**" in text
    assert f"{assigned} of the 80 unlabelled articles get a topic" in text
    assert f"{right} of those {assigned} the right one" in text


# Words any of which tells a reader which topic a cluster is about.
TELLING_WORDS = {
    "quantum": {"quantum", "qubit", "qubits"},
    "cooking": {"sauce", "dough", "oven", "pan", "cook", "cooks", "butter", "flavour"},
    "football": {"team", "match", "goal", "goals", "cup", "goalkeeper", "player", "players", "club", "clubs"},
    "gardening": {"garden", "gardeners", "soil", "plant", "plants", "roots", "compost"},
    "medicine": {"patients", "patient", "doctors", "disease", "treatment"},
    "finance": {"investors", "bank", "banks", "shares", "bonds", "bond", "stock", "money", "interest"},
}

# Runs in a process of its own, because the clusterer's modules have short names that other functions use as well.
CLUSTER_SCRIPT = """
import json, sys
import numpy as np
import _event, _run

given = json.load(sys.stdin)
vectors = np.array(given["vectors"], dtype=np.float32)
request = _event.parse({
    "rows": vectors.shape[0], "dims": vectors.shape[1], "metric": "cosine",
    "algorithm": {"name": "hdbscan", "params": {"min_cluster_size": 5}},
    "vectors_url": "https://unused.invalid/v", "texts_url": "https://unused.invalid/t",
    "result_url": "https://unused.invalid/r",
})
json.dump(_run.run(request, vectors, given["ids"], given["texts"]), sys.stdout)
"""


def test_at_least_four_topics_come_back_as_clusters_with_labels_that_name_them():
    given = {
        "vectors": example.embed(ARTICLES).tolist(),
        "ids": [article["id"] for article in ARTICLES],
        "texts": [article["text"] for article in ARTICLES],
    }
    done = subprocess.run(
        [sys.executable, "-B", "-c", CLUSTER_SCRIPT],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        cwd=ROOT / "functions" / "clusterer",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    topics = {article["id"]: topic_of(article) for article in ARTICLES}
    named = set()
    for cluster in result["clusters"]:
        members = [m["document_id"] for m in result["members"] if m["cluster_id"] == cluster["cluster_id"]]
        topic, count = Counter(topics[member] for member in members).most_common(1)[0]
        words = set(re.findall(r"\w+", cluster["label"]))
        if count >= 0.8 * len(members) and count >= 10 and words & TELLING_WORDS[topic]:
            named.add(topic)
    assert len(named) >= 4, result["clusters"]


# The rule for the threshold


@pytest.mark.parametrize(
    "scores, right, expected",
    [
        pytest.param([0.9, 0.5, 0.4], [True, True, True], 0.4, id="all right: the lowest score passes"),
        pytest.param([0.9, 0.5, 0.2], [True, True, False], 0.35, id="halfway to the first score that fails"),
        pytest.param([0.9, 0.5, 0.4, 0.1], [True, False, True, False], 0.25, id="equal gains: the lower threshold"),
        pytest.param([0.5, 0.5, 0.3], [True, True, False], 0.4, id="equal scores pass or fail together"),
    ],
)
def test_the_threshold_maximises_right_minus_wrong_topics(scores, right, expected):
    assert example.choose_threshold(scores, right) == pytest.approx(expected)


def test_the_threshold_rule_agrees_with_trying_every_threshold():
    rng = random.Random(7)
    for _ in range(200):
        pairs = [(round(rng.random(), 1), rng.random() < 0.7) for _ in range(rng.randint(1, 12))]
        gains = {score: sum(1 if ok else -1 for s, ok in pairs if s >= score) for score, _ in pairs}
        best = max(gains.values())
        scores, right = zip(*pairs)
        if best <= 0:
            with pytest.raises(ValueError, match="more right than wrong"):
                example.choose_threshold(scores, right)
            continue
        chosen = example.choose_threshold(scores, right)
        lowest = min(score for score, gain in gains.items() if gain == best)
        assert [s >= chosen for s in scores] == [s >= lowest for s in scores]


# The plugin


def test_every_value_of_the_manifest_can_be_read_without_running_it():
    tree = ast.parse((EXAMPLES / "ngram_embed" / "manifest.py").read_text(encoding="utf-8"))
    read = {node.targets[0].id: ast.literal_eval(node.value) for node in tree.body if isinstance(node, ast.Assign)}
    assert read["feature_extractor_name"] == "ngram_embed"
    assert read["version"] == "1.0.0"
    assert read["features"] == [
        {
            "feature_type": "embedding",
            "feature_name": COLUMN,
            "embedding_dim": pipeline.DIMS,
            "distance_metric": "cosine",
        }
    ]
    assert all(getattr(manifest, name) == value for name, value in read.items())


def run_plugin(entry, batch):
    result = entry()
    steps, prepare = (result["steps"], result["prepare"]) if isinstance(result, dict) else (result.steps, result.prepare)
    batch = prepare(batch)
    for step in steps:
        batch = step(batch)
    return batch


@pytest.mark.parametrize("entry", [pipeline.build_steps, pipeline.extract])
def test_each_entry_point_gives_every_article_the_vector_of_its_text_alone(entry):
    texts = [article["text"] for article in ARTICLES]
    result = run_plugin(entry, pd.DataFrame({"data": pd.Series(texts, dtype=object)}))
    assert [np.float32(vector).tolist() for vector in result[COLUMN]] == [embed_text(text).tolist() for text in texts]


def test_steps_that_granary_passes_in_run_before_the_embedding():
    base_step = object()
    assert pipeline.build_steps(base_steps=[base_step])["steps"][0] is base_step
    assert pipeline.extract(base_steps=[base_step]).steps[0] is base_step


def test_rows_without_text_get_no_vector_and_other_columns_index_and_input_stay_as_they_were():
    data = pd.Series(["qubits", None, float("nan"), "", "  ?! ", 7], dtype=object)
    batch = pd.DataFrame({"data": data, "__row": range(6)}).set_index(pd.Index([9, 4, 4, 1, 0, 2]))
    before = batch.copy(deep=True)
    result = run_plugin(pipeline.build_steps, batch)
    assert [vector is None for vector in result[COLUMN]] == [False, True, True, True, True, True]
    pd.testing.assert_frame_equal(result.drop(columns=COLUMN), before)
    pd.testing.assert_frame_equal(batch, before)


def test_an_empty_batch_stays_empty_and_gains_the_column():
    result = run_plugin(pipeline.build_steps, pd.DataFrame({"data": []}))
    assert len(result) == 0 and COLUMN in result


def test_a_word_becomes_the_signed_hashes_of_its_padded_3_to_5_grams():
    expected = np.zeros(128)
    for gram in (" ox", "ox ", " ox "):
        code = zlib.crc32(gram.encode())
        expected[code % 128] += 1 if code < 2**31 else -1
    assert embed_text("Ox!") == pytest.approx(expected / np.linalg.norm(expected), abs=1e-6)


def test_a_repeated_word_weighs_its_count_to_the_power_of_one_and_a_quarter():
    fox, owl = (pipeline.TopicWords.vector(word) for word in ("fox", "owl"))
    expected = 4**1.25 * fox + owl
    assert embed_text("fox owl fox, fox; fox") == pytest.approx(expected / np.linalg.norm(expected), abs=1e-6)


def test_with_all_words_every_gram_counts_as_often_as_it_occurs():
    steps = pipeline.build_steps(with_parameters({"words": "all"}))["steps"]
    vector = steps[0](pd.DataFrame({"data": ["The ox, the"]}))[COLUMN][0]
    expected = np.zeros(128)
    for word in ("the", "ox", "the"):
        expected += pipeline.gram_sums(word)
    assert vector == pytest.approx(expected / np.linalg.norm(expected), abs=1e-6)


def test_an_unknown_choice_of_words_is_refused_with_what_may_be_chosen():
    with pytest.raises(ValueError, match="'some'; it may be 'topic' or 'all'"):
        pipeline.build_steps(with_parameters({"words": "some"}))


def with_parameters(parameters):
    return SimpleNamespace(extractor_config=SimpleNamespace(parameters=parameters))


def test_stop_words_endings_and_capitals_make_no_difference():
    assert embed_text("The ROSES were pruned").tolist() == embed_text("pruning a rose").tolist()


@pytest.mark.parametrize("text", ["how to", "2024", "ß", "量子コンピュータ", "\ud800x", "x" * 1_000_000, "_", "İ"])
def test_any_text_gives_a_finite_unit_vector_or_none(text):
    vector = embed_text(text)
    if text == "_":
        assert vector is None
    else:
        assert vector.shape == (128,) and vector.dtype == np.float32
        assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)


def test_a_full_word_table_changes_no_vector(monkeypatch):
    texts = [article["text"] for article in ARTICLES[:30]]
    expected = [embed_text(text) for text in texts]
    # Fewer places than one article has different words, so that the table overflows within a text as well.
    monkeypatch.setattr(pipeline, "TABLE_WORDS_MAX", 10)
    embedder = pipeline.NgramEmbedder()
    for text, vector in zip(texts, expected):
        assert embedder.embed(text) == pytest.approx(vector, abs=1e-6)
