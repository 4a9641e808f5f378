"""A server on the loopback that answers as the Hugging Face hub does."""

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

COMMIT = "0" * 39 + "1"


@dataclass
class Hub:
    """Files by `owner/name/file`, what was asked, and what to do wrong.

    Attributes:
        truncate: bytes after which a transfer breaks, once.
        lie: promise another checksum than that of the file.
    """

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    truncate: int = 0
    lie: bool = False


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, with_body: bool) -> None:
        path = self.path.split("?")[0].strip("/").replace("/resolve/main/", "/")
        path = path.replace(f"/resolve/{COMMIT}/", "/")
        self.hub.asked.append(f"{self.command} {path}")
        self.close_connection = True
        body = self.hub.files.get(path)
        if body is None:
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.send_header("Connection", "close")
            self.end_headers()
            return
        digest = hashlib.sha256(b"other" if self.hub.lie else body).hexdigest()
        start = int(self.headers.get("Range", "bytes=0-")[6:].split("-")[0]) if with_body else 0
        self.send_response(206 if start else 200)
        self.send_header("ETag", f'"{digest}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(body) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.send_header("Connection", "close")
        self.end_headers()
        if with_body:
            stop = self.hub.truncate or len(body)
            self.hub.truncate = 0
            self.wfile.write(body[start:stop])

    def log_message(self, *arguments: object) -> None:
        """Keep quiet."""


@contextmanager
def serving() -> Iterator[Hub]:
    """Run the server; `Hub.url` is where it listens."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def in_place_of_the_hub(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """Run the server and let this process take it for the hub, with a cache of its own."""
    from huggingface_hub import constants

    with serving() as hub:
        address = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
        yield hub
