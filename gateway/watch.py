"""Following the services: each replica's health stream and repository index, across its restarts."""

import asyncio
import logging
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from gateway.state import MeshState, ModelEntry
from headrace.inference import open_inference_pb2 as inference
from headrace.inference import open_inference_pb2_grpc as inference_grpc

_CHANNEL_OPTIONS = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
    # What passes here has passed the gateway's limit.
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # A peer that vanished without a word (another machine) is noticed within half a minute.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
)
_INDEX_SECONDS = 1.0
_STARTING_SECONDS = 0.1
CALL_SECONDS = 2.0
"""Longest wait for a service's answer to a question of the control process."""

_log = logging.getLogger(__name__)


class Channels:
    """One channel a replica, opened when first asked for."""

    def __init__(self) -> None:
        self._open: dict[str, grpc.aio.Channel] = {}

    def get(self, endpoint: str) -> grpc.aio.Channel:
        """Return the channel to a replica."""
        if endpoint not in self._open:
            self._open[endpoint] = grpc.aio.insecure_channel(endpoint, options=_CHANNEL_OPTIONS)
        return self._open[endpoint]

    async def close(self) -> None:
        """Close every channel, ending the calls on it."""
        for channel in self._open.values():
            await channel.close()


def inference_stub(channel: grpc.aio.Channel) -> Any:
    """Return the Open Inference stub of a replica."""
    return inference_grpc.GRPCInferenceServiceStub(channel)


async def watch_all(state: MeshState, channels: Channels) -> None:
    """Follow every replica until cancelled."""
    async with asyncio.TaskGroup() as group:
        for node in state.nodes:
            for endpoint in node.endpoints:
                group.create_task(_follow_health(state, endpoint, channels.get(endpoint)))
                group.create_task(_follow_models(state, endpoint, channels.get(endpoint)))


async def _follow_health(state: MeshState, endpoint: str, channel: grpc.aio.Channel) -> None:
    """A replica serves while its health stream says so; a broken stream says that it does not."""
    stub = health_pb2_grpc.HealthStub(channel)
    while True:
        try:
            async for response in stub.Watch(health_pb2.HealthCheckRequest(), wait_for_ready=True):
                serving = response.status == health_pb2.HealthCheckResponse.SERVING
                if serving:
                    await read_models(state, endpoint, channel)
                    await _read_extensions(state, endpoint, channel)
                problem = "" if serving else "it is not ready"
                await state.update(endpoint, serving=serving, problem=problem)
            problem = "it ended its health stream"
        except grpc.aio.AioRpcError as error:
            problem = error.details() or error.code().name
        await state.update(endpoint, serving=False, settled=False, problem=problem)
        await asyncio.sleep(_STARTING_SECONDS)


async def _follow_models(state: MeshState, endpoint: str, channel: grpc.aio.Channel) -> None:
    """Models come and go, so the index is read anew; the last known one stays while the replica is away."""
    while True:
        settled = await read_models(state, endpoint, channel)
        await asyncio.sleep(_INDEX_SECONDS if settled else _STARTING_SECONDS)


async def read_models(state: MeshState, endpoint: str, channel: grpc.aio.Channel) -> bool:
    """Ask a replica for its models; return whether it has loaded those that it found when it started."""
    stub = inference_stub(channel)
    try:
        # In this order: when it says that they are loaded, the index says so too.
        settled = (await stub.ServerReady(inference.ServerReadyRequest(), timeout=CALL_SECONDS)).ready
        index = await stub.RepositoryIndex(inference.RepositoryIndexRequest(), timeout=CALL_SECONDS)
    except grpc.aio.AioRpcError as error:
        _log.debug("%s: no index: %s", endpoint, error.details())
        return False
    entries = [ModelEntry(model.name, model.version, model.state, model.reason) for model in index.models]
    await state.update(endpoint, models=tuple(entries), settled=bool(settled))
    return bool(settled)


async def _read_extensions(state: MeshState, endpoint: str, channel: grpc.aio.Channel) -> None:
    about = await inference_stub(channel).ServerMetadata(inference.ServerMetadataRequest(), timeout=CALL_SECONDS)
    await state.update(endpoint, extensions=tuple(about.extensions))
