"""EfficientNet-Lite0 with its real weights, on photographs."""

import asyncio
import io
from pathlib import Path

import grpc
import numpy as np
import pytest
import simplejpeg
import sklearn.datasets
from PIL import Image

from headrace.vision.v1 import vision_pb2 as pb
from tests.serving import serving
from tests.vision.test_servicer import classify, embed

PHOTOS = Path(sklearn.datasets.__file__).parent / "images"


def variants(count):
    """Different crops of the sample photographs, as JPEG."""
    made = []
    for index in range(count):
        with Image.open(PHOTOS / ("china.jpg" if index % 2 else "flower.jpg")) as photo:
            left, top = 3 * index, 2 * index
            buffer = io.BytesIO()
            photo.crop((left, top, left + 400, top + 290)).save(buffer, "JPEG", quality=90)
        made.append(pb.Image(content=buffer.getvalue()))
    return made


async def test_photographs_get_sensible_labels(zoo_models):
    photos = [pb.Image(content=(PHOTOS / name).read_bytes()) for name in ("china.jpg", "flower.jpg")]
    async with serving("vision", zoo_models) as served, grpc.aio.insecure_channel(served.address) as channel:
        answer = await classify(channel)(pb.ClassifyRequest(images=photos))
        labels = [[category.label for category in result.categories] for result in answer.results]
        assert any("palace" in label for label in labels[0]), labels
        assert any(word in " ".join(labels[1]) for word in ("daisy", "flower", "bee", "pot")), labels
        assert all(len(result.categories) == 5 for result in answer.results)
        vectors = [
            np.array(r.embedding.values) for r in (await embed(channel)(pb.EmbedImagesRequest(images=photos))).results
        ]
        assert [vector.shape for vector in vectors] == [(1280,), (1280,)]
        assert np.linalg.norm(vectors[0]) == pytest.approx(1.0, abs=1e-5)


async def test_64_concurrent_calls_share_batches_and_equal_single_calls(zoo_models):
    images = variants(64)
    async with serving("vision", zoo_models) as served, grpc.aio.insecure_channel(served.address) as channel:
        batcher = served.host.resolve("efficientnet_lite0", "classify").batcher
        calls = [classify(channel)(pb.ClassifyRequest(images=[image], top_k=1000)) for image in images]
        together = await asyncio.gather(*calls)
        batches = batcher.stats().batches
        sizes = [int(dict(await call.initial_metadata())["headrace-batch-rows"]) for call in calls]
        alone = [await classify(channel)(pb.ClassifyRequest(images=[image], top_k=1000)) for image in images[:12]]
    assert batches < 64
    assert max(sizes) > 1
    for one, many in zip(alone, together[:12], strict=True):
        np.testing.assert_allclose(scores(many), scores(one), atol=1e-4)


async def test_a_scaled_decode_changes_no_verdict(zoo_models):
    """The same photographs, decoded whole and sent lossless, against the scaled decode of the JPEG."""
    images = variants(6)
    whole = []
    for image in images:
        buffer = io.BytesIO()
        Image.fromarray(simplejpeg.decode_jpeg(image.content)).save(buffer, "PNG")
        whole.append(pb.Image(content=buffer.getvalue()))
    async with serving("vision", zoo_models) as served, grpc.aio.insecure_channel(served.address) as channel:
        scaled = await embed(channel)(pb.EmbedImagesRequest(images=images))
        exact = await embed(channel)(pb.EmbedImagesRequest(images=whole))
    for one, other in zip(scaled.results, exact.results, strict=True):
        assert np.dot(one.embedding.values, other.embedding.values) > 0.95


def scores(response):
    found = np.zeros(1000)
    for category in response.results[0].categories:
        found[category.index] = category.score
    return found
