import asyncio
import time

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from headrace.inference import open_inference_pb2 as pb
from services.chassis import open_inference_stream
from tests.serving import serving
from tests.vision import tiny_models

SERVICE = "/inference.GRPCInferenceService/"


def request(model="double", columns=16, **fields):
    made = pb.ModelInferRequest(model_name=model, **fields)
    made.inputs.add(name="x", datatype="FP32", shape=[1, columns])
    made.raw_input_contents.append(np.ones(columns, np.float32).tobytes())
    return made


def unary(channel, method="ModelInfer", response=pb.ModelInferResponse):
    return channel.unary_unary(
        SERVICE + method, request_serializer=lambda m: m.SerializeToString(), response_deserializer=response.FromString
    )


def stream(channel, metadata=()):
    return channel.stream_stream(
        SERVICE + "ModelStreamInfer",
        request_serializer=pb.ModelInferRequest.SerializeToString,
        response_deserializer=pb.ModelStreamInferResponse.FromString,
    )(metadata=metadata)


def reason_of(error):
    status = rpc_status.from_call(error)
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    return info.reason


async def refused(awaitable, code):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await awaitable
    assert caught.value.code() is code
    return caught.value


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():  # What is waited for has no event of its own.
            await asyncio.sleep(0.005)


@pytest.fixture
def models(tmp_path):
    tiny_models.add_double(tmp_path)
    return tmp_path


async def test_errors_carry_details(models):
    async with serving("vision", models) as served, grpc.aio.insecure_channel(served.address) as channel:
        infer = unary(channel)
        error = await refused(infer(request("nothing")), grpc.StatusCode.NOT_FOUND)
        assert reason_of(error) == "MODEL_NOT_FOUND"
        wrong = request()
        wrong.inputs[0].shape[1] = 10**18
        error = await refused(infer(wrong), grpc.StatusCode.INVALID_ARGUMENT)
        bad = error_details_pb2.BadRequest()
        assert any(detail.Unpack(bad) for detail in rpc_status.from_call(error).details)
        assert bad.field_violations[0].field == "inputs[0].shape"
        nonsense = channel.unary_unary(SERVICE + "ModelInfer")
        error = await refused(nonsense(b"\xff\xff\xff"), grpc.StatusCode.INVALID_ARGUMENT)
        assert reason_of(error) == "MALFORMED_MESSAGE"
        await refused(unary(channel, "SystemSharedMemoryStatus")(pb.ServerLiveRequest()), grpc.StatusCode.UNIMPLEMENTED)


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("timeout", {"int64_param": 10_000_000}, True),
        ("timeout", {"int64_param": -1}, False),
        ("timeout", {"bool_param": True}, False),
        ("priority", {"uint64_param": 1}, True),
        ("priority", {"string_param": "high"}, False),
        ("sequence_id", {"int64_param": 0}, True),
        ("sequence_id", {"string_param": "a"}, False),
        ("sequence_start", {"bool_param": True}, False),
        ("triton_enable_empty_final_response", {"bool_param": True}, True),
        ("triton_anything", {"bool_param": True}, False),
        ("mine", {"double_param": 0.5}, True),
    ],
)
async def test_reserved_parameters(models, name, value, allowed):
    asked = request(parameters={name: pb.InferParameter(**value)})
    async with serving("vision", models) as served, grpc.aio.insecure_channel(served.address) as channel:
        if allowed:
            assert (await unary(channel)(asked)).model_name == "double"
        else:
            error = await refused(unary(channel)(asked), grpc.StatusCode.INVALID_ARGUMENT)
            assert name in error.details()


async def test_an_empty_model_name_is_the_only_model(models):
    async with serving("vision", models) as served, grpc.aio.insecure_channel(served.address) as channel:
        assert (await unary(channel)(request(""))).model_name == "double"
    tiny_models.add_colours(models)
    async with serving("vision", models) as served, grpc.aio.insecure_channel(served.address) as channel:
        error = await refused(unary(channel)(request("")), grpc.StatusCode.INVALID_ARGUMENT)
        assert error.details() == "model_name: is empty and there is no default; choose one of: colours, double"


