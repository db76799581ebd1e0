"""Whether the public port can be had, asked before anything starts."""

import errno
import socket

from gateway.plain_http import split_address


class CannotStartError(Exception):
    """The mesh cannot start as configured; the text is one line that says what to do."""


def check_port_free(listen: str) -> None:
    """Raise CannotStartError when `listen` ("host:port") cannot be bound. Port 0 is always free."""
    host, port = split_address(listen)
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            # A listener in TIME_WAIT may be bound over, a live one refuses only here.
            probe.listen(1)
    except socket.gaierror as error:
        raise CannotStartError(f"gateway.listen: {host!r} is no address of this machine ({error.strerror})") from None
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise CannotStartError(
                f"{listen} is in use by another program; change gateway.listen or pass --listen HOST:PORT"
            ) from None
        raise CannotStartError(
            f"cannot listen on {listen}: {error.strerror}; change gateway.listen or pass --listen HOST:PORT"
        ) from None


def free_port(listen: str) -> str:
    """Return `listen` with port 0 replaced by a port that is free now; raise CannotStartError when there is none."""
    host, port = split_address(listen)
    if port:
        return listen
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.bind(address)
            return f"{listen.rpartition(':')[0]}:{probe.getsockname()[1]}"
    except OSError as error:
        raise CannotStartError(
            f"cannot listen on {listen}: {error.strerror}; name an address of this machine"
        ) from None
