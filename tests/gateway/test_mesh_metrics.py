import asyncio

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway.mesh_metrics import collect, merge
from gateway.plain_http import HttpError, fetch, serve_page

ONE = """# HELP calls_total Calls.
# TYPE calls_total counter
calls_total{method="a"} 1.0
calls_total{method="b"} 2.0
# TYPE open_fds gauge
open_fds 7
"""
TWO = """# TYPE calls_total counter
calls_total{} 5
# TYPE latency histogram
latency_bucket{le="+Inf"} 3
latency_sum 0.5
latency_count 3
"""


def test_families_are_merged_under_one_heading_and_every_sample_says_whose_it_is() -> None:
    text = merge({"vision-0": ONE, "envoy": TWO})
    assert text.count("# TYPE calls_total") == 1
    families = {family.name: family for family in text_string_to_metric_families(text)}
    calls = {(s.labels["process"], s.labels.get("method")): s.value for s in families["calls"].samples}
    assert calls == {("vision-0", "a"): 1.0, ("vision-0", "b"): 2.0, ("envoy", None): 5.0}
    assert [s.labels["process"] for s in families["open_fds"].samples] == ["vision-0"]
    assert {s.name for s in families["latency"].samples} == {"latency_bucket", "latency_sum", "latency_count"}
    assert merge({}) == ""


async def test_one_that_is_down_costs_only_its_own_part() -> None:
    async def page() -> str:
        return ONE

    server = await serve_page("127.0.0.1:0", "/metrics", page)
    port = server.sockets[0].getsockname()[1]
    try:
        pages = {
            "up": (f"127.0.0.1:{port}", "/metrics"),
            "down": ("127.0.0.1:1", "/"),
            "odd": (f"127.0.0.1:{port}", "/"),
        }
        text = await collect(pages, {"own": TWO})
    finally:
        server.close()
    assert 'calls_total{process="up",method="a"} 1.0' in text
    for name, up in {"up": 1, "down": 0, "odd": 0, "own": 1}.items():
        assert f'headrace_process_up{{process="{name}"}} {up}' in text


async def test_fetch_reads_chunks_and_says_what_failed() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    assert (await fetch(f"127.0.0.1:{port}", "/")).body == b"abcde"
    server.close()
    with pytest.raises(HttpError, match=r"127\.0\.0\.1:1/x"):
        await fetch("127.0.0.1:1", "/x")
