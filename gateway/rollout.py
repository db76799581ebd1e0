"""Loading and unloading on every replica that may hold the model, and what the mesh then knows of it."""

import asyncio
from typing import Any, Literal

import grpc

from gateway.state import MeshState
from gateway.watch import Channels, inference_stub, read_models
from services.chassis.call import Call
from services.chassis.errors import ServiceError, model_unavailable, not_found, relayed
from services.chassis.telemetry import outgoing

Change = Literal["RepositoryModelLoad", "RepositoryModelUnload"]


class Rollout:
    """Changes what the replicas serve; one that is away is passed over, and loads what it finds when it is back."""

    def __init__(self, state: MeshState, channels: Channels) -> None:
        self._state = state
        self._channels = channels

    async def change(self, change: Change, request: Any, call: Call) -> None:
        """Have every replica do what the Open Inference `request` asks; return when all have.

        Raises ServiceError: NOT_FOUND when no service has the model, else the first that a replica refused with.
        """
        endpoints = self._concerned(request.model_name)
        refusals = await asyncio.gather(*(self._ask(change, endpoint, request, call) for endpoint in endpoints))
        await asyncio.gather(*(read_models(self._state, each, self._channels.get(each)) for each in endpoints))
        failed = [error for error in refusals if error is not None and error.reason != "MODEL_NOT_FOUND"]
        if failed:
            raise failed[0]
        if None not in refusals:
            raise not_found("model", request.model_name, self._state.models())

    def _concerned(self, name: str) -> list[str]:
        """The reachable replicas of the service that holds the model; of every service when none is known to."""
        holder = self._state.models().get(name)
        nodes = [node for node in self._state.nodes if holder in (None, node.name)]
        found = [each for node in nodes for each in node.endpoints if self._state.reached(each)]
        if not found:
            raise model_unavailable(name, "no process of its service is reachable; try again")
        return found

    async def _ask(self, change: Change, endpoint: str, request: Any, call: Call) -> ServiceError | None:
        method = getattr(inference_stub(self._channels.get(endpoint)), change)
        try:
            await method(request, timeout=max(0.0, call.time_remaining()), metadata=outgoing(call))
        except grpc.aio.AioRpcError as error:
            return relayed(error, request.model_name)
        return None
