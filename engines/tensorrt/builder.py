"""Builds a plan ahead of time: ONNX -> strongly typed network -> serialized engine with a profile per batch bucket.

Together the profiles cover every batch without padding, each tuned for its greatest one. tensorrt-rtx builds without a
GPU; what it makes is compiled to the end on the GPU that runs it.
"""

import hashlib
import logging
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from engines.tensorrt import plans, profiles
from engines.tensorrt.libraries import Library, TensorRTError, load, require_build
from engines.tensorrt.onnx_inputs import read_inputs
from engines.tensorrt.plans import Key, Sidecar
from engines.tensorrt.profiles import Stretch
from engines.tensorrt.session import BuildSession

_log = logging.getLogger(__name__)
_DEFAULT_BUCKETS: Final = (1, 4, 16)


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """`buckets`: greatest row counts of the profiles, rising. `dimensions`: the stretches of each other open dimension,
    by its name in the ONNX file. `targets`: compute capabilities such as "sm89"; none = the library's default.
    """

    library: Library
    buckets: tuple[int, ...] = _DEFAULT_BUCKETS
    targets: tuple[str, ...] = ()
    dimensions: Mapping[str, Sequence[Stretch]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Built:
    """A plan on disk; `reused` when the cache had it already."""

    plan: Path
    sidecar: Sidecar
    reused: bool


def build(model_file: Path, options: BuildOptions) -> Built:
    """Build, or find, the plan of `model_file` (`models/<name>/<version>/model.onnx`). Raises TensorRTError."""
    require_build(options.library, options.targets)
    started = time.perf_counter()
    shapes = profiles.make(read_inputs(model_file), options.buckets, options.dimensions)
    session = BuildSession(load(options.library), options.library, model_file)
    session.parse()
    key = Key(
        model_sha256=plans.model_digest(model_file),
        library=options.library.name,
        library_version=session.version,
        targets=tuple(sorted(options.targets)),
        precision=session.precision(),
        profiles=shapes,
    )
    path = plans.plan_path(model_file, key)
    known = _known(path)
    if known is not None:
        return Built(path, known, reused=True)
    data = session.serialize(key.targets, shapes)
    sidecar = Sidecar(
        model=model_file.parent.parent.name,
        version=model_file.parent.name,
        key=key,
        inputs=session.inputs(),
        outputs=session.outputs(),
        plan_sha256=hashlib.sha256(data).hexdigest(),
        plan_bytes=len(data),
        build_seconds=round(time.perf_counter() - started, 3),
        built=datetime.now(UTC).isoformat(timespec="milliseconds"),
    )
    _write(path, data, sidecar)
    return Built(path, sidecar, reused=False)


def _known(path: Path) -> Sidecar | None:
    if not path.is_file():
        return None
    try:
        sidecar = plans.read(path)
    except TensorRTError:
        _log.info("%s has no readable sidecar, it is built again", path)
        return None
    return sidecar if path.stat().st_size == sidecar.plan_bytes else None


def _write(path: Path, data: bytes, sidecar: Sidecar) -> None:
    """The sidecar first, then the plan, each by a rename: a plan that is seen is whole and described."""
    try:
        path.parent.mkdir(exist_ok=True)
        _replace(path.with_suffix(".json"), (sidecar.model_dump_json(indent=2) + "\n").encode())
        _replace(path, data)
    except OSError as error:
        raise TensorRTError(
            f"cannot write {path}: {error.strerror}; free disk space or make the folder writable, then build again"
        ) from error


def _replace(path: Path, data: bytes) -> None:
    descriptor, temporary = tempfile.mkstemp(prefix=".build-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
