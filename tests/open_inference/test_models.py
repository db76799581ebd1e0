import asyncio
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
    assert every.ready
    assert not some.ready
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

    name, folder, versions, error = "dying", Path(), (1,), None

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
    model = one.resolve("dying", "tensor")
    assert (await one.infer(model, Work({"x": np.ones((1, 4), np.float32)}, 1))).rows == 1
    await refused(one.infer(model, Work({"x": np.full((1, 4), 2, np.float32)}, 1)))
    lost = await refused(one.infer(model, Work({"x": np.ones((1, 4), np.float32)}, 1)))
    assert (lost.code, lost.reason) == (grpc.StatusCode.UNAVAILABLE, "MODEL_UNAVAILABLE")
    assert "engines have stopped" in lost.message
    with pytest.raises(ServiceError, match="engines have stopped"):
        one.resolve("dying", "tensor")
    assert not one.ready
    await one.close()
