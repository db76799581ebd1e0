"""What a text model's manifest may say, and what it hears when its network is another."""

import pytest

from engines.repository import Repository
from engines.strict_toml import ConfigError
from tests.nlp import tiny_models


def entry(models, name):
    return next(entry for entry in Repository(models).scan() if entry.name == name)


def edited(folder, old, new):
    path = folder / "model.toml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("[text]", "[image]", "image"),
        ('[text]\nmax_tokens = 16\npooling = "mean"\n', "", "text: the section is missing"),
        ('"embed", "rerank"', '"rerank"', "embed"),
        ("max_tokens = 16", "max_tokens = 1", "text.max_tokens"),
        ('pooling = "mean"', 'pooling = "max"', "text.pooling"),
        ('pooling = "mean"', 'pooling = "mean"\nencoder = "other"', "text.encoder: is 'other', but only classifiers"),
        ("[batching]", '[zero_shot]\ntemplate = "no place"\n[batching]', "zero_shot.template"),
        ("[batching]", "[zero_shot]\ntemperature = 0.0\n[batching]", "zero_shot.temperature"),
        ("[batching]", '[rerank]\nouput = "x"\n[batching]', "did you mean"),
    ],
)
def test_mistakes_of_a_manifest(tmp_path, old, new, words):
    edited(tiny_models.add_embedder(tmp_path), old, new)
    assert words in str(entry(tmp_path, "states").error)


def test_a_reranker_needs_its_output_named(tmp_path):
    edited(tiny_models.add_cross_encoder(tmp_path), '[rerank]\noutput = "relevance"\n', "")
    error = entry(tmp_path, "judge").error
    assert "rerank: the section is missing, and a model that reranks without embedding needs it" in str(error)


def test_a_rerank_section_needs_its_task(tmp_path):
    edited(tiny_models.add_classifier(tmp_path), "[classify]", '[rerank]\noutput = "logits"\n[classify]')
    assert "rerank: the section is there, but tasks does not name 'rerank'" in str(entry(tmp_path, "opinion").error)


def refusal(models, name):
    found = entry(models, name)
    assert found.error is None
    with pytest.raises(ConfigError) as caught:
        found.load()
    return str(caught.value)


def test_hidden_states_need_pooling(tmp_path):
    edited(tiny_models.add_embedder(tmp_path), '"mean"', '"none"')
    assert "embed.output: 'last_hidden_state' has shape [-1, -1, 3], must have two axes" in refusal(tmp_path, "states")


def test_an_encoders_embedding_is_one_input(tmp_path):
    edited(tiny_models.add_classifier(tmp_path), "max_tokens = 16", 'encoder = "states"')
    assert "the model takes 'input_ids' INT32 [-1, -1], must take one FP32 [rows, values]" in refusal(
        tmp_path, "opinion"
    )


def test_a_network_that_reads_no_tokens(tmp_path):
    edited(tiny_models.add_head(tmp_path), 'encoder = "states"', "max_tokens = 16")
    words = (
        "text: the model takes embedding, must take 'input_ids' and at most attention_mask, token_type_ids beside it"
    )
    assert words in refusal(tmp_path, "head")


def test_each_tiny_model_loads(tmp_path):
    for add in (
        tiny_models.add_embedder,
        tiny_models.add_classifier,
        tiny_models.add_head,
        tiny_models.add_cross_encoder,
    ):
        loaded = entry(tmp_path, add(tmp_path).name).load()
        assert loaded.signature.batchable
        for engine in loaded.engines:
            engine.close()
