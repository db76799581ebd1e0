"""The recipes of text models, on weights and reviews small enough for a test."""

import io

import numpy as np
import onnxruntime as ort
import pyarrow
import pytest
from pyarrow import parquet
from scipy.special import erf
from tokenizers import Tokenizer
from tokenizers.models import WordPiece

from engines.zoo import all_minilm_l6_v2, clothing_sentiment
from engines.zoo.bert import IDS, MASK, Bert, BertShape
from engines.zoo.errors import CheckError, CheckpointError
from engines.zoo.graph import Graph
from engines.zoo.recipe import Bench

WIDTH, HEADS, LAYERS, WORDS, PLACES = 8, 2, 2, 11, 16


def random_weights():
    random = np.random.default_rng(4)
    shapes = {
        "embeddings.word_embeddings.weight": (WORDS, WIDTH),
        "embeddings.position_embeddings.weight": (PLACES, WIDTH),
        "embeddings.token_type_embeddings.weight": (2, WIDTH),
        "embeddings.LayerNorm.weight": (WIDTH,),
        "embeddings.LayerNorm.bias": (WIDTH,),
    }
    for layer in range(LAYERS):
        base = f"encoder.layer.{layer}"
        linears = {f"attention.self.{part}": (WIDTH, WIDTH) for part in ("query", "key", "value")}
        linears |= {
            "attention.output.dense": (WIDTH, WIDTH),
            "intermediate.dense": (4 * WIDTH, WIDTH),
            "output.dense": (WIDTH, 4 * WIDTH),
        }
        for name, shape in linears.items():
            shapes |= {f"{base}.{name}.weight": shape, f"{base}.{name}.bias": shape[:1]}
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            shapes |= {f"{base}.{name}.weight": (WIDTH,), f"{base}.{name}.bias": (WIDTH,)}
    return {name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def reference(weights, ids):
    """BERT over one text without padding, in float64: the mean of its last hidden states, of length 1."""
    w = {name: value.astype(np.float64) for name, value in weights.items()}

    def norm(x, name):
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-12)
        return scaled * w[f"{name}.weight"] + w[f"{name}.bias"]

    def linear(x, name):
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    x = w["embeddings.word_embeddings.weight"][ids] + w["embeddings.position_embeddings.weight"][: len(ids)]
    x = norm(x + w["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
    for layer in range(LAYERS):
        base, size = f"encoder.layer.{layer}", WIDTH // HEADS
        parts = [linear(x, f"{base}.attention.self.{part}") for part in ("query", "key", "value")]
        mixed = []
        for head in range(HEADS):
            query, key, value = (part[:, head * size : (head + 1) * size] for part in parts)
            shares = np.exp(query @ key.T / np.sqrt(size))
            mixed.append(shares / shares.sum(1, keepdims=True) @ value)
        attended = linear(np.concatenate(mixed, 1), f"{base}.attention.output.dense")
        x = norm(attended + x, f"{base}.attention.output.LayerNorm")
        inner = linear(x, f"{base}.intermediate.dense")
        inner = inner * (1 + erf(inner / np.sqrt(2))) / 2
        x = norm(linear(inner, f"{base}.output.dense") + x, f"{base}.output.LayerNorm")
    mean = x.mean(0)
    return mean / np.linalg.norm(mean)


def session_of(weights):
    graph = Graph("bert")
    bert = Bert(graph, weights, BertShape(LAYERS, HEADS))
    bert.mean(bert.hidden_states(), "embedding")
    tokens = {IDS: ["batch", "tokens"], MASK: ["batch", "tokens"]}
    return ort.InferenceSession(graph.to_bytes(tokens, {"embedding": ["batch", WIDTH]}, frozenset(tokens)))


def test_the_graph_computes_bert_whatever_the_padding() -> None:
    weights = random_weights()
    session = session_of(weights)
    texts = [[1, 5, 9, 2], [3], [10, 10, 4, 4, 7, 0, 1]]
    ids = np.zeros((3, 9), np.int64)
    mask = np.zeros((3, 9), np.int64)
    for row, text in enumerate(texts):
        ids[row, : len(text)], mask[row, : len(text)] = text, 1
    ids[mask == 0] = 6  # What stands in the padding must not matter.
    found = session.run(None, {IDS: ids, MASK: mask})[0]
    np.testing.assert_allclose(found, [reference(weights, text) for text in texts], atol=1e-5)


def test_a_text_without_tokens_is_zeros() -> None:
    nothing = np.zeros((2, 3), np.int64)
    assert not session_of(random_weights()).run(None, {IDS: nothing, MASK: nothing})[0].any()


def test_a_missing_tensor_is_named() -> None:
    weights = random_weights()
    del weights["encoder.layer.1.output.dense.bias"]
    with pytest.raises(CheckpointError, match=r"tensor 'encoder\.layer\.1\.output\.dense\.bias' is missing"):
        session_of(weights)


def test_another_archive_is_refused() -> None:
    with pytest.raises(CheckpointError, match="the archive cannot be read"):
        all_minilm_l6_v2.build({"all_minilm_l6_v2/model.zip": b"no zip"}, lambda *_: None)


def reviews(count=12000):
    stars = np.random.default_rng(2).choice([1, 2, 3, 4, 5], count, p=[0.05, 0.15, 0.15, 0.2, 0.45])
    texts = [f"review {place}" for place in range(count)]
    return clothing_sentiment.Reviews(texts, stars, (stars >= 3).astype(int))


def test_nothing_held_out_is_trained_on() -> None:
    data = reviews()
    chosen = clothing_sentiment.split(data.recommended)
    assert not set(chosen.held_out) & set(chosen.training)
    assert len(set(chosen.held_out)) == 2000
    assert len(set(chosen.training)) == len(chosen.training) == len(chosen.weights)
    assert chosen.weights.mean() == pytest.approx(1.0)
    again = clothing_sentiment.split(data.recommended)
    np.testing.assert_array_equal(chosen.training, again.training)


def test_the_rarer_verdict_weighs_more_but_not_as_much_as_the_other() -> None:
    data = reviews()
    chosen = clothing_sentiment.split(data.recommended)
    recommended = data.recommended[chosen.training] == 1
    rare, common = chosen.weights[~recommended], chosen.weights[recommended]
    assert rare[0] > common[0]
    assert rare.sum() < common.sum()


def test_the_report_counts() -> None:
    stars = np.array([1, 2, 3, 3, 4, 5, 5, 5])
    data = clothing_sentiment.Reviews([""] * 8, stars, np.array([0, 0, 0, 1, 1, 1, 1, 1]))
    says = np.array([False, True, True, True, True, True, True, False])
    chosen = clothing_sentiment.Split(np.arange(8), np.arange(3), np.ones(3))
    words = clothing_sentiment.report(says, data, chosen)
    lines = words.splitlines()
    assert lines[0] == "trained on 3 reviews, tried on 8 others, drawn as they come"
    assert "accuracy 66.7% (always 'positive': 66.7%), recall of negative 50.0%, of positive 75.0%" in lines[1]
    assert "accuracy 62.5% (always 'positive': 62.5%), recall of negative 33.3%, of positive 80.0%" in lines[2]
    assert [line.split()[-2:] for line in lines[4:]] == [["1", "2"], ["1", "4"]]


def test_the_network_says_what_the_regression_does() -> None:
    random = np.random.default_rng(1)
    weights, x = random.standard_normal(384), random.standard_normal((5, 384)).astype(np.float32)
    session = ort.InferenceSession(clothing_sentiment.network(weights, 0.3))
    logits = session.run(None, {"embedding": x})[0].astype(float)
    chance = 1 / (1 + np.exp(-(x @ weights + 0.3)))
    powers = np.exp(logits - logits.max(1, keepdims=True))
    np.testing.assert_allclose((powers / powers.sum(1, keepdims=True))[:, 1], chance, atol=1e-5)


def test_reviews_without_text_are_left_out() -> None:
    table = pyarrow.table(
        {"Review Text": ["fine", None, "  ", "bad"], "Rating": [5, 4, 3, 1], "Recommended IND": [1, 1, 0, 0]}
    )
    buffer = io.BytesIO()
    parquet.write_table(table, buffer)
    found = clothing_sentiment.read(buffer.getvalue())
    assert (found.texts, found.stars.tolist(), found.recommended.tolist()) == (["fine", "bad"], [5, 1], [1, 0])
    with pytest.raises(CheckpointError, match="the reviews cannot be read"):
        clothing_sentiment.read(b"no parquet")


def test_the_proofs_notice_a_network_that_understands_nothing(tmp_path) -> None:
    """Vectors that are all alike prove no paraphrase, and a head without weights no sentiment."""
    tokenizer = Tokenizer(WordPiece({"[PAD]": 0, "[UNK]": 1}, unk_token="[UNK]"))
    for name in ("all_minilm_l6_v2", "clothing_sentiment"):
        (tmp_path / name).mkdir()
    tokenizer.save(str(tmp_path / "all_minilm_l6_v2" / "tokenizer.json"))

    class Dull:
        def run(self, batch):
            rows = len(next(iter(batch.values())))
            return {"embedding": np.ones((rows, 384), np.float32), "logits": np.zeros((rows, 2), np.float32)}

    for recipe in (all_minilm_l6_v2.RECIPE, clothing_sentiment.RECIPE):
        bench = Bench(tmp_path / recipe.name, tmp_path, lambda _name: Dull())
        with pytest.raises(CheckError, match=recipe.name):
            recipe.proof(bench)
