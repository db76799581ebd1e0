"""Models small enough to be made in a test, as a repository holds them."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from engines.zoo import double

COLOURS = ("red", "green", "blue")


def write(
    folder: Path, manifest: str, network: bytes = b"", files: dict[str, str] | None = None, version: int = 1
) -> None:
    """Put one model version into a repository; `folder` is the model's own."""
    (folder / str(version)).mkdir(parents=True, exist_ok=True)
    if network:
        (folder / str(version) / "model.onnx").write_bytes(network)
    (folder / "model.toml").write_text(f'name = "{folder.name}"\nservice = "vision"\n{manifest}')
    for name, text in (files or {}).items():
        (folder / name).write_text(text)


def graph(nodes, inputs, outputs, constants=()) -> bytes:
    """An ONNX file; inputs and outputs are (name, type, shape)."""
    made = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(*value) for value in inputs],
        [helper.make_tensor_value_info(*value) for value in outputs],
        list(constants),
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    onnx.checker.check_model(model)
    return model.SerializeToString()


def add_double(models: Path, versions: tuple[int, ...] = (1,)) -> None:
    """y = 2x on FP32 [batch, 16]."""
    for version in versions:
        manifest = 'tasks = ["tensor"]\n[instances]\ncount = 1\n[batching]\nmax_rows = 8\nmax_queue_rows = 64\n'
        write(models / "double", manifest, double.build({}, lambda *_: None)["1/model.onnx"], version=version)


def add_colours(models: Path, name: str = "colours", size: int = 8, threads: int = 1) -> None:
    """Scores red, green and blue by the mean of each channel, times 20; the means are its features.

    An engine of more than one `threads` leaves decoding to others.
    """
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["features"]),
        helper.make_node("Mul", ["features", "twenty"], ["logits"]),
    ]
    twenty = helper.make_tensor("twenty", TensorProto.FLOAT, [], [20.0])
    network = graph(
        nodes,
        [("x", TensorProto.FLOAT, ["batch", 3, size, size])],
        [("logits", TensorProto.FLOAT, ["batch", 3]), ("features", TensorProto.FLOAT, ["batch", 3])],
        [twenty],
    )
    manifest = f"""tasks = ["classify", "embed"]
[image]
input = "x"
width = {size}
height = {size}
scale = [255, 255, 255]
[classify]
output = "logits"
[embed]
output = "features"
[batching]
max_rows = 8
max_queue_rows = 64
[instances]
count = 1
threads = {threads}
"""
    write(models / name, manifest, network, {"labels.txt": "\n".join(COLOURS)})


def add_texts(models: Path) -> None:
    """BYTES in, the same BYTES out."""
    network = graph(
        [helper.make_node("Identity", ["text"], ["same"])],
        [("text", TensorProto.STRING, ["batch", 1])],
        [("same", TensorProto.STRING, ["batch", 1])],
    )
    write(models / "texts", 'tasks = ["tensor"]\n', network)


def add_whole(models: Path) -> None:
    """FP16, two inputs, without a batch dimension: c = a + b."""
    network = graph(
        [helper.make_node("Add", ["a", "b"], ["c"])],
        [("a", TensorProto.FLOAT16, [2, 3]), ("b", TensorProto.FLOAT16, [2, 3])],
        [("c", TensorProto.FLOAT16, [2, 3])],
    )
    write(models / "whole", 'tasks = ["tensor"]\n', network)


def add_slow(models: Path, seconds: float, fail_on: float | None = None, queue: int = 64) -> None:
    """The fake engine: y = 2x on FP32 [rows, 4], `seconds` a batch, failing on rows that hold `fail_on`."""
    failing = f"fail_on = {fail_on}\n" if fail_on is not None else ""
    manifest = (
        'tasks = ["tensor"]\nbackend = "fake"\n'
        f"[fake]\nseconds_per_batch = {seconds}\n{failing}"
        f"[instances]\ncount = 1\n[batching]\nmax_rows = 4\nmax_queue_rows = {queue}\n"
    )
    write(models / "slow", manifest)


def picture_colour(pixels: np.ndarray) -> str:
    """What `colours` answers for a picture."""
    return COLOURS[int(pixels.reshape(-1, 3).mean(axis=0).argmax())]


def add_pooled(models: Path, datatype: str) -> None:
    """Embeds one picture at a time (its batch is fixed) by the mean of each channel; FP16 or UINT8 pixels in."""
    kind = {"FP16": TensorProto.FLOAT16, "UINT8": TensorProto.UINT8}[datatype]
    nodes = [
        helper.make_node("Cast", ["x"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("GlobalAveragePool", ["wide"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["mean"]),
    ]
    network = graph(nodes, [("x", kind, [1, 3, 8, 8])], [("mean", TensorProto.FLOAT, [1, 3])])
    manifest = 'tasks = ["embed"]\n[image]\ninput = "x"\nwidth = 8\nheight = 8\n[embed]\noutput = "mean"\n'
    write(models / "pooled", manifest, network)
