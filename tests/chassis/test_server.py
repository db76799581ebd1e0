import asyncio
import json
import os
import signal
import socket
import sys
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from services.chassis.addresses import StartError, check_free
from services.chassis.server import Options, Process

ROOT = Path(__file__).resolve().parents[2]


def read(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=5) as page:  # noqa: S310  # Our own page.
        return page.read()


def reason(error: grpc.aio.AioRpcError) -> str:
    status = status_pb2.Status.FromString(dict(error.trailing_metadata())["grpc-status-details-bin"])
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    return info.reason


async def test_the_run_file_says_where(serve, tmp_path):
    async with serve() as running:
        assert running.facts["name"] == "test-0"
        assert running.facts["pid"] == os.getpid()
        assert not running.address.endswith(":0")
        page = await asyncio.to_thread(read, running.facts["metrics"])
        assert b"rpc_server_call_duration_seconds" in page
    assert list(tmp_path.glob("*")) == []
    assert running.host.closed


async def test_draining_loses_nothing_in_flight(serve, tools):
    async with serve() as running:
        go = asyncio.Event()

        async def answer(request, call):
            await go.wait()
            return tools.pb.ModelReadyResponse(ready=True)

        running.servicer.answer = answer
        ready = running.model_ready()
        calls = [asyncio.ensure_future(ready(tools.pb.ModelReadyRequest())) for _ in range(20)]
        await tools.poll(lambda: running.process.gate.active == 20)
        running.process.stop()
        await tools.poll(lambda: running.process.gate.closed)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await ready(tools.pb.ModelReadyRequest())
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert reason(caught.value) == "DRAINING"
        assert not running.run.done()
        go.set()
        assert all([(await call).ready for call in calls])
        await asyncio.wait_for(running.run, 5)


async def test_what_is_on_its_way_when_the_drain_begins_is_answered(serve, tools):
    async with serve(settle=0.5) as running:
        ready = running.model_ready()
        await ready(tools.pb.ModelReadyRequest())
        running.process.stop()
        answers = await asyncio.gather(*(ready(tools.pb.ModelReadyRequest()) for _ in range(50)))
        assert len(answers) == 50
        await asyncio.wait_for(running.run, 5)


async def test_draining_finishes_what_a_stream_has_sent(serve, tools):
    async with serve() as running:
        stream = running.stream()
        await stream.write(tools.pb.ModelInferRequest(id="a"))
        assert (await stream.read()).infer_response.id == "a"
        running.process.stop()
        assert (await stream.read()).infer_response.id == "last"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stream.read()
        assert reason(caught.value) == "DRAINING"
        await asyncio.wait_for(running.run, 5)


async def test_draining_leaves_a_stream_alone_that_has_said_everything(serve, tools):
    async with serve() as running:
        running.servicer.go_on.clear()
        stream = running.stream()
        await stream.write(tools.pb.ModelInferRequest(id="a"))
        await stream.done_writing()
        assert (await stream.read()).infer_response.id == "a"
        await tools.poll(lambda: not running.process.gate.waiting_streams)
        running.process.stop()
        await tools.poll(lambda: running.process.gate.closed)
        running.servicer.go_on.set()
        assert (await stream.read()).infer_response.id == "last"
        assert await stream.read() is grpc.aio.EOF
        assert await stream.code() is grpc.StatusCode.OK


async def test_grace_has_an_end(serve, tools):
    async with serve(grace=0.1) as running:
        running.servicer.answer = lambda request, call: asyncio.sleep(60)
        call = running.model_ready()(tools.pb.ModelReadyRequest())
        await running.servicer.entered.wait()
        running.process.stop()
        await asyncio.wait_for(running.run, 5)
        with pytest.raises(grpc.aio.AioRpcError):
            await call


async def test_a_port_in_use_is_one_line():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(StartError, match=f"^cannot listen on {address}: the port is in use; .*$"):
            check_free(address)


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("nowhere.invalid:80", "no host nowhere.invalid"),
        ("192.0.2.1:80", "annot assign"),
        ("here", "is no address"),
        ("unix:relative.sock", "absolute"),
        ("unix:/no/such/folder/a.sock", "no folder"),
        ("unix:/tmp/" + "x" * 120, "at most 107 bytes"),
    ],
)
def test_where_nobody_can_listen(address, words):
    with pytest.raises(StartError, match=words):
        check_free(address)


