"""`headrace models add` with texts: small BERT-like networks with a real tokenizer of their own."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from typer.testing import CliRunner, Result

from cli.models import app
from engines.manifest import Manifest
from engines.repository import Repository

WORDS = ["[PAD]", "[UNK]", "good", "bad", "film"]


def add(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["add", *(str(argument) for argument in arguments)])


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    made = Tokenizer(WordLevel({word: index for index, word in enumerate(WORDS)}, "[UNK]"))
    made.pre_tokenizer = Whitespace()
    made.enable_truncation(64)
    made.save(str(tmp_path / "tokenizer.json"))
    return tmp_path / "tokenizer.json"


def network(path: Path, *outputs: str, rows: str | int = "batch") -> Path:
    """Embeds each token in 3 values: `last_hidden_state`, its mean `pooler_output`, and `logits` of two classes."""
    weights = np.random.default_rng(1)
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["last_hidden_state"]),
        helper.make_node("ReduceMean", ["last_hidden_state"], ["pooler_output"], axes=[1], keepdims=0),
        helper.make_node("MatMul", ["pooler_output", "head"], ["logits"]),
    ]
    shapes = {"last_hidden_state": [rows, "tokens", 3], "pooler_output": [rows, 3], "logits": [rows, 2]}
    graph = helper.make_graph(
        nodes,
        "bert",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, [rows, "tokens"])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shapes[name]) for name in outputs],
        [
            numpy_helper.from_array(weights.standard_normal((len(WORDS), 3)).astype(np.float32), "table"),
            numpy_helper.from_array(weights.standard_normal((3, 2)).astype(np.float32), "head"),
        ],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(path))
    return path


def manifest(models: Path, name: str) -> Manifest:
    entry = next(entry for entry in Repository(models).scan() if entry.name == name)
    assert entry.manifest is not None, entry.error
    loaded = entry.load()
    for engine in loaded.engines:
        engine.close()
    return entry.manifest


def test_an_embedder_is_pooled_and_ranks_too(tokenizer: Path, tmp_path: Path) -> None:
    models = tmp_path / "models"
    bert = network(tmp_path / "bert.onnx", "pooler_output", "last_hidden_state")
    done = add(bert, "--tokenizer", tokenizer, "--task", "embed", "--task", "rerank", "--models", models)
    assert done.exit_code == 0, done.stderr
    assert "texts are cut to 64 tokens" in done.stdout
    made = manifest(models, "bert")
    assert (made.service, made.tasks, made.rerank) == ("nlp", ("embed", "rerank"), None)
    assert made.text is not None
    assert made.embed is not None
    assert (made.text.max_tokens, made.text.pooling, made.embed.output) == (64, "mean", "last_hidden_state")
    assert (models / "bert" / "tokenizer.json").read_bytes() == tokenizer.read_bytes()


def test_a_classifier_and_a_cross_encoder(tokenizer: Path, tmp_path: Path) -> None:
    models, labels = tmp_path / "models", tmp_path / "labels.txt"
    labels.write_text("negative\npositive\n")
    mood = network(tmp_path / "mood.onnx", "logits")
    options = ("--tokenizer", tokenizer, "--models", models)
    assert add(mood, "--labels", labels, "--max-tokens", 32, *options).exit_code == 0
    made = manifest(models, "mood")
    assert made.text is not None
    assert made.classify is not None
    assert (made.tasks, made.text.max_tokens, made.classify.output) == (("classify",), 32, "logits")

    assert add(mood, "--name", "judge", "--task", "rerank", *options).exit_code == 0
    judge = manifest(models, "judge")
    assert judge.rerank is not None
    assert judge.rerank.output == "logits"


def test_what_cannot_be_served_is_one_line_and_leaves_nothing(tokenizer: Path, tmp_path: Path) -> None:
    models, no_tokenizer = tmp_path / "models", tmp_path / "config.json"
    no_tokenizer.write_text(json.dumps({"hidden_size": 3}))
    bert = network(tmp_path / "bert.onnx", "last_hidden_state")
    single = network(tmp_path / "single.onnx", "last_hidden_state", rows=1)
    for arguments, words in (
        ((bert, "--service", "nlp", "--task", "embed"), "needs --tokenizer FILE"),
        ((bert, "--tokenizer", no_tokenizer), "is no tokenizer.json"),
        ((bert, "--tokenizer", tmp_path / "none"), "there is no such file"),
        ((bert, "--tokenizer", tokenizer, "--service", "vision"), "goes with --service nlp only"),
        ((bert, "--tokenizer", tokenizer, "--service", "speech"), "models are added to vision or nlp"),
        ((bert, "--tokenizer", tokenizer, "--task", "recommend"), "nlp has no such task"),
        ((bert, "--tokenizer", tokenizer, "--pooling", "max"), "there are mean and cls"),
        ((bert, "--tokenizer", tokenizer, "--task", "classify"), "needs --labels FILE"),
        ((bert, "--tokenizer", tokenizer, "--task", "rerank"), "this model has 'last_hidden_state'"),
        ((single, "--tokenizer", tokenizer), "its batch size is fixed"),
    ):
        refused = add(*arguments, "--models", models)
        assert refused.exit_code == 1, arguments
        assert words in refused.stderr
        assert refused.stderr.count("error: ") == 1
    assert not list(models.glob("[!.]*"))
