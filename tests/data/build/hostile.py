"""A web server on this machine that misbehaves in every way the guard must survive."""

import io
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.data.pictures import picture

PICTURE = picture(7, (120, 90))


def bomb() -> bytes:
    """A PNG of a few bytes whose header claims 2.5 gigapixels."""
    stream = io.BytesIO()
    stream.write(b"\x89PNG\r\n\x1a\n")
    for kind, data in (
        (b"IHDR", struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(bytes(1000))),
        (b"IEND", b""),
    ):
        stream.write(struct.pack(">I", len(data)) + kind + data)
        stream.write(struct.pack(">I", zlib.crc32(kind + data)))
    return stream.getvalue()


class Handler(BaseHTTPRequestHandler):
    """One misbehaviour per path."""

    def do_GET(self) -> None:
        self.server.requests.append(self.path)
        name = self.path.strip("/").split(".")[0].split("?")[0].replace("-", "_")
        with suppress(BrokenPipeError, ConnectionResetError):
            getattr(self, f"answer_{name}", self.answer_missing)()

    def log_message(self, *_: object) -> None:
        pass

    def _send(self, data: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for key, value in ({"Content_Type": "image/jpeg"} | headers).items():
            self.send_header(key.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)

    def answer_good(self) -> None:
        self._send(PICTURE)

    def answer_slow(self) -> None:
        time.sleep(0.03)
        self._send(PICTURE)

    def answer_missing(self) -> None:
        self._send(b"gone", 404)

    def answer_page_as_jpeg(self) -> None:
        self._send(b"<!DOCTYPE html><html>not here</html>")

    def answer_page(self) -> None:
        self._send(b"<html></html>", Content_Type="text/html; charset=utf-8")

    def answer_truncated(self) -> None:
        self._send(PICTURE[: len(PICTURE) // 2])

    def answer_short(self) -> None:
        self._send(PICTURE[:100], Content_Length=str(len(PICTURE)))

    def answer_empty(self) -> None:
        self._send(b"")

    def answer_bomb(self) -> None:
        self._send(bomb(), Content_Type="image/png")

    def answer_reserved(self) -> None:
        self._send(PICTURE, X_Robots_Tag="noai")

    def answer_tdm(self) -> None:
        self._send(PICTURE, TDM_Reservation="1")

    def answer_huge(self) -> None:
        self._send(PICTURE, Content_Length=str(10**12))

    def answer_endless(self) -> None:
        self._send(b"")
        while True:
            self.wfile.write(bytes(1 << 14))

    def answer_drip(self) -> None:
        self._send(b"")
        while True:
            self.wfile.write(b"x")
            time.sleep(0.1)

    def answer_drip_headers(self) -> None:
        self.wfile.write(b"HTTP/1.0 200 OK\r\n")
        while True:
            self.wfile.write(b"X")
            time.sleep(0.1)

    def answer_silent(self) -> None:
        time.sleep(8)

    def answer_closed(self) -> None:
        self.connection.close()

    def answer_to_good(self) -> None:
        self._send(b"", 302, Location="/good.jpg")

    def answer_to_loopback(self) -> None:
        self._send(b"", 302, Location=f"http://127.0.0.2:{self.server.server_port}/good.jpg")

    def answer_to_file(self) -> None:
        self._send(b"", 302, Location="file:///etc/passwd")

    def answer_loop(self) -> None:
        self._send(b"", 302, Location="/loop.jpg")


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64
    requests: list[str]


@contextmanager
def hostile_server() -> Iterator[Server]:
    """The server, running, on 127.0.0.1 and every other loopback address."""
    server = Server(("0.0.0.0", 0), Handler)
    server.requests = []
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
