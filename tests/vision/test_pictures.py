import asyncio
import math
import time

import grpc
import numpy as np
import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from engines.repository import Repository
from services.chassis.call import Call
from services.chassis.errors import ServiceError
from services.chassis.metrics import Metrics
from services.chassis.models import HostOptions, ModelHost
from services.chassis.telemetry import Telemetry
from services.vision.pictures import Decoder, PictureCall, PictureRunner, best, probabilities, unit
from services.vision.transforms import ImageSpec
from tests.vision import tiny_models
from tests.vision.test_servicer import picture

CONTENT = picture(size=(600, 600)).content


async def test_the_line_before_the_decoder_is_bounded():
    decoder = Decoder(1, max_waiting=3)
    loads = [decoder.load(CONTENT, ImageSpec(8, 8), "m", math.inf) for _ in range(6)]
    results = await asyncio.gather(*loads, return_exceptions=True)
    refusals = [result for result in results if isinstance(result, ServiceError)]
    assert [refusal.reason for refusal in refusals] == ["QUEUE_FULL"] * 3
    assert decoder.waiting == 0
    assert (await decoder.load(CONTENT, ImageSpec(8, 8), "m", math.inf)).shape == (1, 3, 8, 8)
    decoder.close()


async def test_pictures_whose_time_has_passed_are_not_decoded():
    decoder = Decoder(1)
    with pytest.raises(ServiceError) as caught:
        await decoder.load(CONTENT, ImageSpec(8, 8), "m", time.monotonic() - 1)
    assert caught.value.code is grpc.StatusCode.DEADLINE_EXCEEDED
    decoder.close()


async def test_a_call_waits_for_room_but_is_refused_when_nothing_of_it_is_inside(tmp_path):
    tiny_models.add_colours(tmp_path, threads=2)
    host = ModelHost(Repository(tmp_path), HostOptions("vision"))
    await host.start()
    await host.loaded()
    decoder = Decoder(2, max_waiting=1)
    runner = PictureRunner(host, decoder, 10**6)
    model = host.resolve("colours", "classify")
    many = PictureCall(model, Call("m"), 12, lambda _: CONTENT)
    assert len([r for r in await runner.run(many) if not isinstance(r, ServiceError)]) == 12
    decoder.waiting = 1
    with pytest.raises(ServiceError, match="is full"):
        await runner.run(many)
    decoder.close()
    await host.close()


@pytest.mark.parametrize("threads", [1, 2])
async def test_a_bad_picture_fails_alone_whoever_decodes_it(tmp_path, threads):
    tiny_models.add_colours(tmp_path, threads=threads)
    host = ModelHost(Repository(tmp_path), HostOptions("vision"))
    await host.start()
    await host.loaded()
    decoder = Decoder(1)
    contents = [CONTENT, CONTENT[:200], b"", CONTENT]
    pictures = PictureCall(host.resolve("", "classify"), Call("m"), len(contents), contents.__getitem__)
    results = await PictureRunner(host, decoder, 10**6).run(pictures)
    assert [isinstance(result, ServiceError) for result in results] == [False, True, True, False]
    assert results[2].message.startswith("images[2].content: is empty")
    decoder.close()
    await host.close()


@pytest.mark.parametrize("threads", [1, 2])
async def test_a_sampled_call_has_transform_queue_and_engine_spans(tmp_path, threads):
    tiny_models.add_colours(tmp_path, threads=threads)
    exporter = InMemorySpanExporter()
    telemetry = Telemetry("vision", Metrics(), exporter)
    host = ModelHost(Repository(tmp_path), HostOptions("vision"), telemetry.batch_observer)
    await host.start()
    await host.loaded()
    decoder = Decoder(1)
    model = host.resolve("", "classify")
    trace = telemetry.begin("m", f"00-{'a' * 32}-{'b' * 16}-01")
    call = Call("m", trace=trace, observer=telemetry.computed)
    outcomes = await PictureRunner(host, decoder, 10**6).run(PictureCall(model, call, 2, lambda _: CONTENT))
    call.record(model.name, model.version, outcomes)
    telemetry.end(call)
    telemetry.flush()
    names = [span.name for span in exporter.get_finished_spans()]
    assert names.count("transform") == 2
    assert {"queue", "engine", "m"} <= set(names)
    decoder.close()
    await host.close()
    telemetry.close()


def test_activations():
    scores = np.array([1e4, -1e4, 0], np.float32)
    assert probabilities(scores, "softmax").tolist() == [1, 0, 0]
    assert probabilities(scores, "sigmoid").tolist() == [1, 0, 0.5]
    assert probabilities(scores, "none").tolist() == scores.tolist()
    assert probabilities(scores.astype(np.float16), "softmax").dtype == np.float32


def test_the_best_come_first_and_ties_keep_their_order():
    assert best(np.array([1, 3, 3, 2], np.float32), 3) == [1, 2, 3]


def test_unit_vectors():
    np.testing.assert_allclose(unit(np.array([3, 4], np.float32)), [0.6, 0.8])
    assert unit(np.full(4, 1e-30, np.float32)).tolist() == pytest.approx([0.5] * 4, abs=1e-3)
    assert unit(np.zeros(3, np.float16)).tolist() == [0, 0, 0]


@pytest.mark.parametrize("datatype", ["FP16", "UINT8"])
async def test_networks_may_take_halves_or_bytes(tmp_path, datatype):
    tiny_models.add_pooled(tmp_path, datatype)
    host = ModelHost(Repository(tmp_path), HostOptions("vision"))
    await host.start()
    await host.loaded()
    model = host.resolve("", "embed")
    decoder = Decoder(1)
    (outcome,) = await PictureRunner(host, decoder, 10**6).run(PictureCall(model, Call("m"), 1, lambda _: CONTENT))
    assert outcome.outputs["mean"].ravel().tolist() == [255, 0, 0]
    decoder.close()
    await host.close()