async def test_a_failed_item_has_its_id_and_the_stream_goes_on(models):
    async with serving("vision", models) as served, grpc.aio.insecure_channel(served.address) as channel:
        call = stream(channel)
        await call.write(request(id="a", parameters={"sequence_id": pb.InferParameter(int64_param=4)}))
        bad = await call.read()
        assert bad.infer_response.id == "a"
        assert bad.infer_response.parameters["headrace_error_code"].string_param == "INVALID_ARGUMENT"
        assert "sequence" in bad.error_message
        await call.write(request(id="b"))
        good = await call.read()
        assert (good.error_message, good.infer_response.id) == ("", "b")
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF
        assert await call.code() is grpc.StatusCode.OK
        assert dict(await call.trailing_metadata())["headrace-model"] == "double@1"


async def test_a_strict_stream_ends_with_the_status(models):
    async with serving("vision", models) as served, grpc.aio.insecure_channel(served.address) as channel:
        call = stream(channel, (("triton_grpc_error", "true"),))
        await call.write(request("nothing"))
        with pytest.raises(grpc.aio.AioRpcError, match="no model"):
            await call.read()
        assert await call.code() is grpc.StatusCode.NOT_FOUND


async def test_slow_items_do_not_hold_up_fast_ones(models):
    tiny_models.add_slow(models, 0.5)
    async with serving("vision", models) as served, grpc.aio.insecure_channel(served.address) as channel:
        call = stream(channel)
        await call.write(request("slow", 4, id="slow"))
        await call.write(request(id="fast"))
        await call.done_writing()
        assert [answer.infer_response.id async for answer in call] == ["fast", "slow"]


async def test_items_in_flight_are_bounded(models, monkeypatch):
    monkeypatch.setattr(open_inference_stream, "MAX_IN_FLIGHT", 3)
    tiny_models.add_slow(models, 0.05)
    most = 0
    async with serving("vision", models) as served, grpc.aio.insecure_channel(served.address) as channel:
        call, batcher = stream(channel), served.host.resolve("slow", "tensor").batcher
        for number in range(12):
            await call.write(request("slow", 4, id=str(number)))
        await call.done_writing()
        ids = set()
        async for answer in call:
            most = max(most, batcher.queued_rows + batcher.running_rows)
            ids.add(answer.infer_response.id)
    assert ids == {str(number) for number in range(12)}
    assert most <= 3


async def test_a_cancelled_stream_drops_its_work(models):
    tiny_models.add_slow(models, 0.3)
    async with serving("vision", models) as served, grpc.aio.insecure_channel(served.address) as channel:
        call, batcher = stream(channel), served.host.resolve("slow", "tensor").batcher
        for _ in range(20):
            await call.write(request("slow", 4))
        await until(lambda: batcher.queued_rows > 8)
        call.cancel()
        await until(lambda: batcher.queued_rows == 0)


