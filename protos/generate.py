"""Write the Python stubs of every proto in this folder, or check that the committed ones are current.

    python protos/generate.py            write clients/python/headrace/**/*_pb2*.py and .pyi
    python protos/generate.py --check    exit 1, naming the files, when they differ from what would be written

google/api and google/rpc come from the installed googleapis-common-protos and are never copied into the project.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from google.api import annotations_pb2

PROTOS = Path(__file__).resolve().parent
GOOGLEAPIS = Path(annotations_pb2.__file__).parents[2]
CLIENT = PROTOS.parent / "clients" / "python"
OPEN_INFERENCE = "inference"
"""Folder of the one proto whose Python home (headrace.inference) is not its proto package."""

PRIVATE_POOL = '''
# Triton's client registers the same names in the default pool, so these messages live in a pool of their own.
POOL = _descriptor_pool.DescriptorPool()
"""Where reflection finds these descriptors."""
'''


class GenerationError(Exception):
    """The compiler refused a proto, or its output is not what the post-processing expects."""


def proto_files() -> list[str]:
    """Every proto of the project, as paths relative to `protos/`."""
    return sorted(path.relative_to(PROTOS).as_posix() for path in PROTOS.rglob("*.proto"))


def compile_protos(out: Path) -> None:
    """Run protoc with the Python, gRPC and type-stub plugins into the folder `out`."""
    arguments = [
        *(sys.executable, "-m", "grpc_tools.protoc"),
        f"-I{PROTOS}",
        f"-I{GOOGLEAPIS}",
        f"--plugin=protoc-gen-mypy={_plugin('protoc-gen-mypy')}",
        f"--plugin=protoc-gen-mypy_grpc={_plugin('protoc-gen-mypy_grpc')}",
        *(f"--{kind}_out={out}" for kind in ("python", "grpc_python")),
        *(f"--{kind}_out=quiet:{out}" for kind in ("mypy", "mypy_grpc")),
        *proto_files(),
    ]
    if subprocess.run(arguments, check=False).returncode != 0:
        raise GenerationError("protoc failed, see its messages above")


def _plugin(name: str) -> Path:
    path = Path(sys.executable).parent / name
    if not path.exists():
        raise GenerationError(f"{name} is not installed beside {sys.executable} (package mypy-protobuf)")
    return path


def _is_empty_service_stub(path: Path) -> bool:
    """Whether the gRPC plugins wrote a file for a proto that has no service."""
    return "_pb2_grpc." in path.name and not re.search(r"^class \w+Servicer\b", path.read_text(), re.MULTILINE)


def place(name: str, text: str) -> tuple[str, str]:
    """Where a compiled file belongs under the client's root, and its text there.

    The Open Inference stubs move below `headrace` and into a descriptor pool of their own.
    """
    if not name.startswith(OPEN_INFERENCE + "/"):
        return name, text
    text = text.replace("from inference import open_inference_pb2", "from headrace.inference import open_inference_pb2")
    text = text.replace("import inference.open_inference_pb2", "import headrace.inference.open_inference_pb2")
    text = text.replace("inference.open_inference_pb2.", "headrace.inference.open_inference_pb2.").replace(
        "headrace.headrace.", "headrace."
    )
    if name.endswith("_pb2.py"):
        text = _swap(text, "DESCRIPTOR = _descriptor_pool.Default().", f"{PRIVATE_POOL.lstrip()}\nDESCRIPTOR = POOL.")
        text = text.replace("'inference.open_inference_pb2'", "'headrace.inference.open_inference_pb2'")
    elif name.endswith("_pb2.pyi"):
        line = "DESCRIPTOR: google.protobuf.descriptor.FileDescriptor\n"
        text = _swap(text, line, line + "POOL: google.protobuf.descriptor_pool.DescriptorPool\n")
        text = _swap(
            text,
            "import google.protobuf.descriptor\n",
            "import google.protobuf.descriptor\nimport google.protobuf.descriptor_pool\n",
        )
    return f"headrace/{name}", text


def _swap(text: str, old: str, new: str) -> str:
    if text.count(old) != 1:
        raise GenerationError(f"the compiler's output changed: expected once in a stub: {old!r}")
    return text.replace(old, new)


def generated() -> dict[str, str]:
    """The text of every stub, keyed by its path below the client's root."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        compile_protos(out)
        compiled = (path for path in out.rglob("*") if path.is_file() and not _is_empty_service_stub(path))
        stubs = dict(place(path.relative_to(out).as_posix(), path.read_text()) for path in compiled)
    packages = {Path(name).parent for name in stubs}
    packages |= {package.parent for package in packages if package.parent != Path("headrace")}
    return stubs | {f"{package.as_posix()}/__init__.py": "" for package in packages - {Path()}}


def committed() -> dict[str, str]:
    """The text of every stub now in the client, keyed like `generated`, with the folders' empty `__init__.py`."""
    root = CLIENT / "headrace"
    stubs = [path for pattern in ("*_pb2*.py", "*_pb2*.pyi") for path in root.rglob(pattern)]
    markers = [path for path in root.glob("*/**/__init__.py") if path.stat().st_size == 0]
    return {path.relative_to(CLIENT).as_posix(): path.read_text() for path in stubs + markers}


def differences(wanted: dict[str, str], found: dict[str, str]) -> list[str]:
    """One line for each file that is missing, changed or left over."""
    lines = [f"missing: {name}" for name in wanted.keys() - found.keys()]
    lines += [f"left over: {name}" for name in found.keys() - wanted.keys()]
    lines += [f"differs: {name}" for name in wanted.keys() & found.keys() if wanted[name] != found[name]]
    return sorted(lines)


def write(wanted: dict[str, str], found: dict[str, str]) -> None:
    """Make the client's stubs equal to `wanted`, touching only files that differ."""
    for name in found.keys() - wanted.keys():
        (CLIENT / name).unlink()
    for name, text in wanted.items():
        if found.get(name) != text:
            path = CLIENT / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)


def main(argv: list[str] | None = None) -> int:
    """Run the command; the exit status is 0 when the stubs are current afterwards."""
    parser = argparse.ArgumentParser(description="Write the Python stubs of every proto, or check the committed ones.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when the committed stubs differ")
    check = parser.parse_args(argv).check
    try:
        wanted = generated()
    except GenerationError as error:
        sys.stderr.write(f"generate: {error}\n")
        return 1
    found = committed()
    changed = differences(wanted, found)
    if not check:
        write(wanted, found)
        sys.stdout.write(f"{len(wanted)} stubs, {len(changed)} changed\n")
        return 0
    if changed:
        listing = "\n  ".join(changed)
        sys.stderr.write(
            f"generate: committed stubs are not current:\n  {listing}\nrun: make gen, and commit the result\n"
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
