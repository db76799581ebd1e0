"""ReadText with the real networks, on pages that the project carries and on what becomes of them."""

import asyncio
import io
import shutil
import time
from pathlib import Path

import cv2
import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from google.rpc import code_pb2
from PIL import Image

from engines.zoo import check
from headrace.vision.v1 import vision_pb2 as pb
from tests.serving import serving
from tests.vision import tiny_models
from tests.vision.test_servicer import refused, stub

FIXTURES = Path(check.__file__).parent / "fixtures"
PAGE = FIXTURES / "reading_page.png"
LINES = [
    "Water and Power",
    "The wheel turned 38 kW in 1911.",
    "引水渠把河水带到水轮机。",
    "mill@example.org +44 1632 960983",
]
ONLY_READERS = {"services.vision.models": ["ppocr_v6", "ppocr_v6_detector"], "services.vision.cores": 2}


def read_text(channel):
    return stub(channel, "ReadText", pb.ReadTextResponse)


def page_pixels():
    with Image.open(PAGE) as page:
        return np.asarray(page.convert("RGB"))


def picture(pixels, kind="PNG", **options):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return pb.Image(content=buffer.getvalue())


def said(result):
    """The lines without spaces, which print leaves to the eye."""
    return [line.text.replace(" ", "") for line in result.lines]


def errors_in(text, wanted):
    """The fewest letters to change, add or drop: Levenshtein's distance."""
    row = list(range(len(wanted) + 1))
    for place, letter in enumerate(text, start=1):
        before, row[0] = row[0], place
        for column, other in enumerate(wanted, start=1):
            before, row[column] = row[column], min(row[column] + 1, row[column - 1] + 1, before + (letter != other))
    return row[-1]


def error_rate(result):
    text, wanted = "".join(said(result)), "".join(LINES).replace(" ", "")
    return errors_in(text, wanted) / len(wanted)


@pytest.fixture(scope="module")
def page():
    return pb.Image(content=PAGE.read_bytes())


async def test_english_and_chinese_are_read_line_by_line_with_outlines_and_a_receipt(reading_models, page):
    async with serving("vision", reading_models) as served, grpc.aio.insecure_channel(served.address) as channel:
        call = read_text(channel)(pb.ReadTextRequest(images=[page]))
        answer = await call
        (result,) = answer.results
        assert [line.text for line in result.lines] == LINES
        assert (answer.model.name, answer.model.version) == ("ppocr_v6", "1")
        headers = dict(await call.initial_metadata())
        assert headers["headrace-model"] == "ppocr_v6@1"
        assert float(headers["headrace-engine-ms"]) > 0
        empty = read_text(channel)(pb.ReadTextRequest(images=[picture(np.full((90, 90, 3), 255, np.uint8))]))
        assert list((await empty).results[0].lines) == []
        assert dict(await empty.initial_metadata())["headrace-model"] == "ppocr_v6@1"
        tops = [16, 76, 116, 168]
        for line, top in zip(result.lines, tops, strict=True):
            assert 0.9 < line.confidence <= 1
            (first, second, third, fourth) = [(point.x, point.y) for point in line.polygon]
            assert first[0] == pytest.approx(24, abs=8)
            assert top - 8 < first[1] < top + 16
            assert second[0] > third[0] - 8 > first[0]
            assert fourth[1] > first[1] + 12


@pytest.mark.parametrize("quarters", [1, 2, 3])
async def test_a_page_that_lies_on_its_side_is_read_all_the_same(reading_models, quarters):
    pixels = np.rot90(page_pixels(), quarters)
    async with serving("vision", reading_models) as served, grpc.aio.insecure_channel(served.address) as channel:
        answer = await read_text(channel)(pb.ReadTextRequest(images=[picture(pixels)]))
    (result,) = answer.results
    assert error_rate(result) < 0.02
    # Turned back, the first line begins near the page's top left.
    corner = np.zeros(pixels.shape[:2])
    first = result.lines[0].polygon[0]
    corner[min(int(first.y), corner.shape[0] - 1), min(int(first.x), corner.shape[1] - 1)] = 1
    row, column = np.argwhere(np.rot90(corner, -quarters))[0]
    assert row < 40
    assert column < 40


