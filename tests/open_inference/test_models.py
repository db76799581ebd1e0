import asyncio
import shutil
from pathlib import Path
from types import SimpleNamespace

import grpc
import numpy as np
import pytest

from engines.base import TensorSpec
from engines.fake import FakeEngine, FakeOptions
from engines.repository import LoadedEngines, Repository
from engines.strict_toml import ConfigError
from engines.work import Work
from services.chassis.errors import ServiceError
from services.chassis.models import HostOptions, ModelHost
from tests.vision import tiny_models


def host(folder, **options):
    return ModelHost(Repository(folder), HostOptions("vision", **options))


async def refused(awaitable):
    with pytest.raises(ServiceError) as caught:
        await awaitable
    return caught.value


async def test_only_the_models_that_are_asked_for(tmp_path):
    tiny_models.add_double(tmp_path)
    tiny_models.add_colours(tmp_path)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "1").mkdir()
    (tmp_path / "other" / "model.toml").write_text('name = "other"\nservice = "nlp"\ntasks = ["tensor"]\n')
    every, some = host(tmp_path), host(tmp_path, models=("colours", "gone"))
    for one in (every, some):
        await one.start()
        await one.loaded()
    assert [model.name for model in every.index()] == ["colours", "double"]
    assert [(model.name, model.state) for model in some.index()] == [("colours", "READY"), ("gone", "UNAVAILABLE")]
    assert "there is no such model" in some.index()[1].reason
    assert every.settled
    assert some.settled
    for one in (every, some):
        await one.close()


async def test_no_repository_is_said_at_the_start(tmp_path):
    missing = host(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="model folder"):
        await missing.start()
    await missing.close()


async def test_what_is_loading_is_unavailable_and_others_serve(tmp_path):
    tiny_models.add_double(tmp_path)
    one = host(tmp_path)
    await one.start()
    with pytest.raises(ServiceError, match="still loading"):
        one.resolve("double", "tensor")
    await one.loaded()
    assert one.resolve("double", "tensor").state == "READY"
    await one.close()


async def test_closing_while_loading_leaves_nothing_behind(tmp_path):
    for name in ("a", "b", "c"):
        tiny_models.add_colours(tmp_path, name)
    one = host(tmp_path)
    await one.start()
    await one.close()
    await one.close()
    assert all(model.state != "READY" or model.batcher is not None for model in one.index())


async def test_errors_of_the_batcher_become_the_callers(tmp_path):
    tiny_models.add_slow(tmp_path, 0.2, queue=1)
    one = host(tmp_path)
    await one.start()
    await one.loaded()
    model = one.resolve("slow", "tensor")
    work = Work({"x": np.ones((1, 4), np.float32)}, 1)
    running = [asyncio.ensure_future(one.infer(model, work)) for _ in range(8)]
    done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_EXCEPTION)
    full = [task.exception() for task in done if task.exception() is not None]
    assert {error.code for error in full} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
    await one.drain()
    expired = await refused(one.infer(model, Work(work.inputs, 1, deadline=0.0)))
    assert expired.code is grpc.StatusCode.DEADLINE_EXCEEDED
    await one.close()
    closed = await refused(one.infer(model, work))
    assert (closed.code, closed.reason) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
    await asyncio.gather(*running, return_exceptions=True)


class DyingEngine(FakeEngine):
    def run(self, batch):
        if batch["x"].max() > 1:
            raise SystemExit("the driver is gone")
        return super().run(batch)


class DyingEntry:
    """An entry whose engine takes its thread along."""

    name, folder, versions, error = "slow", Path(), (1,), None

    def __init__(self, models):
        tiny_models.add_slow(models, 0.0)
        (entry,) = Repository(models).scan()
        self.manifest = entry.manifest

    def load(self, version, cores):
        engine = DyingEngine(FakeOptions(inputs=(TensorSpec("x", "FP32", ("rows", 4)),)))
        return LoadedEngines(1, engine.signature, (engine,), "fake", "", ())


