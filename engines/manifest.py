"""A model's manifest, `models/<name>/model.toml`: what it is, which calls it answers, and the numbers those need."""

import re
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field

from engines import strict_toml
from engines.sections.base import Positive, Section, Text
from engines.sections.dimensions import Dimension
from engines.sections.reading import Reader
from engines.sections.recommendation import Recommender
from engines.sections.speech import Recognizer
from engines.sections.text import Rerank, TextInput, ZeroShot
from engines.strict_toml import ConfigError
from engines.work import BatchLimits

FILE_NAME: Final = "model.toml"
MODEL_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")

#: "tensor": Open Inference calls only, which every model answers anyway.
Task = Literal[
    "classify",
    "embed",
    "read_text",
    "rerank",
    "recommend",
    "rank",
    "similar_items",
    "recognize",
    "detect_speech",
    "tensor",
]
Service = Literal["vision", "speech", "nlp", "recommendation"]
Backend = Literal["auto", "onnxruntime", "tensorrt", "fake"]
Datatype = Literal[
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64", "BYTES"
]


class Image(Section):
    """How pixels become the input: resize the shorter side to size / crop, crop the centre, (x - mean) / scale."""

    input: Text
    width: Annotated[int, Field(ge=1, le=8192)]
    height: Annotated[int, Field(ge=1, le=8192)]
    crop: Annotated[float, Field(gt=0, le=1)] = 1.0
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] = "bicubic"
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    scale: tuple[float, float, float] = (1.0, 1.0, 1.0)
    layout: Literal["NCHW", "NHWC"] = "NCHW"
    color: Literal["RGB", "BGR"] = "RGB"


class Classify(Section):
    """Which output holds the scores, one a class, and the file that names the classes, one a line."""

    output: Text
    labels: Text = "labels.txt"
    activation: Literal["softmax", "sigmoid", "none"] = "softmax"


class Embed(Section):
    """Which output holds the embedding."""

    output: Text


class Batching(Section):
    """How large batches and the queue may grow; see BatchLimits."""

    max_rows: Positive = 16
    max_queue_rows: Positive = 512
    max_tokens: Positive | None = None


class Instances(Section):
    """How many engines serve the model side by side (0: one a core of the service), and the threads of each."""

    count: Annotated[int, Field(ge=0, le=256)] = 0
    threads: Annotated[int, Field(ge=1, le=256)] = 1


class Tensor(Section):
    """A tensor that the model's file must have. A dimension is a size, -1 or a name for one that is not fixed."""

    name: Text
    datatype: Datatype
    shape: tuple[int | str, ...]


class TensorList(Section):
    """The tensors that the model's file must have."""

    inputs: tuple[Tensor, ...] = ()
    outputs: tuple[Tensor, ...] = ()


class Fake(Section):
    """What the fake engine computes (`factor` times each input) and how it misbehaves; see engines.fake."""

    inputs: tuple[Tensor, ...] = (Tensor(name="x", datatype="FP32", shape=(-1, 4)),)
    factor: float = 2.0
    seconds_per_batch: Annotated[float, Field(ge=0)] = 0.0
    seconds_per_row: Annotated[float, Field(ge=0)] = 0.0
    fail_on: float | None = None
    wrong: Literal["", "rows", "missing", "dtype", "shape"] = ""


class Manifest(Section):
    """One model: its name is its folder's name, and the name that callers use."""

    name: Text
    service: Service
    tasks: Annotated[tuple[Task, ...], Field(min_length=1)]
    backend: Backend = "auto"
    summary: str = ""
    origin: str = ""
    licence: str = ""
    image: Image | None = None
    classify: Classify | None = None
    embed: Embed | None = None
    text: TextInput | None = None
    rerank: Rerank | None = None
    zero_shot: ZeroShot = ZeroShot()
    reader: Reader | None = None
    recognizer: Recognizer | None = None
    recommender: Recommender | None = None
    batching: Batching = Batching()
    instances: Instances = Instances()
    tensors: TensorList = TensorList()
    dimensions: dict[str, Dimension] = Field(default_factory=dict)
    fake: Fake | None = None

    @property
    def limits(self) -> BatchLimits:
        """Return the batching budget in the batcher's terms."""
        return BatchLimits(self.batching.max_rows, self.batching.max_queue_rows, self.batching.max_tokens)


