"""Which of gRPC core's pollers a process uses. Imports nothing of grpc, which reads the choice when it is imported."""

import os
from collections.abc import MutableMapping
from typing import Final

_VARIABLE: Final = "GRPC_EXPERIMENTS"
#: grpcio 1.81 polls Python's completion queues through its EventEngine, whose threads hand every event on to another.
#: The poller of the releases before spends a fifth less CPU on a small call (DECISIONS.md).
_CHOICE: Final = "-event_engine_poller_for_python"


def choose(environ: MutableMapping[str, str] = os.environ) -> None:
    """Choose the cheaper poller, unless the operator has chosen. Call before anything imports grpc."""
    environ.setdefault(_VARIABLE, _CHOICE)