async def test_a_model_whose_engines_have_died_says_so(tmp_path):
    entry = DyingEntry(tmp_path)
    one = ModelHost(SimpleNamespace(path=tmp_path, scan=lambda: [entry]), HostOptions("vision"))
    await one.start()
    await one.loaded()
    model = one.resolve("slow", "tensor")
    assert (await one.infer(model, Work({"x": np.ones((1, 4), np.float32)}, 1))).rows == 1
    await refused(one.infer(model, Work({"x": np.full((1, 4), 2, np.float32)}, 1)))
    lost = await refused(one.infer(model, Work({"x": np.ones((1, 4), np.float32)}, 1)))
    assert (lost.code, lost.reason) == (grpc.StatusCode.UNAVAILABLE, "MODEL_UNAVAILABLE")
    assert "engines have stopped" in lost.message
    with pytest.raises(ServiceError, match="engines have stopped"):
        one.resolve("slow", "tensor")
    assert one.index()[0].state == "UNAVAILABLE"
    await one.close()


async def arrives(one, name, seconds=5.0):
    async with asyncio.timeout(seconds):
        while not any(model.name == name and model.state == "READY" for model in one.index()):
            await asyncio.sleep(0.02)


async def test_a_model_that_arrives_later_serves_within_a_second(tmp_path):
    models, workshop = tmp_path / "models", tmp_path / "workshop"
    models.mkdir()
    workshop.mkdir()
    told = []
    one = host(models, defaults={"classify": "colours"}, awaited=frozenset({"colours", "double"}))
    await one.start(told.append)
    await one.loaded()
    assert one.settled
    for asked in ("", "colours"):
        with pytest.raises(ServiceError, match="headrace models pull colours") as missing:
            one.resolve(asked, "classify")
        assert missing.value.code is grpc.StatusCode.UNAVAILABLE
        assert [detail.type_url.rpartition(".")[2] for detail in missing.value.details().details][-1] == "RetryInfo"
    with pytest.raises(ServiceError) as unknown:
        one.resolve("color", "classify")
    assert unknown.value.code is grpc.StatusCode.NOT_FOUND
    tiny_models.add_colours(workshop)
    (workshop / "colours").rename(models / "colours")
    await arrives(one, "colours", 2.0)
    assert one.resolve("", "classify").name == "colours"
    assert [model.name for model in told] == ["colours"]
    await one.close()


async def test_a_broken_model_is_tried_again_when_its_files_change(tmp_path):
    tiny_models.add_double(tmp_path)
    tiny_models.write(tmp_path / "typo", 'taskz = ["tensor"]\n', (tmp_path / "double/1/model.onnx").read_bytes())
    tiny_models.write(tmp_path / "cut", 'tasks = ["tensor"]\n', b"not a network")
    one = host(tmp_path)
    await one.start()
    await one.loaded()
    states = {model.name: model.state for model in one.index()}
    assert states == {"cut": "UNAVAILABLE", "double": "READY", "typo": "UNAVAILABLE"}
    serving = one.resolve("double", "tensor")
    tiny_models.write(tmp_path / "typo", 'tasks = ["tensor"]\n', (tmp_path / "double/1/model.onnx").read_bytes())
    await arrives(one, "typo")
    # Not finished yet, then gone: neither is anything to talk about for long.
    shutil.rmtree(tmp_path / "cut")
    async with asyncio.timeout(5):
        while one.serves("cut"):
            await asyncio.sleep(0.02)
    assert one.resolve("double", "tensor") is serving
    await one.close()


async def test_a_broken_model_that_turns_out_to_be_anothers_leaves(tmp_path):
    tiny_models.write(tmp_path / "typo", 'taskz = ["tensor"]\n', b"")
    one = host(tmp_path)
    await one.start()
    await one.loaded()
    assert one.serves("typo")
    (tmp_path / "typo/model.toml").write_text('name = "typo"\nservice = "nlp"\ntasks = ["tensor"]\n')
    async with asyncio.timeout(5):
        while one.serves("typo"):
            await asyncio.sleep(0.02)
    await one.close()


async def test_small_models_serve_first(tmp_path):
    tiny_models.add_colours(tmp_path, "a_large_one")
    (tmp_path / "a_large_one/1/notes.bin").write_bytes(bytes(1 << 20))
    tiny_models.add_double(tmp_path)
    told = []
    one = host(tmp_path)
    await one.start(lambda model: told.append(model.name))
    await one.loaded()
    assert told == ["double", "a_large_one"]
    await one.close()