async def test_a_turned_photograph_has_outlines_in_its_own_pixels(reading_models):
    stored = np.rot90(page_pixels(), 1)
    exif = Image.Exif()
    exif[0x0112] = 6  # Shown turned clockwise by a quarter, which makes the page upright.
    turned = picture(stored, "JPEG", exif=exif, quality=95)
    async with serving("vision", reading_models) as served, grpc.aio.insecure_channel(served.address) as channel:
        answer = await read_text(channel)(pb.ReadTextRequest(images=[turned]))
    (result,) = answer.results
    assert said(result) == [line.replace(" ", "") for line in LINES]
    height = stored.shape[0]
    first, second = result.lines[0].polygon[:2]
    assert first.x < 40
    assert height - 40 < first.y <= height
    assert second.y < first.y - 200


async def test_a_photographed_page_is_read_with_few_errors(reading_models):
    random = np.random.default_rng(3)
    small = page_pixels()
    large = cv2.resize(small, None, fx=2.5, fy=2.5, interpolation=cv2.INTER_CUBIC)
    height, width = large.shape[:2]
    desk = np.full((height + 200, width + 200, 3), 90.0) + random.normal(0, 12, (height + 200, width + 200, 1))
    desk[100:-100, 100:-100] = large
    corners = np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float32) + 100
    moved = corners + np.array([(30, 45), (-60, 10), (20, -30), (-10, 35)], np.float32)
    seen = cv2.warpPerspective(desk.astype(np.float32), cv2.getPerspectiveTransform(corners, moved), desk.shape[1::-1])
    light = 0.55 + 0.45 * np.linspace(0, 1, seen.shape[1])[None, :, None]
    seen = cv2.GaussianBlur(seen * light, (0, 0), 1.5) + random.normal(0, 8, seen.shape)
    photograph = picture(seen.clip(0, 255).astype(np.uint8), "JPEG", quality=80)
    async with serving("vision", reading_models) as served, grpc.aio.insecure_channel(served.address) as channel:
        answer = await read_text(channel)(pb.ReadTextRequest(images=[photograph]))
    assert len(answer.results[0].lines) == len(LINES)
    assert error_rate(answer.results[0]) < 0.05


