"""Whisper's decoder as ONNX, made for rows of different recordings at different positions in one batch.

The caller keeps the self-attention cache, in a tensor of any capacity, and writes what a run computed behind what was
there; a run masks what lies behind each row's position. So one graph takes the prompt and the single tokens after it.

Cross-attention reads the encoder's states themselves, for all layers the same: with keys K = W x, scores q K are
(q W) x, and the weighted sum of values V = U x is U applied to the weighted sum of states. This costs some arithmetic
for each token, and saves 12 times the memory (37 MB a recording for the base model) and its traffic when rows that
come and go share a batch. The same is done in DeepSeek-V2's latent attention.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from onnx import TensorProto

from engines.zoo.errors import CheckpointError
from engines.zoo.layers import HEAD, LayerGraph
from engines.zoo.whisper_weights import WhisperWeights

#: The constant that tokens are looked up in.
TABLE: Final = "embeddings"


@dataclass(frozen=True, slots=True)
class _Past:
    """One layer's cached `keys` and `values` [b, heads, capacity, 64], and the mask over them and the new tokens."""

    keys: str
    values: str
    mask: str


def decoder(weights: WhisperWeights, name: str) -> bytes:
    """The model file; n = tokens of this run, b = rows.

    `tokens` int64 [b, n] at places `position` int64 [b] and after, `cache` [b, 2 * layers, heads, capacity, 64] (keys
    and values of each layer in turn, valid below `position`), `states` [b, states, width]
    -> `logits` [b, n, vocabulary], `new_cache` [b, 2 * layers, heads, n, 64].
    """
    graph, kinds = LayerGraph(name), 2 * weights.decoder_layers
    x = _embedded(graph, weights)
    cached = [graph.add("Squeeze", part, graph.integers(1)) for part in graph.split("cache", [1] * kinds, axis=1)]
    mask, fresh = _mask(graph), []
    for layer in range(weights.decoder_layers):
        base = f"decoder/layer_{layer}"
        past = _Past(cached[2 * layer], cached[2 * layer + 1], mask)
        x, keys, values = _self_attention(graph, weights, f"{base}/self_attention", x, past)
        fresh += [graph.add("Unsqueeze", keys, graph.integers(1)), graph.add("Unsqueeze", values, graph.integers(1))]
        x = _cross_attention(graph, weights, f"{base}/attention", x)
        x = weights.feed_forward(graph, f"{base}/ffn", x)
    x = graph.layer_norm(x, *weights.norm("decoder"))
    graph.node("MatMul", [x, graph.weight(weights["decoder/embeddings/weight"].T)], "logits")
    graph.node("Concat", fresh, "new_cache", axis=1)
    heads = weights.heads
    return graph.to_bytes(
        {
            "tokens": ["batch", "n"],
            "position": ["batch"],
            "cache": ["batch", kinds, heads, "capacity", HEAD],
            "states": ["batch", "states", weights.width],
        },
        {"logits": ["batch", "n", weights.vocabulary], "new_cache": ["batch", kinds, heads, "n", HEAD]},
        frozenset({"tokens", "position"}),
    )


def _embedded(graph: LayerGraph, weights: WhisperWeights) -> str:
    """Tokens and places as vectors. The table is kept in float16 beside the float32 one that makes the logits."""
    table = graph.constant(TABLE, np.ascontiguousarray(weights["decoder/embeddings/weight"], np.float16))
    words = graph.add("Cast", graph.add("Gather", table, "tokens"), to=TensorProto.FLOAT)
    places = graph.add("Add", graph.add("Unsqueeze", "position", graph.integers(1)), _upto(graph, "tokens", 1))
    return graph.add(
        "Add", words, graph.add("Gather", graph.weight(weights["decoder/position_encodings/encodings"]), places)
    )


def _upto(graph: LayerGraph, x: str, axis: int) -> str:
    """0, 1, ... below the length of an axis."""
    length = graph.add("Squeeze", graph.size(x, axis))
    return graph.add("Range", graph.scalar(0, np.int64), length, graph.scalar(1, np.int64))


def _mask(graph: LayerGraph) -> str:
    """What is added to scores [b, heads, n, capacity + n]: 0 where a token may look, else a large negative number."""
    zero, never = graph.scalar(0.0), graph.scalar(-1e9)
    n = graph.size("tokens", 1)
    below = graph.add("Less", _upto(graph, "cache", 3), graph.add("Unsqueeze", "position", graph.integers(1)))
    past = graph.add("Unsqueeze", graph.add("Where", below, zero, never), graph.integers(1, 2))
    past = graph.add("Expand", past, graph.add("Concat", graph.integers(1, 1), n, graph.integers(1), axis=0))
    order = _upto(graph, "tokens", 1)
    causal = graph.add("LessOrEqual", order, graph.add("Unsqueeze", order, graph.integers(1)))
    rows = graph.add("Concat", graph.size("tokens", 0), graph.integers(1, 1, 1), axis=0)
    return graph.add("Concat", past, graph.add("Expand", graph.add("Where", causal, zero, never), rows), axis=3)


def _self_attention(graph: LayerGraph, weights: WhisperWeights, base: str, x: str, past: _Past) -> tuple[str, str, str]:
    """The result, and the keys and values of the new tokens."""
    weight, bias = weights.scaled_queries(f"{base}/linear_0")
    fused = graph.linear(graph.layer_norm(x, *weights.norm(base)), weight, bias)
    parts = graph.split(fused, [weights.width] * 3, axis=2)
    query, key, value = (graph.heads(part, weights.heads) for part in parts)
    keys = graph.add("Concat", past.keys, key, axis=2)
    values = graph.add("Concat", past.values, value, axis=2)
    scores = graph.add("MatMul", query, graph.add("Transpose", keys, perm=[0, 1, 3, 2]))
    shares = graph.add("Softmax", graph.add("Add", scores, past.mask), axis=-1)
    mixed = graph.joined(graph.add("MatMul", shares, values), weights.width)
    return graph.add("Add", x, graph.linear(mixed, *weights.linear(f"{base}/linear_1"))), key, value


def _cross_attention(graph: LayerGraph, weights: WhisperWeights, base: str, x: str) -> str:
    width, heads = weights.width, weights.heads
    weight, bias = (np.split(value.astype(np.float32), 2) for value in weights.linear(f"{base}/linear_1"))
    if bias[0].any():
        raise CheckpointError(f"Whisper weights: the keys of {base} have a bias, which the conversion leaves out")
    key, value = (part.reshape(heads, HEAD, width) for part in weight)
    query = graph.linear(graph.layer_norm(x, *weights.norm(base)), *weights.scaled_queries(f"{base}/linear_0"))
    wide = graph.add("MatMul", graph.heads(query, heads), graph.weight(key))
    # States on the left: the matrix product then reads them once, as they lie.
    columns = graph.add("Transpose", graph.add("Reshape", wide, graph.integers(0, -1, width)), perm=[0, 2, 1])
    scores = graph.add("Transpose", graph.add("MatMul", "states", columns), perm=[0, 2, 1])
    mixed = graph.add("MatMul", graph.add("Softmax", scores, axis=-1), "states")
    mixed = graph.add("Reshape", mixed, graph.add("Shape", wide))
    values = graph.add("MatMul", mixed, graph.weight(value.transpose(0, 2, 1)))
    told = graph.add("Add", graph.joined(values, width), graph.weight(bias[1]))
    return graph.add("Add", x, graph.linear(told, *weights.linear(f"{base}/linear_2")))
