"""A Whisper checkpoint by the names that CTranslate2 gave its variables."""

from typing import Final

import numpy as np

from engines.base import Array
from engines.zoo.ctranslate2 import read_checkpoint
from engines.zoo.errors import CheckpointError
from engines.zoo.layers import HEAD, LayerGraph

_MELS: Final = 80


class WhisperWeights:
    """The variables, float16 as they are stored, and the sizes that follow from them. Raises CheckpointError."""

    def __init__(self, data: bytes) -> None:
        self._variables = read_checkpoint(data, "WhisperSpec")
        width, mels, _ = self["encoder/conv1/weight"].shape
        if mels != _MELS or width % HEAD or int(self["encoder/num_heads"]) * HEAD != width:
            raise CheckpointError(f"Whisper weights: {mels} mel bins and width {width} are of another network")
        self.width = int(width)
        self.heads = self.width // HEAD
        self.encoder_layers = self._layers("encoder")
        self.decoder_layers = self._layers("decoder")
        self.vocabulary = int(self["decoder/embeddings/weight"].shape[0])

    def __getitem__(self, name: str) -> Array:
        try:
            return self._variables[name]
        except KeyError:
            raise CheckpointError(f"Whisper weights: variable '{name}' is missing") from None

    def linear(self, name: str) -> tuple[Array, Array]:
        """Weight [out, in] and bias."""
        return self[f"{name}/weight"], self[f"{name}/bias"]

    def norm(self, name: str) -> tuple[Array, Array]:
        """Gamma and beta of the layer norm inside `name`."""
        return self[f"{name}/layer_norm/gamma"], self[f"{name}/layer_norm/beta"]

    def scaled_queries(self, name: str) -> tuple[Array, Array]:
        """A layer whose first `width` outputs are queries, these divided by the root of the head's width.

        That is a power of two, so nothing is rounded.
        """
        weight, bias = (value.astype(np.float32) for value in self.linear(name))
        weight[: self.width] /= np.sqrt(HEAD)
        bias[: self.width] /= np.sqrt(HEAD)
        return weight, bias

    def feed_forward(self, graph: LayerGraph, name: str, x: str) -> str:
        """Normalise, widen, GELU, narrow, and add."""
        wide = graph.gelu(graph.linear(graph.layer_norm(x, *self.norm(name)), *self.linear(f"{name}/linear_0")))
        return graph.add("Add", x, graph.linear(wide, *self.linear(f"{name}/linear_1")))

    def _layers(self, side: str) -> int:
        marks = [
            name for name in self._variables if name.startswith(f"{side}/layer_") and name.endswith("linear_0/bias")
        ]
        return len({name.split("/")[1] for name in marks})
