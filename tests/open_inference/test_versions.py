"""Versions that come, go and fail under a running host."""

import asyncio
import contextlib
import shutil
import time

import grpc
import numpy as np
import pytest

from engines.repository import Repository
from engines.work import Work
from services.chassis import memory
from services.chassis.errors import ServiceError
from services.chassis.models import HostOptions, ModelHost
from tests.chassis.multiples import add_version, network, remove_version
from tests.vision import tiny_models

X = np.ones((1, 4), np.float32)


@contextlib.asynccontextmanager
async def host(models):
    """A host of the service "vision" that has loaded what is there."""
    one = ModelHost(Repository(models), HostOptions("vision"))
    await one.start()
    await one.loaded()
    try:
        yield one
    finally:
        await one.close()


async def ask(one, reference="times"):
    """One call in a task of its own, as rpcs are: what x = 1 gives, which is the version's number."""

    async def call():
        model = one.resolve(reference, "tensor")
        await asyncio.sleep(0)
        outcome = await one.infer(model, Work({"x": X}, 1))
        assert model.version == str(int(outcome.outputs["y"][0, 0]))
        return model.version

    return await asyncio.create_task(call())


async def until(condition, seconds=5.0):
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


def states(one, name="times"):
    return {model.version: model.state for model in one.index() if model.name == name}


async def refused(awaitable):
    with pytest.raises(ServiceError) as caught:
        await awaitable
    return caught.value


async def test_a_new_version_takes_the_calls_and_older_ones_answer_by_number(tmp_path):
    add_version(tmp_path, 1)
    async with host(tmp_path) as one:
        assert await ask(one) == "1"
        add_version(tmp_path, 2)
        add_version(tmp_path, 10)
        await until(lambda: states(one) == {"1": "READY", "2": "READY", "10": "READY"})
        assert await ask(one) == "10"
        assert [await ask(one, f"times@{version}") for version in (1, 2, 10)] == ["1", "2", "10"]
        # The newest goes: the one before answers again.
        remove_version(tmp_path, 10)
        await until(lambda: "10" not in states(one))
        assert await ask(one) == "2"
        gone = await refused(ask(one, "times@10"))
        assert (gone.code, gone.reason) == (grpc.StatusCode.NOT_FOUND, "MODEL_VERSION_NOT_FOUND")


async def test_a_broken_version_leaves_the_old_serving_and_is_tried_again_when_it_changes(tmp_path):
    add_version(tmp_path, 1)
    async with host(tmp_path) as one:
        add_version(tmp_path, 2, b"no network")
        await until(lambda: states(one).get("2") == "UNAVAILABLE")
        assert "cannot load it" in one.find("times", "2")[0].reason
        assert await ask(one) == "1"
        assert "cannot load it" in (await refused(ask(one, "times@2"))).message
        (tmp_path / "times/2/model.onnx").write_bytes(network(2))
        await until(lambda: states(one)["2"] == "READY")
        assert await ask(one) == "2"


async def test_a_manifest_that_breaks_with_a_new_version_is_that_versions_fault(tmp_path):
    add_version(tmp_path, 1)
    async with host(tmp_path) as one:
        manifest = tmp_path / "times/model.toml"
        good = manifest.read_text()
        manifest.write_text(good.replace("tasks", "taskz"))
        add_version(tmp_path, 2)
        await until(lambda: states(one) == {"1": "READY", "2": "UNAVAILABLE"})
        assert "taskz" in one.find("times", "2")[0].reason
        assert await ask(one) == "1"
        manifest.write_text(good)
        await until(lambda: states(one) == {"1": "READY", "2": "READY"})
        assert await ask(one) == "2"


async def test_a_version_at_the_start_that_is_broken_does_not_hide_the_one_before(tmp_path):
    add_version(tmp_path, 1)
    add_version(tmp_path, 2, b"no network")
    async with host(tmp_path) as one:
        assert states(one) == {"1": "READY", "2": "UNAVAILABLE"}
        assert await ask(one) == "1"


async def test_the_last_version_that_serves_stays_when_its_folder_goes(tmp_path):
    add_version(tmp_path, 1)
    async with host(tmp_path) as one:
        shutil.rmtree(tmp_path / "times/1")
        await asyncio.sleep(1.2)
        assert await ask(one) == "1"
        add_version(tmp_path, 2)
        await until(lambda: states(one) == {"2": "READY"})
        assert await ask(one) == "2"


async def test_a_call_ends_on_the_version_that_it_began_with(tmp_path):
    """It has resolved the version and computes nothing yet when the version's folder goes."""
    add_version(tmp_path, 1)
    add_version(tmp_path, 2)
    async with host(tmp_path) as one:
        going, begun = asyncio.Event(), asyncio.Event()

        async def slow_call():
            model = one.resolve("times", "tensor")
            begun.set()
            await going.wait()
            return (await one.infer(model, Work({"x": X}, 1))).outputs["y"][0, 0]

        call = asyncio.create_task(slow_call())
        await begun.wait()
        (held,) = one.find("times", "2")
        remove_version(tmp_path, 2)
        await until(lambda: "2" not in states(one))
        assert await ask(one) == "1"
        await asyncio.sleep(0.1)
        assert held.state == "UNLOADING"
        going.set()
        assert await call == 2.0
        await until(lambda: held.state == "UNAVAILABLE" and held.batcher is None)


