"""A recommender's manifest against its network and its tables."""

from pathlib import Path

from engines.base import Signature, TensorSpec
from engines.manifest import FILE_NAME, Manifest
from engines.recommender import served
from engines.recommender.csv_tables import DatasetError
from engines.sections.recommendation import Recommender
from engines.signatures import shown
from engines.strict_toml import ConfigError

_SCORE_DATATYPES = ("FP32", "FP16", "FP64")


def check(manifest: Manifest, folder: Path, signature: Signature) -> None:
    """Nothing to do for other models. Reads the tables, which serving then finds read. Raises ConfigError."""
    section = manifest.recommender
    if section is None:
        return
    path = folder / FILE_NAME
    inputs = {spec.name: spec for spec in signature.inputs}
    outputs = {spec.name: spec for spec in signature.outputs}
    user = _named(path, "recommender.user", section.user, inputs)
    item = _named(path, "recommender.item", section.item, inputs)
    score = _named(path, "recommender.score", section.score, outputs)
    datatype = "FP32" if section.retrieval else "INT64"
    if len(user.shape) != 2 or user.datatype != datatype or not isinstance(user.shape[1], int):
        problem = f"'{user.name}' is {user.datatype} {shown(user)}"
        raise ConfigError(path, "recommender.user", problem, f"must be {datatype} [rows, a fixed number]")
    if item.datatype != "INT64" or item.shape[1:] != (1,):
        problem = f"'{item.name}' is {item.datatype} {shown(item)}"
        raise ConfigError(path, "recommender.item", problem, "must be INT64 [rows, 1]")
    if score.datatype not in _SCORE_DATATYPES or score.shape[1:] not in ((1,), ()):
        problem = f"'{score.name}' is {score.datatype} {shown(score)}"
        raise ConfigError(path, "recommender.score", problem, "must be FP32 [rows, 1]")
    if not signature.batchable:
        raise ConfigError(
            path, "recommender", "the network takes no batches", "its first axes must be open and the same"
        )
    _check_tables(path, section, folder)


def _check_tables(path: Path, section: Recommender, folder: Path) -> None:
    try:
        served.load(folder, section.items, section.interactions)
    except DatasetError as error:
        raise ConfigError(path, "recommender", str(error)) from error


def _named(path: Path, field: str, name: str, tensors: dict[str, TensorSpec]) -> TensorSpec:
    if name not in tensors:
        raise ConfigError(path, field, f"is '{name}'", f"but the model has {', '.join(tensors) or 'none'}")
    return tensors[name]
