"""Just enough HTTP/1.1 for a mesh's private pages: read one over TCP or a UNIX socket, serve one."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

_MAX_HEAD = 16 * 1024
_FETCH_SECONDS = 2.0


class HttpError(Exception):
    """The page could not be read; the text says why."""


@dataclass(frozen=True, slots=True)
class Page:
    """An answer: its status and body."""

    status: int
    body: bytes


async def fetch(address: str, path: str, method: str = "GET") -> Page:
    """Read `path` from "unix:/path" or "host:port"; raise HttpError when that fails or takes over 2 s."""
    request = f"{method} {path} HTTP/1.1\r\nHost: headrace\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    try:
        async with asyncio.timeout(_FETCH_SECONDS):
            reader, writer = await connect(address)
            try:
                writer.write(request.encode())
                answer = await reader.read(-1)
            finally:
                writer.close()
    except (OSError, TimeoutError) as error:
        raise HttpError(f"{address}{path}: {error or 'no answer in time'}") from error
    return _parse(answer, f"{address}{path}")


async def connect(address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a connection to "unix:/path" or "host:port"."""
    if address.startswith("unix:"):
        return await asyncio.open_unix_connection(address.removeprefix("unix:"))
    host, port = split_address(address)
    return await asyncio.open_connection(host, port)


def split_address(address: str) -> tuple[str, int]:
    """Split "host:port" or "[::1]:port"."""
    host, _, port = address.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), int(port)


async def serve_page(listen: str, path: str, render: Callable[[], Awaitable[str]]) -> asyncio.Server:
    """Serve the text that `render` makes at `path` of "host:port"; every other path is 404. Raises OSError."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(10.0):
                head = await reader.readuntil(b"\r\n\r\n")
                method, target = [*head.split(b"\r\n", 1)[0].split(b" "), b""][:2]
                found = method in {b"GET", b"HEAD"} and target.split(b"?")[0] == path.encode()
                body = (await render() if found else f"see {path}\n").encode()
                writer.write(_head(200 if found else 404, len(body)) + (b"" if method == b"HEAD" else body))
                await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # the reader has gone or speaks something else
        finally:
            writer.close()

    host, port = split_address(listen)
    return await asyncio.start_server(answer, host, port, limit=_MAX_HEAD)


def _head(status: int, length: int) -> bytes:
    reason = "OK" if status == 200 else "Not Found"
    return (
        f"HTTP/1.1 {status} {reason}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"
        f"Content-Length: {length}\r\nConnection: close\r\n\r\n"
    ).encode()


def _parse(answer: bytes, where: str) -> Page:
    head, separator, body = answer.partition(b"\r\n\r\n")
    words = head.split(b"\r\n", 1)[0].split(b" ")
    if not separator or len(words) < 2 or not words[1].isdigit():
        raise HttpError(f"{where}: not an HTTP answer")
    if b"transfer-encoding: chunked" in head.lower():
        body = _join_chunks(body)
    return Page(int(words[1]), body)


def _join_chunks(body: bytes) -> bytes:
    parts = []
    while body:
        size, _, body = body.partition(b"\r\n")
        length = int(size.split(b";")[0] or b"0", 16)
        if length == 0:
            break
        parts.append(body[:length])
        body = body[length + 2 :]
    return b"".join(parts)
