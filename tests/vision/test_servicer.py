import asyncio
import io
import time

import grpc
import numpy as np
import pytest
from google.rpc import code_pb2, error_details_pb2
from grpc_status import rpc_status
from PIL import Image

from headrace.vision.v1 import vision_pb2 as pb
from tests.serving import serving
from tests.vision import tiny_models

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def picture(colour=RED, kind="PNG", size=(20, 12)):
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, kind)
    return pb.Image(content=buffer.getvalue())


def stub(channel, method, response):
    return channel.unary_unary(
        f"/headrace.vision.v1.VisionService/{method}",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=response.FromString,
    )


def classify(channel):
    return stub(channel, "Classify", pb.ClassifyResponse)


def embed(channel):
    return stub(channel, "Embed", pb.EmbedImagesResponse)


async def refused(awaitable, code):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await awaitable
    assert caught.value.code() is code
    return caught.value.details()


@pytest.fixture
def models(tmp_path):
    tiny_models.add_colours(tmp_path)
    tiny_models.add_double(tmp_path)
    return tmp_path


async def test_labels_are_ranked_and_the_call_has_a_receipt(models):
    async with serving("vision", models) as served, grpc.aio.insecure_channel(served.address) as channel:
        call = classify(channel)(pb.ClassifyRequest(images=[picture(GREEN), picture(BLUE, "JPEG")]))
        answer = await call
        assert (answer.model.name, answer.model.version) == ("colours", "1")
        first, second = answer.results
        assert [c.label for c in first.categories] == ["green", "red", "blue"]
        assert first.categories[0].index == 1
        assert sum(c.score for c in first.categories) == pytest.approx(1.0, abs=1e-5)
        assert second.categories[0].label == "blue"
        assert not first.HasField("error")
        headers = dict(await call.initial_metadata())
        assert headers["headrace-model"] == "colours@1"
        assert float(headers["headrace-engine-ms"]) > 0


async def test_embeddings_have_unit_length(models):
    async with serving("vision", models) as served, grpc.aio.insecure_channel(served.address) as channel:
        request = pb.EmbedImagesRequest(images=[picture(), picture((9, 90, 30)), picture((0, 0, 0))])
        answer = await embed(channel)(request)
    vectors = [np.array(result.embedding.values) for result in answer.results]
    np.testing.assert_allclose(vectors[0], [1, 0, 0], atol=1e-6)
    assert np.linalg.norm(vectors[1]) == pytest.approx(1.0, abs=1e-6)
    assert vectors[2].tolist() == [0, 0, 0]


@pytest.mark.parametrize(("asked", "given"), [(0, 3), (1, 1), (2, 2), (3, 3), (1000, 3), (2**31 - 1, 3)])
async def test_top_k(models, asked, given):
    async with serving("vision", models) as served, grpc.aio.insecure_channel(served.address) as channel:
        answer = await classify(channel)(pb.ClassifyRequest(images=[picture()], top_k=asked))
        assert len(answer.results[0].categories) == given


@pytest.mark.parametrize(
    ("request_", "code", "words"),
    [
        (pb.ClassifyRequest(), "INVALID_ARGUMENT", "images: is empty; send at least one"),
        (pb.ClassifyRequest(images=[picture()], top_k=-1), "INVALID_ARGUMENT", "top_k: is -1; must be 0"),
        (pb.ClassifyRequest(images=[picture()] * 5), "INVALID_ARGUMENT", "at most 4 are accepted"),
        (pb.ClassifyRequest(images=[picture()], model="colors"), "NOT_FOUND", "did you mean colours?"),
        (pb.ClassifyRequest(images=[picture()], model="colours@7"), "NOT_FOUND", "colours@1"),
        (pb.ClassifyRequest(images=[picture()], model="\x00\n@@"), "NOT_FOUND", "there is no model"),
        (pb.ClassifyRequest(images=[picture()], model="double"), "INVALID_ARGUMENT", "choose one of: colours"),
    ],
)
async def test_what_a_wrong_call_hears(models, request_, code, words):
    async with (
        serving("vision", models, {"services.vision.max_items": 4}) as served,
        grpc.aio.insecure_channel(served.address) as channel,
    ):
        assert words in await refused(classify(channel)(request_), getattr(grpc.StatusCode, code))
        assert (await classify(channel)(pb.ClassifyRequest(images=[picture()]))).results


