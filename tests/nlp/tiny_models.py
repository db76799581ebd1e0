"""Text models small enough to know their answers: each token adds a row of a table."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "good", "bad", "shoe", "##s", "猫"]


def write_tokenizer(folder, **settings):
    """A WordPiece tokenizer of nine pieces, built like BERT's."""
    tokenizer = Tokenizer(models.WordPiece({word: place for place, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    if settings:
        tokenizer.enable_padding(**settings)
    path = folder / "tokenizer.json"
    tokenizer.save(str(path))
    return path


#: By word id: [good, bad, shoe]. The cat is not in the table: a network of the wrong vocabulary fails on it.
TABLE = np.array(
    [[0, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0], [4, 0, 0], [0, 4, 0], [0, 0, 4], [0, 0, 1]],
    np.float32,
)

_MANIFEST = """name = "{name}"
service = "nlp"
tasks = {tasks}
{more}
[batching]
max_rows = 8
max_tokens = 64
max_queue_rows = 1024
"""


def _save(models_dir: Path, name: str, tasks: list[str], more: str, model: bytes) -> Path:
    folder = models_dir / name
    (folder / "1").mkdir(parents=True)
    (folder / "1" / "model.onnx").write_bytes(model)
    (folder / "model.toml").write_text(_MANIFEST.format(name=name, tasks=str(tasks).replace("'", '"'), more=more))
    return folder


def _model(nodes, inputs, outputs, constants=()) -> bytes:
    infos = [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()]
    outs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()]
    values = [numpy_helper.from_array(value, name) for name, value in constants]
    graph = helper.make_graph([helper.make_node(*node) for node in nodes], "tiny", infos, outs, values)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def _tokens(name: str, kind: int = TensorProto.INT64) -> dict:
    return {name: (kind, ["batch", "tokens"])}


def add_embedder(models_dir: Path, name: str = "states", pooling: str = "mean") -> Path:
    """An embedder that answers hidden states, as exporters leave them: pooling is the server's."""
    model = _model(
        [("Gather", ["table", "input_ids"], ["last_hidden_state"]), ("Identity", ["attention_mask"], ["unused"])],
        _tokens("input_ids") | _tokens("attention_mask"),
        {"last_hidden_state": ["batch", "tokens", 3]},
        [("table", TABLE)],
    )
    more = f'[text]\nmax_tokens = 16\npooling = "{pooling}"\n[embed]\noutput = "last_hidden_state"\n'
    folder = _save(models_dir, name, ["embed", "rerank"], more, model)
    write_tokenizer(folder)
    return folder


def add_classifier(models_dir: Path, name: str = "opinion") -> Path:
    """A text classifier with three labels, of INT32 ids and no mask: it adds its tokens up."""
    model = _model(
        [
            ("Gather", ["table", "input_ids"], ["rows"]),
            ("ReduceSum", ["rows", "axis"], ["kept"]),
            ("Squeeze", ["kept", "axis"], ["logits"]),
        ],
        _tokens("input_ids", TensorProto.INT32),
        {"logits": ["batch", 3]},
        [("table", TABLE), ("axis", np.array([1], np.int64))],
    )
    folder = _save(models_dir, name, ["classify"], '[text]\nmax_tokens = 16\n[classify]\noutput = "logits"\n', model)
    (folder / "labels.txt").write_text("praise\nblame\nfootwear\n")
    write_tokenizer(folder)
    return folder


def add_head(models_dir: Path, name: str = "head", encoder: str = "states", width: int = 3) -> Path:
    """A classifier on the embeddings of another model: its logits are ten times the embedding."""
    model = _model(
        [("Mul", ["embedding", "ten"], ["logits"])],
        {"embedding": (TensorProto.FLOAT, ["batch", width])},
        {"logits": ["batch", width]},
        [("ten", np.array(10, np.float32))],
    )
    folder = _save(
        models_dir, name, ["classify"], f'[text]\nencoder = "{encoder}"\n[classify]\noutput = "logits"\n', model
    )
    (folder / "labels.txt").write_text("".join(f"label{index}\n" for index in range(width)))
    return folder


def add_cross_encoder(models_dir: Path, name: str = "judge") -> Path:
    """A reranker that reads query and document together: it counts shoes in the second of the two."""
    nodes = [
        ("Gather", ["table", "input_ids"], ["rows"]),
        ("Equal", ["token_type_ids", "one"], ["second"]),
        ("Where", ["second", "rows", "zero"], ["counted"]),
        ("ReduceSum", ["counted", "axis"], ["relevance"]),
    ]
    constants = {
        "table": TABLE[:, 2].copy(),
        "one": np.array(1),
        "zero": np.array(0, np.float32),
        "axis": np.array([1]),
    }
    inputs = _tokens("input_ids") | _tokens("token_type_ids")
    model = _model(nodes, inputs, {"relevance": ["batch", 1]}, constants.items())
    folder = _save(models_dir, name, ["rerank"], '[text]\nmax_tokens = 16\n[rerank]\noutput = "relevance"\n', model)
    write_tokenizer(folder)
    return folder