async def test_a_run_folder_that_is_not_there_is_one_line(serve, tmp_path):
    with pytest.raises(StartError, match="there is no folder"):
        async with serve(run_dir=tmp_path / "no"):
            pass


async def test_a_dead_socket_is_replaced_and_a_living_one_is_not(serve, tools, tmp_path):
    path = tmp_path / "s.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    async with serve(listen=f"unix:{path}") as running:
        assert (await running.model_ready()(tools.pb.ModelReadyRequest())).ready
        with pytest.raises(StartError, match="another process listens there"):
            check_free(f"unix:{path}")
        assert (await running.model_ready()(tools.pb.ModelReadyRequest())).ready
    assert not path.exists()


async def test_a_process_that_loads_can_be_stopped(tools, tmp_path):
    class Slow:
        closed = False

        async def start(self, arrived: object) -> None: ...

        async def loaded(self) -> None:
            await asyncio.sleep(60)

        def index(self) -> list[object]:
            return []

        async def drain(self) -> None: ...

        async def close(self) -> None:
            self.closed = True

    host, process = Slow(), Process(Options("slow", "127.0.0.1:0", tmp_path))
    run = asyncio.create_task(process.run([], host))
    await asyncio.sleep(0)
    process.stop()
    await asyncio.wait_for(run, 5)
    assert host.closed
    assert not (tmp_path / "slow.json").exists()


async def test_sigterm_drains_a_real_process(tmp_path, tools):
    (tmp_path / "models").mkdir()
    (tmp_path / "headrace.toml").write_text("[services.vision]\n")

    async def vision(*arguments: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", "from cli.serve import app; app()", "vision", "--config", "headrace.toml"),
            *arguments,
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'clients/python'}"},
            stderr=asyncio.subprocess.PIPE,
        )

    child = await vision("--listen", "127.0.0.1:0", "--run-dir", ".", "--name", "v")
    try:
        file = tmp_path / "v.json"
        await tools.poll(lambda: file.exists() or child.returncode is not None, within=20)
        facts = json.loads(file.read_text())
        assert facts["pid"] == child.pid
        second = await vision("--listen", facts["listen"])
        _, words = await asyncio.wait_for(second.communicate(), 20)
        assert second.returncode == 1
        assert words.decode().startswith(f"error: cannot listen on {facts['listen']}: the port is in use")
        assert words.count(b"\n") == 1
        child.send_signal(signal.SIGTERM)
        _, log = await asyncio.wait_for(child.communicate(), 10)
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    assert child.returncode == 0
    lines = [json.loads(line) for line in log.splitlines()]
    assert {line["process"] for line in lines} == {"v"}
    assert any("drains" in line["message"] for line in lines)


class Loads:
    """A host whose one model is loading until `finish`."""

    def __init__(self, state: str = "READY") -> None:
        self.model = SimpleNamespace(name="m", version="1", state="LOADING", batcher=None)
        self.final = state
        self.done = asyncio.Event()

    async def start(self, arrived):
        self.arrived = arrived

    async def loaded(self):
        await self.done.wait()

    def index(self):
        return [self.model]

    async def drain(self): ...

    async def close(self): ...

    def finish(self):
        self.model.state = self.final
        self.model.batcher = SimpleNamespace(queued_rows=0)
        if self.final == "READY":
            self.arrived(self.model)
        self.done.set()


@pytest.mark.parametrize(
    ("peers", "final", "while_loading", "loaded"),
    [(False, "READY", 1, 1), (False, "UNAVAILABLE", 1, 1), (True, "READY", 2, 1), (True, "UNAVAILABLE", 2, 2)],
)
async def test_a_process_says_serving_before_its_models_do_unless_others_can_answer(
    tools, tmp_path, peers, final, while_loading, loaded
):
    host, process = Loads(final), Process(Options("one", "127.0.0.1:0", tmp_path, peers=peers))
    run = asyncio.create_task(process.run([], host))
    await tools.poll((tmp_path / "one.json").exists)
    await asyncio.sleep(0.05)
    assert process.health.status("") == while_loading
    host.finish()
    await asyncio.sleep(0.05)
    assert process.health.status("") == loaded
    # What arrives later is of use in any case.
    host.arrived(host.model)
    assert process.health.status("") == 1
    process.stop()
    await asyncio.wait_for(run, 5)