def load(folder: Path) -> Manifest:
    """Read `folder/model.toml` and check what can be checked without opening the model. Raises ConfigError."""
    path = folder / FILE_NAME
    manifest = strict_toml.load(path, Manifest)
    for field, problem, allowed in _mistakes(manifest, folder.name):
        raise ConfigError(path, field, problem, allowed)
    return manifest


def _mistakes(manifest: Manifest, folder: str) -> list[tuple[str, str, str]]:
    """Return (field, problem, allowed) for what no single field shows."""
    found: list[tuple[str, str, str]] = []
    if manifest.name != folder:
        found.append(("name", f"is '{manifest.name}'", f"must be the name of its folder, '{folder}'"))
    if not MODEL_NAME.fullmatch(manifest.name):
        allowed = "must be 1 to 128 letters, digits, '_', '-' or '.', not starting with '-' or '.'"
        found.append(("name", f"is '{manifest.name}'", allowed))
    if len(set(manifest.tasks)) != len(manifest.tasks):
        found.append(("tasks", "names a task twice", "must name each once"))
    for task, name in (("classify", "classify"), ("embed", "embed"), ("recognize", "recognizer")):
        section = getattr(manifest, name)
        if task in manifest.tasks and section is None:
            found.append((name, "the section is missing", f"and the task '{task}' needs it"))
        if task not in manifest.tasks and section is not None:
            found.append((name, "the section is there", f"but tasks does not name '{task}'"))
    if manifest.service == "vision" and {"classify", "embed"} & set(manifest.tasks) and manifest.image is None:
        found.append(("image", "the section is missing", "and a vision model that classifies or embeds needs it"))
    found += _text_mistakes(manifest)
    found += _recommender_mistakes(manifest)
    found += _reader_mistakes(manifest)
    if manifest.image is not None and 0.0 in manifest.image.scale:
        found.append(("image.scale", "has a zero", "must be numbers other than 0"))
    if manifest.fake is not None and manifest.backend != "fake":
        found.append(("fake", "the section is there", f"but backend is '{manifest.backend}', not 'fake'"))
    return found


def _recommender_mistakes(manifest: Manifest) -> list[tuple[str, str, str]]:
    section, tasks = manifest.recommender, {"recommend", "rank", "similar_items"} & set(manifest.tasks)
    if section is None:
        needing = ", ".join(sorted(tasks))
        return [("recommender", "the section is missing", f"and tasks names {needing}")] if tasks else []
    if not tasks:
        return [("recommender", "the section is there", "but tasks names neither recommend, rank nor similar_items")]
    if not section.retrieval and tasks != {"rank"}:
        return [("recommender.retrieval", "is empty", "and without a retrieval model the only task is 'rank'")]
    return []


def _text_mistakes(manifest: Manifest) -> list[tuple[str, str, str]]:
    found: list[tuple[str, str, str]] = []
    tasks = {"classify", "embed", "rerank"} & set(manifest.tasks)
    if manifest.service == "nlp" and tasks and manifest.text is None:
        found.append(("text", "the section is missing", f"and an nlp model needs it to {', '.join(sorted(tasks))}"))
    if "rerank" in tasks and manifest.rerank is None and "embed" not in tasks:
        found.append(("rerank", "the section is missing", "and a model that reranks without embedding needs it"))
    if manifest.rerank is not None and "rerank" not in tasks:
        found.append(("rerank", "the section is there", "but tasks does not name 'rerank'"))
    if manifest.text is not None and manifest.text.encoder and tasks & {"embed", "rerank"}:
        found.append(
            ("text.encoder", f"is '{manifest.text.encoder}'", "but only classifiers read another's embeddings")
        )
    return found


def _reader_mistakes(manifest: Manifest) -> list[tuple[str, str, str]]:
    if ("read_text" in manifest.tasks) == (manifest.reader is not None):
        return []
    there, named = ("missing", "names") if manifest.reader is None else ("there", "does not name")
    return [("reader", f"the section is {there}", f"but tasks {named} 'read_text'")]