async def test_unloading_lets_calls_end_then_refuses_and_loading_brings_it_back(tmp_path):
    tiny_models.add_slow(tmp_path, 0.3)
    async with host(tmp_path) as one:

        async def call():
            return await one.infer(one.resolve("slow", "tensor"), Work({"x": X}, 1))

        running = asyncio.create_task(call())
        await asyncio.sleep(0.05)
        unloading = asyncio.create_task(one.unload("slow"))
        await until(lambda: states(one, "slow") == {"1": "UNLOADING"})
        assert not running.done()
        error = await refused(asyncio.create_task(call()))
        assert (error.code, error.reason) == (grpc.StatusCode.UNAVAILABLE, "MODEL_UNAVAILABLE")
        assert "headrace models load slow" in error.message
        await unloading
        assert running.done()
        assert (await running).outputs["y"][0, 0] == 2.0
        assert states(one, "slow") == {"1": "UNAVAILABLE"}
        await asyncio.sleep(0.7)  # Watching does not undo it.
        assert "headrace models load slow" in (await refused(asyncio.create_task(call()))).message
        await one.load("slow")
        assert (await asyncio.create_task(call())).outputs["y"][0, 0] == 2.0


async def test_unloading_the_newest_version_is_the_way_back(tmp_path):
    add_version(tmp_path, 1)
    add_version(tmp_path, 2)
    async with host(tmp_path) as one:
        await one.unload("times", "2")
        assert await ask(one) == "1"
        await one.load("times")
        assert await ask(one) == "2"
        await one.unload("times")
        assert states(one) == {"1": "UNAVAILABLE", "2": "UNAVAILABLE"}
        add_version(tmp_path, 3)
        await until(lambda: "3" in states(one))
        assert states(one)["3"] == "UNAVAILABLE"
        await one.load("times", "1")
        assert await ask(one) == "1"
        for missing in (one.load("times", "7"), one.unload("times", "7"), one.load("tines"), one.unload("tines")):
            assert (await refused(missing)).code is grpc.StatusCode.NOT_FOUND


async def test_what_changes_beside_a_version_that_is_loaded_by_call_is_noticed_too(tmp_path):
    add_version(tmp_path, 2)
    async with host(tmp_path) as one:
        remove_version(tmp_path, 2)
        add_version(tmp_path, 1)
        add_version(tmp_path, 3)
        await one.load("times")
        await until(lambda: states(one) == {"1": "READY", "3": "READY"})


async def test_loading_takes_changed_files_behind_the_calls_or_says_why_not(tmp_path):
    add_version(tmp_path, 1)
    async with host(tmp_path) as one:
        before = one.find("times", "1")[0]
        assert await one.load("times") is before
        (tmp_path / "times/1/model.onnx").write_bytes(b"no network")
        error = await refused(one.load("times"))
        assert (error.code, error.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "MODEL_LOAD_FAILED")
        assert "cannot load it" in error.message
        assert one.find("times", "1") == [before]
        assert await ask(one) == "1"
        (tmp_path / "times/1/model.onnx").write_bytes(network(5))
        after = await one.load("times")
        outcome = await one.infer(one.resolve("times", "tensor"), Work({"x": X}, 1))
        assert outcome.outputs["y"][0, 0] == 5.0
        await until(lambda: before.batcher is None)
        assert after is not before


async def test_a_version_that_would_not_fit_into_memory_is_refused_before_it_is_read(tmp_path, monkeypatch):
    add_version(tmp_path, 1)
    async with host(tmp_path) as one:
        size = len(network(2))
        monkeypatch.setattr(memory, "available", lambda: 2.0 * size - 1)
        add_version(tmp_path, 2)
        assert "MB are left; unload a version" in (await refused(one.load("times"))).message
        assert await ask(one) == "1"
        monkeypatch.setattr(memory, "available", lambda: 2.0 * size)
        await one.load("times")
        assert await ask(one) == "2"


async def test_a_hundred_swaps_under_load_fail_no_call(tmp_path):
    """Callers without a pause, some with calls that hold their version for a while, versions coming and going."""
    add_version(tmp_path, 1)
    async with host(tmp_path) as one:
        seen, stop = [], asyncio.Event()

        async def caller(pause):
            while not stop.is_set():

                async def call():
                    model = one.resolve("times", "tensor")
                    await asyncio.sleep(pause)
                    outcome = await one.infer(model, Work({"x": X}, 1))
                    assert outcome.outputs["y"][0, 0] == float(model.version)
                    return int(model.version)

                seen.append(await asyncio.create_task(call()))
                await asyncio.sleep(0)

        callers = [asyncio.create_task(caller(pause)) for pause in (0.0, 0.001, 0.02)]
        started = time.monotonic()
        for version in range(2, 102):
            add_version(tmp_path, version)
            await one.load("times")
            remove_version(tmp_path, version - 1)
        assert await ask(one) == "101"
        stop.set()
        await asyncio.gather(*callers)
        assert len(set(seen)) > 50, time.monotonic() - started
        await until(lambda: states(one) == {"101": "READY"})
