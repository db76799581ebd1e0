"""Writes the model.toml of a user's own model from what its file tells."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from engines.base import TensorSpec
from engines.signatures import shown
from engines.zoo.errors import ZooError
from engines.zoo.inspection import Facts


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """How pixels become the input; `size` 0 where the file says it. `mean` and `scale` in 0..255 per colour."""

    size: int = 0
    mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    scale: tuple[float, float, float] = (58.395, 57.12, 57.375)
    crop: float = 0.875
    color: str = "RGB"


@dataclass(frozen=True, slots=True)
class Reading:
    """How a text is read: cut to `max_tokens`. `pooling`, "mean" or "cls", asks for an output of a vector a token."""

    max_tokens: int = 0
    pooling: str = ""


def write(name: str, tasks: Sequence[str], facts: Facts, how: Preprocessing | Reading, licence: str) -> str:
    """The manifest as text. Raises ZooError when the tensors do not fit the tasks."""
    lines = [
        f"name = {json.dumps(name)}",
        f'service = "{"nlp" if isinstance(how, Reading) else "vision"}"',
        f"tasks = {json.dumps(list(tasks))}",
        'backend = "auto"',
        f"licence = {json.dumps(licence)}",
    ]
    if isinstance(how, Reading) and tuple(tasks) != ("tensor",):
        lines += _text(tasks, facts, how)
    if isinstance(how, Preprocessing) and {"classify", "embed"} & set(tasks):
        lines += _image(facts, how)
    outputs = list(facts.outputs)
    if "classify" in tasks:
        scores = _classes(outputs)
        activation = "none" if scores.name in facts.activated else "softmax"
        lines += ["", "[classify]", f"output = {json.dumps(scores.name)}", 'labels = "labels.txt"']
        lines += [f'activation = "{activation}"']
        outputs.remove(scores)
    if "embed" in tasks:
        lines += ["", "[embed]", f"output = {json.dumps(_embedding(outputs, how).name)}"]
    if "rerank" in tasks and "embed" not in tasks:
        lines += ["", "[rerank]", f"output = {json.dumps(_classes(outputs).name)}"]
    budget = ["max_rows = 64", "max_queue_rows = 2048"] if isinstance(how, Reading) else ["max_rows = 16"]
    budget += [f"max_tokens = {max(512, how.max_tokens)}"] if isinstance(how, Reading) else ["max_queue_rows = 512"]
    return "\n".join([*lines, "", "[batching]", *budget, ""])


def _text(tasks: Sequence[str], facts: Facts, how: Reading) -> list[str]:
    if how.pooling not in ("", "mean", "cls"):
        raise ZooError(f"--pooling {how.pooling}: there is no such pooling, there are mean and cls")
    pooled = "embed" not in tasks or len(_embedding(facts.outputs, how).shape) == 2
    pooling = "none" if pooled else how.pooling or "mean"
    return ["", "[text]", 'tokenizer = "tokenizer.json"', f"max_tokens = {how.max_tokens}", f'pooling = "{pooling}"']


def _embedding(outputs: Sequence[TensorSpec], how: Preprocessing | Reading) -> TensorSpec:
    """The output that is an embedding: of texts one [batch, tokens, values] too, where it is asked for or all there is.

    BERT's own `pooler_output` was trained to tell whether two sentences follow each other: it is nobody's embedding.
    """
    wide = [spec for spec in outputs if len(spec.shape) == 3] if isinstance(how, Reading) else []
    flat = [spec for spec in outputs if len(spec.shape) == 2 and not (wide and spec.name == "pooler_output")]
    asked = wide if isinstance(how, Reading) and how.pooling else flat or wide
    if not asked:
        raise ZooError("an embedding needs an output [batch, values] of its own; the model has none")
    return asked[0]


def _image(facts: Facts, how: Preprocessing) -> list[str]:
    pictures = [spec for spec in facts.inputs if len(spec.shape) == 4]
    if len(facts.inputs) != 1 or not pictures:
        inputs = ", ".join(f"'{spec.name}' {shown(spec)}" for spec in facts.inputs)
        raise ZooError(f"a picture model has one input of four axes, this one has {inputs}; --task tensor serves any")
    spec = pictures[0]
    layout = "NHWC" if spec.shape[3] == 3 and spec.shape[1] != 3 else "NCHW"
    if layout == "NCHW" and spec.shape[1] != 3 and isinstance(spec.shape[1], int):
        raise ZooError(f"input '{spec.name}' {shown(spec)} has no axis of three colours; --task tensor serves any")
    height, width = spec.shape[2:] if layout == "NCHW" else spec.shape[1:3]
    return [
        "",
        "[image]",
        f"input = {json.dumps(spec.name)}",
        f"width = {_size(width, how, spec)}",
        f"height = {_size(height, how, spec)}",
        f"crop = {how.crop}",
        'interpolation = "bicubic"',
        f"mean = {list(how.mean)}",
        f"scale = {list(how.scale)}",
        f'layout = "{layout}"',
        f"color = {json.dumps(how.color)}",
    ]


def _size(size: int | str, how: Preprocessing, spec: TensorSpec) -> int:
    if isinstance(size, int):
        return size
    if not how.size:
        raise ZooError(f"input '{spec.name}' {shown(spec)} leaves the picture's size open: give it with --size")
    return how.size


def _classes(outputs: Sequence[TensorSpec]) -> TensorSpec:
    vectors = [spec for spec in outputs if len(spec.shape) == 2]
    if not vectors:
        found = ", ".join(f"'{spec.name}' {shown(spec)}" for spec in outputs)
        raise ZooError(f"a classifier has an output [batch, classes], this model has {found}")
    return next((spec for spec in vectors if spec.name in ("logits", "scores", "probabilities")), vectors[0])