async def test_each_bad_picture_fails_alone_and_in_its_place(models):
    bad = {
        1: (b"", "is empty"),
        2: (b"hello", "not a picture in a known format"),
        4: (picture(kind="JPEG", size=(64, 64)).content[:200], "not a whole JPEG"),
        5: (picture(size=(200, 100)).content, "at most 1000 are accepted"),
    }
    images = [pb.Image(content=bad[i][0]) if i in bad else picture(BLUE) for i in range(7)]
    async with (
        serving("vision", models, {"services.vision.max_pixels": 1000}) as served,
        grpc.aio.insecure_channel(served.address) as channel,
    ):
        answer = await classify(channel)(pb.ClassifyRequest(images=images))
        for index, result in enumerate(answer.results):
            if index not in bad:
                assert result.categories[0].label == "blue"
                continue
            assert not result.categories
            assert result.error.code == code_pb2.INVALID_ARGUMENT
            assert result.error.message.startswith(f"images[{index}].content: ")
            assert bad[index][1] in result.error.message
            violations = error_details_pb2.BadRequest()
            assert any(detail.Unpack(violations) for detail in result.error.details)
            assert violations.field_violations[0].field == f"images[{index}].content"
        only_bad = await embed(channel)(pb.EmbedImagesRequest(images=[pb.Image(content=b"x")] * 3))
        assert [result.error.code for result in only_bad.results] == [code_pb2.INVALID_ARGUMENT] * 3
        assert only_bad.model.name == "colours"


async def test_default_models(models):
    tiny_models.add_colours(models, "colours2")
    async with serving("vision", models) as served, grpc.aio.insecure_channel(served.address) as channel:
        words = await refused(
            classify(channel)(pb.ClassifyRequest(images=[picture()])), grpc.StatusCode.INVALID_ARGUMENT
        )
        assert words == "model: is empty and there is no default; choose one of: colours, colours2"
    flags = {"services.vision.defaults": {"classify": "colours2"}}
    async with serving("vision", models, flags) as served, grpc.aio.insecure_channel(served.address) as channel:
        assert (await classify(channel)(pb.ClassifyRequest(images=[picture()]))).model.name == "colours2"


async def test_a_big_call_never_fills_the_queue(models):
    """300 pictures through a queue of 64 rows, while small calls go on."""
    colours = [(RED, GREEN, BLUE)[index % 3] for index in range(300)]
    images = {colour: picture(colour) for colour in (RED, GREEN, BLUE)}
    async with serving("vision", models) as served, grpc.aio.insecure_channel(served.address) as channel:
        batcher = served.host.resolve("colours", "classify").batcher
        most = 0
        big = asyncio.ensure_future(classify(channel)(pb.ClassifyRequest(images=[images[c] for c in colours], top_k=1)))
        while not big.done():
            small = await classify(channel)(pb.ClassifyRequest(images=[images[GREEN]], top_k=1))
            assert small.results[0].categories[0].label == "green"
            most = max(most, batcher.queued_rows)
        answer = big.result()
    assert [r.categories[0].label for r in answer.results] == [("red", "green", "blue")[i % 3] for i in range(300)]
    assert most <= 17


async def test_a_cancelled_call_drops_its_pictures(models):
    async with serving("vision", models) as served, grpc.aio.insecure_channel(served.address) as channel:
        batcher = served.host.resolve("colours", "classify").batcher
        call = classify(channel)(pb.ClassifyRequest(images=[picture(size=(900, 900))] * 400))
        async with asyncio.timeout(10):
            while batcher.stats().rows == 0:  # The batcher tells of batches by counting.
                await asyncio.sleep(0.002)
        call.cancel()
        await served.host.drain()
        done = batcher.stats().rows
        assert done < 400
        await classify(channel)(pb.ClassifyRequest(images=[picture()]))
        assert batcher.stats().rows <= done + 10


async def test_a_deadline_ends_a_long_call(models):
    async with serving("vision", models) as served, grpc.aio.insecure_channel(served.address) as channel:
        started = time.monotonic()
        request = pb.ClassifyRequest(images=[picture(size=(900, 900))] * 400)
        await refused(classify(channel)(request, timeout=0.15), grpc.StatusCode.DEADLINE_EXCEEDED)
        assert time.monotonic() - started < 1.0


async def test_errors_of_a_call_carry_details(models):
    async with serving("vision", models) as served, grpc.aio.insecure_channel(served.address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await classify(channel)(pb.ClassifyRequest())
        info = error_details_pb2.ErrorInfo()
        assert rpc_status.from_call(caught.value).details[0].Unpack(info)
        assert (info.reason, info.domain, info.metadata["field"]) == ("INVALID_FIELD", "headrace", "images")
