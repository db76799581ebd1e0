"""Whisper's encoder as ONNX: log-mel frames in, one state for every two frames out."""

from engines.zoo.layers import HEAD, LayerGraph
from engines.zoo.whisper_weights import WhisperWeights


def encoder(weights: WhisperWeights, name: str) -> bytes:
    """The model file: `mel` [batch, 80, frames], at most 3000 of 10 ms -> `states` [batch, states, width].

    Fewer frames than the 3000 of training are positions of the beginning.
    """
    graph = LayerGraph(name)
    x = _front(graph, weights)
    for layer in range(weights.encoder_layers):
        x = _attention(graph, weights, layer, x)
        x = weights.feed_forward(graph, f"encoder/layer_{layer}/ffn", x)
    gamma, beta = weights.norm("encoder")
    inputs = [x, graph.weight(gamma), graph.weight(beta)]
    graph.node("LayerNormalization", inputs, "states", axis=-1, epsilon=1e-5)
    return graph.to_bytes({"mel": ["batch", 80, "frames"]}, {"states": ["batch", "states", weights.width]})


def _front(graph: LayerGraph, weights: WhisperWeights) -> str:
    """Two convolutions, the second of stride 2, and the positions."""
    x = "mel"
    for conv, stride in (("encoder/conv1", 1), ("encoder/conv2", 2)):
        inputs = [x, graph.weight(weights[f"{conv}/weight"]), graph.weight(weights[f"{conv}/bias"])]
        x = graph.gelu(graph.add("Conv", *inputs, kernel_shape=[3], pads=[1, 1], strides=[stride]))
    x = graph.add("Transpose", x, perm=[0, 2, 1])
    positions = graph.weight(weights["encoder/position_encodings/encodings"])
    begin, axis = graph.integers(0), graph.integers(0)
    return graph.add("Add", x, graph.add("Slice", positions, begin, graph.size(x, 1), axis))


def _attention(graph: LayerGraph, weights: WhisperWeights, layer: int, x: str) -> str:
    """Self-attention, one head after the other.

    The scores of all heads together would be 72 MB for the base model; of one they fit the cache, at the same speed.
    """
    base, width = f"encoder/layer_{layer}/self_attention", weights.width
    weight, bias = weights.scaled_queries(f"{base}/linear_0")
    fused = graph.linear(graph.layer_norm(x, *weights.norm(base)), weight, bias)
    parts = graph.split(fused, [HEAD] * (3 * weights.heads), axis=2)
    heads = []
    for head in range(weights.heads):
        query, key, value = (parts[head + kind * weights.heads] for kind in range(3))
        scores = graph.add("MatMul", query, graph.add("Transpose", key, perm=[0, 2, 1]))
        heads.append(graph.add("MatMul", graph.add("Softmax", scores, axis=-1), value))
    assert len(heads) * HEAD == width  # noqa: S101  # WhisperWeights has compared them.
    return graph.add("Add", x, graph.linear(graph.add("Concat", *heads, axis=2), *weights.linear(f"{base}/linear_1")))