async def test_a_model_of_another_service_is_answered_by_forwarding(models, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    tiny_models.add_texts(other)
    text = pb.ModelInferRequest(model_name="texts", id="t")
    text.inputs.add(name="text", datatype="BYTES", shape=[1, 1]).contents.bytes_contents.append(b"hello")
    missing = pb.ModelInferRequest(model_name="nowhere", id="n")
    async with (
        serving("vision", other) as elsewhere,
        grpc.aio.insecure_channel(elsewhere.address) as mesh,
        serving("vision", models, mesh=mesh) as served,
        grpc.aio.insecure_channel(served.address) as channel,
    ):
        call = stream(channel)
        for item in (text, missing, request(id="d")):
            await call.write(item)
        await call.done_writing()
        answers = {answer.infer_response.id: answer async for answer in call}
        await refused(unary(channel)(text), grpc.StatusCode.NOT_FOUND)
    assert answers["t"].infer_response.raw_output_contents == [b"\x05\0\0\0hello"]
    assert "no model 'nowhere'" in answers["n"].error_message
    assert answers["d"].error_message == ""


async def test_a_full_queue_and_a_failing_item(tmp_path):
    tiny_models.add_slow(tmp_path, 0.2, fail_on=13.0, queue=4)
    async with serving("vision", tmp_path) as served, grpc.aio.insecure_channel(served.address) as channel:
        infer = unary(channel)
        bad = request("slow", 4)
        bad.raw_input_contents[0] = np.full(4, 13, np.float32).tobytes()
        error = await refused(infer(bad), grpc.StatusCode.INTERNAL)
        assert reason_of(error) == "ENGINE_FAILED"
        results = await asyncio.gather(*(infer(request("slow", 4)) for _ in range(20)), return_exceptions=True)
        failures = [result for result in results if isinstance(result, grpc.aio.AioRpcError)]
        assert 0 < len(failures) < 20
        assert {failure.code() for failure in failures} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
        assert {reason_of(failure) for failure in failures} == {"QUEUE_FULL"}
        answer = await unary(channel, "ModelStatistics", pb.ModelStatisticsResponse)(
            pb.ModelStatisticsRequest(name="slow")
        )
        costs = answer.model_stats[0].inference_stats
        assert costs.success.count == 20 - len(failures)
        assert costs.fail.count == 1 + len(failures)


async def test_a_loading_and_a_broken_model_say_so(models):
    tiny_models.write(models / "broken", 'tasks = ["tensor"]\n', b"not a network")
    tiny_models.write(models / "typo", 'taskz = ["tensor"]\n', b"x")
    index = pb.RepositoryIndexRequest()
    async with serving("vision", models, wait=False) as served, grpc.aio.insecure_channel(served.address) as channel:
        listed = await unary(channel, "RepositoryIndex", pb.RepositoryIndexResponse)(index)
        assert {model.name for model in listed.models} == {"broken", "double", "typo"}
        assert (await unary(channel, "ServerLive", pb.ServerLiveResponse)(pb.ServerLiveRequest())).live
        await served.host.loaded()
        listed = await unary(channel, "RepositoryIndex", pb.RepositoryIndexResponse)(index)
        states = {model.name: (model.state, model.reason) for model in listed.models}
        assert states["double"] == ("READY", "")
        assert states["broken"][0] == states["typo"][0] == "UNAVAILABLE"
        assert "model.onnx" in states["broken"][1]
        assert "taskz" in states["typo"][1]
        error = await refused(unary(channel)(request("typo")), grpc.StatusCode.UNAVAILABLE)
        assert "taskz" in error.details()
        ready = unary(channel, "ModelReady", pb.ModelReadyResponse)
        assert not (await ready(pb.ModelReadyRequest(name="broken"))).ready
        assert (await ready(pb.ModelReadyRequest(name="double"))).ready
        # The process takes calls, and a broken model speaks for itself.
        assert (await unary(channel, "ServerReady", pb.ServerReadyResponse)(pb.ServerReadyRequest())).ready
        only = await unary(channel, "RepositoryIndex", pb.RepositoryIndexResponse)(
            pb.RepositoryIndexRequest(ready=True)
        )
        assert [model.name for model in only.models] == ["double"]
        assert (await unary(channel)(request())).model_name == "double"


async def test_a_callers_deadline_is_kept(models):
    tiny_models.add_slow(models, 0.5)
    async with serving("vision", models) as served, grpc.aio.insecure_channel(served.address) as channel:
        started = time.monotonic()
        await refused(unary(channel)(request("slow", 4), timeout=0.1), grpc.StatusCode.DEADLINE_EXCEEDED)
        assert time.monotonic() - started < 0.4
