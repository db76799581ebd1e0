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

    size: int
    mean: tuple[float, float, float]
    scale: tuple[float, float, float]
    crop: float
    color: str


def write(name: str, tasks: Sequence[str], facts: Facts, how: Preprocessing, licence: str) -> str:
    """The manifest as text. Raises ZooError when the tensors do not fit the tasks."""
    lines = [
        f"name = {json.dumps(name)}",
        'service = "vision"',
        f"tasks = {json.dumps(list(tasks))}",
        'backend = "auto"',
        f"licence = {json.dumps(licence)}",
    ]
    if "classify" in tasks or "embed" in tasks:
        lines += _image(facts, how)
    vectors = [spec for spec in facts.outputs if len(spec.shape) == 2]
    if "classify" in tasks:
        scores = _classes(vectors, facts.outputs)
        activation = "none" if scores.name in facts.activated else "softmax"
        lines += ["", "[classify]", f"output = {json.dumps(scores.name)}", 'labels = "labels.txt"']
        lines += [f'activation = "{activation}"']
        vectors = [spec for spec in vectors if spec is not scores]
    if "embed" in tasks:
        if not vectors:
            raise ZooError("an embedding needs an output [batch, values] of its own; the model has none")
        lines += ["", "[embed]", f"output = {json.dumps(vectors[0].name)}"]
    return "\n".join([*lines, "", "[batching]", "max_rows = 16", "max_queue_rows = 512", ""])


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


def _classes(vectors: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> TensorSpec:
    if not vectors:
        found = ", ".join(f"'{spec.name}' {shown(spec)}" for spec in outputs)
        raise ZooError(f"a classifier has an output [batch, classes], this model has {found}")
    return next((spec for spec in vectors if spec.name in ("logits", "scores", "probabilities")), vectors[0])