async def test_small_print_on_large_pages_is_read(reading_models):
    """The carried page in the corner of a sheet of 20 million pixels, and a dense block of 11-pixel print."""
    sheet = np.full((5200, 3900, 3), 250, np.uint8)
    small = page_pixels()
    sheet[300 : 300 + small.shape[0], 400 : 400 + small.shape[1]] = small
    row = cv2.resize(small[74:106, 20:390], None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    block = np.full((1600, 1200, 3), 250, np.uint8)
    block[100 : 100 + 12 * row.shape[0], 80 : 80 + row.shape[1]] = np.tile(row, (12, 1, 1))
    async with serving("vision", reading_models) as served, grpc.aio.insecure_channel(served.address) as channel:
        detector = served.host.resolve("ppocr_v6_detector", "tensor").batcher
        (large,) = (await read_text(channel)(pb.ReadTextRequest(images=[picture(sheet, compress_level=1)]))).results
        tiles = detector.stats().rows
        (dense,) = (await read_text(channel)(pb.ReadTextRequest(images=[picture(block)]))).results
        looks = detector.stats().rows - tiles
    assert tiles > 1
    assert error_rate(large) < 0.05
    assert large.lines[0].polygon[0].x == pytest.approx(424, abs=24)
    assert looks > 1
    wanted = "Thewheelturned38kWin1911."
    assert sum(errors_in(line, wanted) for line in said(dense)) < 0.05 * 12 * len(wanted)
    assert len(dense.lines) == 12


async def test_what_is_no_page_takes_its_own_place_only(reading_models, page):
    blank = np.full((300, 200, 3), 255, np.uint8)
    noise = np.random.default_rng(1).integers(0, 256, (200, 300, 3)).astype(np.uint8)
    images = [
        picture(blank[:1, :1]),
        page,
        pb.Image(content=b"no picture"),
        picture(blank),
        pb.Image(content=PAGE.read_bytes()[:900]),
        pb.Image(),
        picture(noise),
        picture(np.zeros((2, 9000, 3), np.uint8)),
        picture(np.zeros((600, 900, 3), np.uint8)),
        page,
    ]
    flags = {**ONLY_READERS, "services.vision.max_pixels": 500_000}
    async with serving("vision", reading_models, flags) as served, grpc.aio.insecure_channel(served.address) as channel:
        answer = await read_text(channel)(pb.ReadTextRequest(images=images))
    codes = [result.error.code for result in answer.results]
    bad = code_pb2.INVALID_ARGUMENT
    assert codes == [0, 0, bad, 0, bad, bad, 0, 0, bad, 0]
    assert said(answer.results[1]) == said(answer.results[9]) == [line.replace(" ", "") for line in LINES]
    assert not any(answer.results[index].lines for index in (0, 3, 6, 7))
    assert "images[2].content: is not a picture in a known format" in answer.results[2].error.message
    assert "images[4].content: is not a whole PNG picture" in answer.results[4].error.message
    assert "images[5].content: is empty" in answer.results[5].error.message
    assert "has 900 x 600 pixels; at most 500000 are accepted" in answer.results[8].error.message


async def test_too_many_pictures_and_none_are_refused(reading_models, page):
    flags = {**ONLY_READERS, "services.vision.max_items": 100}
    async with serving("vision", reading_models, flags) as served, grpc.aio.insecure_channel(served.address) as channel:
        many = pb.ReadTextRequest(images=[pb.Image(content=b"x")] * 10_000)
        words = await refused(read_text(channel)(many), grpc.StatusCode.INVALID_ARGUMENT)
        assert "images: has 10000 items; at most 100 are accepted in one call" in words
        words = await refused(read_text(channel)(pb.ReadTextRequest()), grpc.StatusCode.INVALID_ARGUMENT)
        assert "images: is empty" in words
        request = pb.ReadTextRequest(model="ppocr_v6_detector", images=[page])
        words = await refused(read_text(channel)(request), grpc.StatusCode.INVALID_ARGUMENT)
        assert "does not read_text; choose one of: ppocr_v6" in words


async def test_lines_of_different_calls_share_batches_and_say_the_same(reading_models):
    pixels = page_pixels()
    strips = [picture(pixels[top : top + 46]) for top in (68, 108, 158)]
    async with (
        serving("vision", reading_models, ONLY_READERS) as served,
        grpc.aio.insecure_channel(served.address) as channel,
    ):
        alone = [(await read_text(channel)(pb.ReadTextRequest(images=[strip]))).results[0] for strip in strips]
        batcher = served.host.resolve("ppocr_v6", "read_text").batcher
        before = batcher.stats()
        calls = [read_text(channel)(pb.ReadTextRequest(images=[strips[index % 3]])) for index in range(24)]
        together = await asyncio.gather(*calls)
        sizes = [int(dict(await call.initial_metadata())["headrace-batch-rows"]) for call in calls]
        after = batcher.stats()
    for index, answer in enumerate(together):
        assert said(answer.results[0]) == said(alone[index % 3])
    assert max(sizes) > 1
    assert after.batches - before.batches < after.rows - before.rows


async def test_a_page_of_many_lines_leaves_room_for_others(reading_models):
    line = page_pixels()[68:108, :400]
    book = np.vstack([np.hstack([line, line, line])] * 40)
    async with (
        serving("vision", reading_models, ONLY_READERS) as served,
        grpc.aio.insecure_channel(served.address) as channel,
    ):
        batcher = served.host.resolve("ppocr_v6", "read_text").batcher
        queued = []

        async def watch():
            while True:
                queued.append(batcher.queued_rows)
                await asyncio.sleep(0.005)

        watching = asyncio.create_task(watch())
        long_call = asyncio.ensure_future(read_text(channel)(pb.ReadTextRequest(images=[picture(book)])))
        while not queued or max(queued) < 4:
            await asyncio.sleep(0.01)
        short = await read_text(channel)(pb.ReadTextRequest(images=[picture(line)]))
        assert not long_call.done()
        long_answer = await long_call
        watching.cancel()
    assert said(short.results[0]) == ["Thewheelturned38kWin1911."]
    assert sum(text.count("wheel") for text in said(long_answer.results[0])) >= 110
    assert max(queued) <= 16


async def test_a_deadline_ends_the_call_and_a_caller_who_leaves_costs_no_more(reading_models):
    line = page_pixels()[68:108]
    book = picture(np.vstack([line] * 60))
    async with (
        serving("vision", reading_models, ONLY_READERS) as served,
        grpc.aio.insecure_channel(served.address) as channel,
    ):
        batcher = served.host.resolve("ppocr_v6", "read_text").batcher
        started = time.monotonic()
        call = read_text(channel)(pb.ReadTextRequest(images=[book] * 4), timeout=0.5)
        await refused(call, grpc.StatusCode.DEADLINE_EXCEEDED)
        assert time.monotonic() - started < 2
        leaving = read_text(channel)(pb.ReadTextRequest(images=[book] * 4))
        rows = batcher.stats().rows
        while batcher.stats().rows == rows:
            await asyncio.sleep(0.01)
        leaving.cancel()
        await asyncio.wait_for(served.host.drain(), 5)
        rows = batcher.stats().rows
        await asyncio.sleep(0.3)
        assert batcher.stats().rows == rows


async def test_a_reader_without_its_parts_says_so_and_the_others_serve(reading_models, page, tmp_path):
    def add(name, old="", new="", characters=None):
        shutil.copytree(reading_models / "ppocr_v6", tmp_path / name)
        manifest = (tmp_path / name / "model.toml").read_text().replace('name = "ppocr_v6"', f'name = "{name}"')
        (tmp_path / name / "model.toml").write_text(manifest.replace(old, new) if old else manifest)
        if characters is not None:
            (tmp_path / name / "characters.txt").write_bytes(characters)

    shutil.copytree(reading_models / "ppocr_v6_detector", tmp_path / "ppocr_v6_detector")
    tiny_models.add_colours(tmp_path)
    add("whole")
    add("lonely", 'detector = "ppocr_v6_detector"', 'detector = "nobody"')
    add("wrong_detector", 'detector = "ppocr_v6_detector"', 'detector = "colours"')
    add("wrong_output", 'output = "classes"', 'output = "letters"')
    add("few", characters=b"a\nb\n")
    add("damaged", characters=b"\xff\xfe\xff")
    async with serving("vision", tmp_path) as served, grpc.aio.insecure_channel(served.address) as channel:

        async def refusal(model):
            request = pb.ReadTextRequest(model=model, images=[page])
            return await refused(read_text(channel)(request), grpc.StatusCode.UNAVAILABLE)

        assert "its detector 'nobody' is not among the models of this service" in await refusal("lonely")
        assert "does not fit colours: it has no output 'probability'" in await refusal("wrong_detector")
        assert "is 'letters', but the model has classes, confidence" in await refusal("wrong_output")
        assert "characters.txt: class" in await refusal("few")
        assert "characters.txt: is not UTF-8 text" in await refusal("damaged")
        answer = await read_text(channel)(pb.ReadTextRequest(model="whole", images=[page]))
        assert len(answer.results[0].lines) == len(LINES)


async def test_both_networks_answer_tritonclient(reading_models):
    async with serving("vision", reading_models, ONLY_READERS) as served:
        found, read = await asyncio.to_thread(_by_triton, served.address)
    assert found.shape == (2, 1, 64, 96)
    assert ((found >= 0) & (found <= 1)).all()
    assert read.shape == (3, 20)
    assert read.dtype == np.int64


def _by_triton(address):
    client = triton.InferenceServerClient(address)
    try:
        answers = []
        for model, shape, output in (
            ("ppocr_v6_detector", [2, 3, 64, 96], "probability"),
            ("ppocr_v6", [3, 3, 48, 160], "classes"),
        ):
            x = triton.InferInput("x", shape, "FP32")
            x.set_data_from_numpy(np.random.default_rng(0).standard_normal(shape).astype(np.float32))
            answers.append(client.infer(model, [x]).as_numpy(output))
        return answers
    finally:
        client.close()
