"""Where an application listens, and how it stops."""

import ipaddress
import socket
from collections.abc import Callable
from typing import Any

from ovseg.errors import DataError, UsageError

LOOPBACK = "127.0.0.1"
_IDLE = 10  # seconds that a connection may wait for its next request


def is_local(host: str) -> bool:
    """Whether only this machine reaches what listens at a host."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Args:
        host: a name or an address of this machine.
        port: 0 takes one that is free.

    Raises:
        UsageError: there is no such port.
        DataError: the address is not this machine's, or is taken.
    """
    if not 0 <= port < 1 << 16:
        raise UsageError(f"port {port}: must be from 0 to 65535")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=256)
    except OSError as error:
        reason = error.strerror or str(error)
        raise DataError(
            f"{host}:{port}: cannot listen there ({reason}): choose another --host or --port"
        ) from error


def url_of(listening: socket.socket) -> str:
    """The address of what listens."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def guarded(app: Any, host: str) -> Any:
    """The application; on this machine alone only for pages that know it by such a name.

    A page from elsewhere could otherwise ask it through a name that leads here.
    """
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    if not is_local(host) or ":" in host:
        return app
    return TrustedHostMiddleware(app, [LOOPBACK, "localhost", host])


def run(
    make: Callable[[], Any],
    host: str,
    port: int,
    seconds: float,
    on_start: Callable[[str], None],
) -> None:
    """Make an application and run it, as `serve`; a port that is taken is told before.

    Args:
        make: gives the application.
        host, port, seconds: as `listen` and `serve` take them.
        on_start: called with the address.
    """
    with listen(host, port) as listening:
        address = url_of(listening)
        serve(guarded(make(), host), listening, seconds, lambda: on_start(address))


def serve(app: Any, listening: socket.socket, seconds: float, on_start: Callable[[], None]) -> None:
    """Run an ASGI application until SIGINT or SIGTERM; what is in hand is answered first.

    Args:
        app: the application.
        listening: where.
        seconds: that may take.
        on_start: called when requests are answered.
    """
    import uvicorn

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if not self.should_exit:
                on_start()

    config = uvicorn.Config(
        app,
        access_log=False,
        log_level="error",
        server_header=False,
        timeout_keep_alive=_IDLE,
        timeout_graceful_shutdown=int(seconds) + 1,
        ws="none",
    )
    Server(config).run([listening])
