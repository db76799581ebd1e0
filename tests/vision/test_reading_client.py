"""client.vision.read_text against the real networks."""

import asyncio

import headrace
from tests.serving import serving
from tests.vision.test_reading import LINES, ONLY_READERS, PAGE


def check(results):
    read, broken = results
    assert [line.text for line in read.lines] == LINES
    assert read.text == "".join(f"{line}\n" for line in LINES)
    assert read.error is None
    assert all(len(line.polygon) == 4 and 0.9 < line.confidence <= 1 for line in read.lines)
    assert broken.lines == ()
    assert isinstance(broken.error, headrace.InvalidArgument)
    assert str(results.model) == "ppocr_v6@1"
    assert results.receipt.model.name == "ppocr_v6"


async def test_pages_are_read_by_both_clients(reading_models):
    def blocking(address):
        with headrace.Client(address) as client:
            return client.vision.read_text([PAGE, b"no picture"])

    async with serving("vision", reading_models, ONLY_READERS) as served:
        check(await asyncio.to_thread(blocking, served.address))
        async with headrace.AsyncClient(served.address) as client:
            check(await client.vision.read_text([PAGE, b"no picture"], model="ppocr_v6@1"))
