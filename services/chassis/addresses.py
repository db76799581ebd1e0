"""Addresses to listen on: checked before gRPC binds them, which reports little and steals a living UNIX socket."""

import contextlib
import errno
import os
import socket
from pathlib import Path
from typing import Final

#: Bytes that fit sockaddr_un.sun_path.
UNIX_PATH_LIMIT: Final = 107


class StartError(Exception):
    """A process cannot start; the text is one line for the user: what is wrong and what to do."""


def split(address: str) -> tuple[str, int]:
    """Host and port of "host:port" or "[ipv6]:port"."""
    host, _, port = address.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), int(port)


def parse(address: str) -> str:
    """Return `address` if it is "host:port", "[ipv6]:port" or "unix:/path". Raises ValueError that says what is."""
    if address.startswith("unix:"):
        if not address.startswith("unix:/"):
            raise ValueError(f"'{address}' needs an absolute path, such as 'unix:/run/headrace.sock'")
        return address
    host, colon, port = address.rpartition(":")
    if not (colon and host and port.isascii() and port.isdigit() and int(port) <= 65535):
        raise ValueError(f"'{address}' is no address, write 'host:port' with a port of 0 to 65535, or 'unix:/path'")
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        raise ValueError(f"'{address}' has an IPv6 host, which stands in brackets, such as '[::1]:8080'")
    return address


def check_free(address: str) -> None:
    """Raise StartError when nobody could listen on `address`; remove a dead process's UNIX socket."""
    try:
        parse(address)
    except ValueError as error:
        raise StartError(f"cannot listen: {error}") from None
    if address.startswith("unix:"):
        _check_socket(Path(address.removeprefix("unix:")), address)
        return
    host, port = split(address)
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(place)
            probe.listen()  # With SO_REUSEADDR two may bind, but not listen.
    except socket.gaierror:
        raise StartError(f"cannot listen on {address}: there is no host {host}") from None
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            message = f"cannot listen on {address}: the port is in use; stop the other process or choose another port"
            raise StartError(message) from None
        raise StartError(f"cannot listen on {address}: {os.strerror(error.errno or 0)}") from None


def remove_socket(address: str) -> None:
    """Remove the socket file of "unix:/path". Idempotent."""
    with contextlib.suppress(OSError):
        Path(address.removeprefix("unix:")).unlink(missing_ok=True)


def _check_socket(path: Path, address: str) -> None:
    if len(os.fsencode(path)) > UNIX_PATH_LIMIT:
        raise StartError(f"cannot listen on {address}: a UNIX socket's path has at most {UNIX_PATH_LIMIT} bytes")
    if not path.parent.is_dir():
        raise StartError(f"cannot listen on {address}: there is no folder {path.parent}")
    if not path.exists():
        return
    if not path.is_socket():
        raise StartError(f"cannot listen on {address}: the path exists and is no socket")
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
        except OSError as error:
            raise StartError(f"cannot listen on {address}: {os.strerror(error.errno or 0)}") from None
        else:
            raise StartError(f"cannot listen on {address}: another process listens there; stop it first")
