"""A storm of short deadlines and cancellations: it harms no other call, and nothing hangs or leaks."""

import asyncio
import random
import time
from collections import Counter

import grpc
import numpy as np

from headrace.inference import open_inference_pb2 as oip
from headrace.inference import open_inference_pb2_grpc as oip_grpc
from headrace.vision.v1 import vision_pb2, vision_pb2_grpc
from tests.mesh import RunningMesh

CALLS = 60  # of each of 48 callers
PATIENT = 10.0  # seconds


def infer(rows: int) -> oip.ModelInferRequest:
    request = oip.ModelInferRequest(model_name="double")
    request.inputs.add(name="x", datatype="FP32", shape=[rows, 16])
    request.raw_input_contents.append(np.ones((rows, 16), np.float32).tobytes())
    return request


async def test_a_storm_passes_and_harms_no_other_call(mesh: RunningMesh, crops: list[bytes]) -> None:
    patient: Counter[str] = Counter()
    overruns: list[float] = []

    async def caller(channel: grpc.aio.Channel, dice: random.Random) -> None:
        tensors = oip_grpc.GRPCInferenceServiceStub(channel)
        pictures = vision_pb2_grpc.VisionServiceStub(channel)
        for _ in range(CALLS):
            timeout = dice.choice([0.005, 0.02, 0.1, PATIENT])
            begun = time.monotonic()
            if dice.random() < 0.8:
                call = tensors.ModelInfer(infer(dice.choice([1, 1, 3, 20])), timeout=timeout)
            else:
                images = [vision_pb2.Image(content=dice.choice(crops))]
                call = pictures.Classify(vision_pb2.ClassifyRequest(images=images), timeout=timeout)
            cancelled = dice.random() < 0.2
            if cancelled:
                asyncio.get_running_loop().call_later(0.02 * dice.random(), call.cancel)
            ended = "OK"
            try:
                await call
            except asyncio.CancelledError:
                ended = "CANCELLED"
            except grpc.aio.AioRpcError as error:
                ended = f"{error.code().name}: {error.details()}"
            if timeout == PATIENT and not cancelled:
                patient[ended] += 1
            overruns.append(time.monotonic() - begun - timeout)

    async with grpc.aio.insecure_channel(mesh.gateway) as channel:
        await asyncio.gather(*(caller(channel, random.Random(seed)) for seed in range(48)))
        assert set(patient) == {"OK"}, patient
        assert max(overruns) < 5
        answer = await oip_grpc.GRPCInferenceServiceStub(channel).ModelInfer(infer(1), timeout=10)
    assert answer.raw_output_contents[0] == np.full(16, 2, np.float32).tobytes()
