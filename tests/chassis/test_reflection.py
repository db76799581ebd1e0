import asyncio
import shutil

import pytest
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha import reflection_pb2

from headrace.vision.v1 import vision_pb2
from services.chassis import health
from services.chassis.reflection import merged_pool

REQUEST, RESPONSE = reflection_pb2.ServerReflectionRequest, reflection_pb2.ServerReflectionResponse


async def ask(channel, version, **request):
    call = channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        request_serializer=REQUEST.SerializeToString,
        response_deserializer=RESPONSE.FromString,
    )()
    await call.write(REQUEST(**request))
    answer = await call.read()
    await call.done_writing()
    return answer


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_lists_what_is_served(serve, version):
    async with serve() as running:
        answer = await ask(running.channel(), version, list_services="")
        assert {service.name for service in answer.list_services_response.service} == {
            "inference.GRPCInferenceService",
            "grpc.health.v1.Health",
            "grpc.reflection.v1.ServerReflection",
            "grpc.reflection.v1alpha.ServerReflection",
        }


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
@pytest.mark.parametrize(
    "symbol",
    [
        "inference.GRPCInferenceService",
        "inference.GRPCInferenceService.ModelInfer",
        "inference.ModelInferRequest.inputs",
        "grpc.health.v1.HealthListResponse",
        "grpc.reflection.v1.ServerReflection",
        "google.rpc.ErrorInfo",
    ],
)
async def test_describes_symbols_of_every_pool(serve, version, symbol):
    async with serve() as running:
        answer = await ask(running.channel(), version, file_containing_symbol=symbol)
        pool = DescriptorPool()
        files = [
            descriptor_pb2.FileDescriptorProto.FromString(raw)
            for raw in answer.file_descriptor_response.file_descriptor_proto
        ]
        for file in reversed(files):
            pool.Add(file)
        assert any(symbol.startswith(file.package + ".") for file in files)


@pytest.mark.parametrize("symbol", ["no.Thing", "inference.GRPCInferenceService.Nothing", "nothing", ""])
async def test_unknown_symbols_are_not_found(serve, symbol):
    async with serve() as running:
        answer = await ask(running.channel(), "v1", file_containing_symbol=symbol)
        assert answer.error_response.error_code == 5


def test_files_of_different_pools_live_together():
    pool = merged_pool([health.SERVICE.file, vision_pb2.DESCRIPTOR])
    assert pool.FindServiceByName("grpc.health.v1.Health").methods_by_name["List"]
    assert pool.FindMessageTypeByName("headrace.vision.v1.ClassifyRequest")


@pytest.mark.skipif(shutil.which("grpcurl") is None, reason="grpcurl is not installed")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["list"], "inference.GRPCInferenceService"),
        (["list", "inference.GRPCInferenceService"], "inference.GRPCInferenceService.ModelReady"),
        (["describe", "inference.GRPCInferenceService.ModelReady"], "rpc ModelReady"),
        (["describe", "inference.ModelInferRequest"], "repeated bytes raw_input_contents"),
        (["grpc.health.v1.Health/List"], '"statuses"'),
        (["-d", '{"name": "double"}', "inference.GRPCInferenceService/ModelReady"], '"ready": true'),
    ],
)
async def test_grpcurl_understands(serve, arguments, words):
    async with serve() as running:
        flags = [arguments.pop(0), arguments.pop(0)] if arguments[0] == "-d" else []
        child = await asyncio.create_subprocess_exec(
            "grpcurl", "-plaintext", *flags, running.address, *arguments, stdout=-1, stderr=-1
        )
        out, errors = await asyncio.wait_for(child.communicate(), 20)
        assert child.returncode == 0, errors
        assert words in out.decode()
