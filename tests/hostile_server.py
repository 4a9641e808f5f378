"""An HTTP server on the loopback that serves one file and misbehaves on request."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Behaviour = Callable[["Handler"], None]


@dataclass
class Server:
    """Where it listens, the body it serves, and what it was asked."""

    url: str
    body: bytes
    etag: str = '"v1"'
    requests: list[dict[str, str]] = field(default_factory=list)


class Handler(BaseHTTPRequestHandler):
    """One request; `behave` answers it."""

    protocol_version = "HTTP/1.1"
    state: Server
    behaviours: list[Behaviour]

    def do_GET(self) -> None:
        self.state.requests.append({key.lower(): value for key, value in self.headers.items()})
        behaviours = self.behaviours
        behave = behaviours.pop(0) if len(behaviours) > 1 else behaviours[0]
        self.close_connection = True
        behave(self)

    def start(self, status: int, **headers: object) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.send_header("Connection", "close")
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        """Keep quiet."""


def honest(request: Handler) -> None:
    """Serve the body, or the range asked for while the version is the same."""
    body, asked = request.state.body, request.headers.get("Range")
    version = request.headers.get("If-Range", request.state.etag)
    if asked and version == request.state.etag:
        start = int(asked.removeprefix("bytes=").rstrip("-"))
        if start >= len(body):
            return request.start(416, Content_Length=0)
        rest = body[start:]
        span = f"bytes {start}-{len(body) - 1}/{len(body)}"
        request.start(206, Content_Length=len(rest), Content_Range=span, ETag=request.state.etag)
        request.wfile.write(rest)
        return None
    request.start(200, Content_Length=len(body), ETag=request.state.etag)
    request.wfile.write(body)
    return None


def without_ranges(request: Handler) -> None:
    """Serve the whole body, whatever range was asked for."""
    request.start(200, Content_Length=len(request.state.body))
    request.wfile.write(request.state.body)


def truncating(count: int) -> Behaviour:
    """Announce what is asked for, and close after `count` bytes of it."""

    def behave(request: Handler) -> None:
        body, asked = request.state.body, request.headers.get("Range")
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        headers = {"Content_Length": len(body) - start, "ETag": request.state.etag}
        if asked:
            headers["Content_Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        request.start(206 if asked else 200, **headers)
        request.wfile.write(body[start : start + count])

    return behave


def answering(status: int, **headers: object) -> Behaviour:
    """Answer with a bare status."""
    return lambda request: request.start(status, Content_Length=0, **headers)


def endless(request: Handler) -> None:
    """Send bytes for as long as anybody reads."""
    request.start(200)
    try:
        while True:
            request.wfile.write(b"\0" * 65_536)
    except OSError:
        return


@contextmanager
def serving(body: bytes, *behaviours: Behaviour) -> Iterator[Server]:
    """Serve `body` on the loopback; each request takes the next behaviour, the last one stays."""
    state = Server("", body)
    members = {"state": state, "behaviours": list(behaviours or [honest])}
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), members))
    server.daemon_threads = True
    state.url = f"http://127.0.0.1:{server.server_address[1]}/file.bin"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
