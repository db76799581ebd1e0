"""The model `times`: version k answers y = k * x, so that an answer says by itself which version made it."""

import shutil
from pathlib import Path

import numpy as np

from engines.zoo.graph import Graph

MANIFEST = 'service = "vision"\ntasks = ["tensor"]\n[instances]\ncount = 1\n[batching]\nmax_rows = 8\n'


def network(factor: float) -> bytes:
    """An ONNX file of y = factor * x on FP32 [batch, 4]."""
    graph = Graph("times")
    graph.node("Mul", ["x", graph.constant("factor", np.array(factor, np.float32))], "y")
    return graph.to_bytes({"x": ["batch", 4]}, {"y": ["batch", 4]})


def add_version(models: Path, version: int, content: bytes | None = None, name: str = "times") -> None:
    """Put a version into the repository in one step, as tools should; `content`: another file than y = version * x."""
    folder = models / name
    folder.mkdir(exist_ok=True)
    if not (folder / "model.toml").exists():
        (folder / "model.toml").write_text(f'name = "{name}"\n{MANIFEST}')
    making = folder / f".{version}"
    making.mkdir()
    (making / "model.onnx").write_bytes(network(version) if content is None else content)
    making.rename(folder / str(version))


def remove_version(models: Path, version: int, name: str = "times") -> None:
    """Take a version out of the repository in one step."""
    going = models / name / f".{version}"
    (models / name / str(version)).rename(going)
    shutil.rmtree(going)
