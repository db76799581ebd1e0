import asyncio
import io
from pathlib import Path

import pytest

import headrace


async def test_classify_answers_typed_results_in_order(mesh, vision, tmp_path: Path) -> None:
    path = tmp_path / "b.jpg"
    path.write_bytes(b"b")
    results = await vision.classify(
        [b"a", path, str(path), io.BytesIO(b"c"), memoryview(b"d")], model="tiny@3", top_k=2
    )
    assert [item.categories[0].label for item in results] == ["a", "b", "b", "c", "d"]
    assert results[0] == headrace.ClassifyResult((headrace.Category("a", 0.5, 7),))
    assert len(results) == 5
    assert results[1:2] == results.items[1:2]
    assert str(results.model) == "tiny@3"
    (request,) = mesh.service.requests
    assert (request.model, request.top_k) == ("tiny@3", 2)


async def test_one_image_needs_no_list(vision, tmp_path: Path) -> None:
    path = tmp_path / "b.jpg"
    path.write_bytes(b"b")
    with path.open("rb") as opened:
        for source in (b"b", path, str(path), opened):
            results = await vision.classify(source)
            assert [item.categories[0].label for item in results] == ["b"]


async def test_embed_answers_vectors(vision) -> None:
    results = await vision.embed([b"a", b"b"])
    assert [item.embedding for item in results] == [pytest.approx((0.6, 0.8))] * 2
    assert results[0].error is None


async def test_a_bad_image_spoils_only_itself(vision) -> None:
    good, bad = await vision.classify([b"a", b""])
    assert good.error is None
    assert bad.categories == ()
    assert isinstance(bad.error, headrace.InvalidArgument)
    assert (bad.error.reason, bad.error.domain) == ("INVALID_IMAGE", "headrace")
    assert str(bad.error) == "INVALID_ARGUMENT: images[1].content: is empty"


async def test_receipt_comes_from_initial_metadata(vision) -> None:
    results = await vision.classify(b"a")
    assert results.receipt == headrace.Receipt(headrace.Model("tiny", "3"), 1.5, 4.25, 0.53125, 8, 0.0)


@pytest.mark.parametrize("receipt", [(), (("headrace-model", "tiny@3"), ("headrace-queue-ms", "soon"))])
async def test_a_missing_or_broken_receipt_is_none(mesh, vision, receipt) -> None:
    mesh.service.receipt = receipt
    assert (await vision.classify(b"a")).receipt is None


async def test_key_and_trace_travel_as_metadata(mesh, connect) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with connect(mesh.target, api_key="secret") as vision:
        await vision.embed(b"a", metadata={"Traceparent": trace})
        await vision.embed(b"a", metadata={"authorization": "Bearer other"})
    assert mesh.service.metadata[0]["authorization"] == "Bearer secret"
    assert mesh.service.metadata[0]["traceparent"] == trace
    assert mesh.service.metadata[1]["authorization"] == "Bearer other"


async def test_the_deadline_is_the_clients_unless_the_call_has_its_own(mesh, connect) -> None:
    async with connect(mesh.target, timeout=50.0) as vision:
        await vision.classify(b"a")
        await vision.classify(b"a", timeout=9.0)
    first, second = mesh.service.remaining
    # gRPC rounds up what it sends.
    assert 40 < first < 51
    assert 4 < second < 10


async def test_calls_share_one_connection(mesh, vision) -> None:
    results = await asyncio.gather(*(vision.classify(f"{index}".encode()) for index in range(20)))
    assert [item[0].categories[0].label for item in results] == [str(index) for index in range(20)]


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        ([b"a", 3], TypeError, r"images\[1\]: int is no image source"),
        (io.StringIO("a"), TypeError, r"images\[0\]: the file is open in text mode"),
        ("nowhere.jpg", FileNotFoundError, "nowhere.jpg"),
    ],
)
async def test_what_cannot_be_read_is_named(mesh, vision, images, error, message) -> None:
    with pytest.raises(error, match=message):
        await vision.classify(images)
    assert mesh.service.requests == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target": "http://127.0.0.1:8080"}, 'target: .* write "host:port"'),
        ({"target": ""}, "target"),
        ({"timeout": 0}, "timeout: 0 is not a positive number"),
        ({"max_message_bytes": -1}, "max_message_bytes"),
    ],
)
@pytest.mark.parametrize("kind", [headrace.Client, headrace.AsyncClient])
def test_a_bad_argument_is_refused_at_once(kind, arguments, message) -> None:
    with pytest.raises(ValueError, match=message):
        kind(**arguments)


async def test_a_bad_timeout_of_a_call_is_refused(vision) -> None:
    with pytest.raises(ValueError, match=r"timeout: -1 is not a positive number"):
        await vision.classify(b"a", timeout=-1)


async def test_an_async_client_may_be_made_and_closed_unused() -> None:
    client = await asyncio.to_thread(headrace.AsyncClient)
    await client.close()


async def test_cancelling_the_task_cancels_the_call(mesh) -> None:
    mesh.service.silent = True
    async with headrace.AsyncClient(mesh.target) as client:
        task = asyncio.create_task(client.vision.classify(b"a"))
        await asyncio.wait_for(mesh.service.arrived.wait(), 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
