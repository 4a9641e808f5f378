"""Fetching behind the guard: every misbehaviour is counted under its reason and survived."""

import contextlib
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from ovseg.data import guard
from ovseg.data.build.engine import Engine
from ovseg.data.build.inspection import inspect_dataset
from ovseg.data.build.pipeline import BuildOptions, EntityOptions, build_from_source
from ovseg.data.build.sources import Columns, resolve_source
from ovseg.data.dataset.folder import ImageOptions
from ovseg.data.guard import FetchOptions, ascii_address, is_public, reason_of
from ovseg.errors import DataError
from tests.data.build.hostile import Handler, Server, hostile_server

pytest.importorskip("img2dataset")

CASES = {
    "good.jpg": "ok",
    "to-good.jpg": "ok",
    "nowhere.jpg": "HTTP 404",
    "page-as-jpeg.jpg": "a web page, not an image",
    "page.jpg": "a web page, not an image",
    "truncated.jpg": "truncated image",
    "short.jpg": "connection failed",
    "empty.jpg": "empty file",
    "bomb.png": "too many pixels",
    "reserved.jpg": "opted out",
    "tdm.jpg": "opted out",
    "huge.jpg": "file too large",
    "endless.jpg": "file too large",
    "drip.jpg": "response too slow",
    "drip-headers.jpg": "response too slow",
    "silent.jpg": "timed out",
    "closed.jpg": "connection failed",
    "to-loopback.jpg": "private address",
    "to-file.jpg": "bad redirect",
    "loop.jpg": "bad redirect",
}
OTHERS = {
    "file:///etc/passwd": "not http or https",
    "ftp://127.0.0.1/a.jpg": "not http or https",
    "data:image/png;base64,AAAA": "not http or https",
    "no address at all": "not http or https",
    "http://no-such-host.invalid/a.jpg": "host not found",
    "http://[::1/a.jpg": "malformed address",
    "http://[ü/a.jpg": "malformed address",
    "http://127.0.0.1:port/a.jpg": "malformed address",
    "http://10.0.0.1/a.jpg": "private address",
    "http://[::1]/a.jpg": "private address",
    "http://169.254.169.254/latest/meta-data": "private address",
}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with hostile_server() as running:
        yield running


def _options(fetch: FetchOptions, workers: int = 1) -> BuildOptions:
    return BuildOptions(
        EntityOptions("paper100"),
        ImageOptions(short_side=64),
        fetch,
        Engine(workers=workers),
        rows_per_shard=12,
        partners=2,
    )


def _build(folder: Path, addresses: list[str], options: BuildOptions) -> dict[str, str]:
    """Fetch the addresses; the status of each."""
    table = folder / "rows.tsv"
    table.write_text("".join(f"{address}\ta dog\n" for address in addresses))
    columns = Columns(locator="0", captions=("1",))
    source = resolve_source(str(table), "", columns, None)
    build_from_source(source, folder / "data", options)
    rows = pl.read_parquet(str(folder / "data" / "0*.parquet"))
    return dict(rows.select("locator", "status").iter_rows())


def test_every_misbehaviour_has_its_reason(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 127.0.0.1 plays the public internet; what lies behind every other address stays private.
    monkeypatch.setattr(guard, "is_public", lambda ip: ip == "127.0.0.1" or is_public(ip))
    before = getattr(urllib.request, "_opener", None)
    home = f"http://127.0.0.1:{server.server_port}"
    wanted = {f"{home}/{name}": reason for name, reason in CASES.items()} | OTHERS
    fetch = FetchOptions(timeout=3.0, deadline=4.0, max_bytes=100_000)
    assert _build(tmp_path, list(wanted), _options(fetch)) == wanted
    failures = pl.read_parquet(tmp_path / "data" / "failures.parquet")
    assert len(failures) == len(wanted) - 2
    assert getattr(urllib.request, "_opener", None) is before


def test_nothing_private_is_asked_without_leave(server: Server, tmp_path: Path) -> None:
    server.requests.clear()
    hosts = ("127.0.0.1", "localhost", "0.0.0.0", "[::ffff:127.0.0.1]", "2130706433")
    addresses = [f"http://{host}:{server.server_port}/good.jpg" for host in hosts]
    with pytest.raises(
        DataError, match=r"none of 5 images could be had \(5 private address\)"
    ) as told:
        _build(tmp_path, addresses, _options(FetchOptions()))
    assert server.requests == []
    assert "--set fetch.allow_private_hosts=true --retry-failures" in str(told.value)
    leave = replace(_options(FetchOptions(allow_private_hosts=True)), retry_failures=True)
    assert list(_build(tmp_path, addresses, leave).values()).count("ok") >= 2


def test_failures_are_fetched_again_on_request_and_nothing_else(
    server: Server, tmp_path: Path
) -> None:
    home = f"http://127.0.0.1:{server.server_port}"
    addresses = [f"{home}/{name}.jpg" for name in ("good", "later", "good", "nowhere")]
    options = _options(FetchOptions(allow_private_hosts=True))
    assert list(_build(tmp_path, addresses, options).values()) == ["ok", "HTTP 404", "HTTP 404"]
    server.requests.clear()
    _build(tmp_path, addresses, options)
    assert server.requests == []
    Handler.answer_later = Handler.answer_good  # type: ignore[attr-defined]
    found = _build(tmp_path, addresses, replace(options, retry_failures=True))
    assert list(found.values()) == ["ok", "ok", "HTTP 404"]
    assert sorted(server.requests) == ["/later.jpg", "/nowhere.jpg"]
    assert inspect_dataset(tmp_path / "data").faults == []
    assert len(pl.read_parquet(tmp_path / "data" / "index.parquet")) == 3


@pytest.mark.slow
def test_worker_processes_are_guarded_and_a_second_run_fetches_what_is_missing(
    server: Server, tmp_path: Path
) -> None:
    home = f"http://127.0.0.1:{server.server_port}"
    addresses = [f"{home}/good.jpg?{n}" for n in range(20)] + ["file:///etc/passwd"]
    options = _options(FetchOptions(allow_private_hosts=True), workers=2)
    found = _build(tmp_path, addresses, options)
    assert list(found.values()) == ["ok"] * 20 + ["not http or https"]
    bytes_before = (tmp_path / "data" / "000001.tar").read_bytes()
    (tmp_path / "data" / "000001_stats.json").unlink()
    server.requests.clear()
    _build(tmp_path, addresses, options)
    assert sorted(server.requests) == sorted(f"/good.jpg?{n}" for n in range(12, 20))
    assert (tmp_path / "data" / "000001.tar").read_bytes() == bytes_before


def test_the_guard_is_what_keeps_img2dataset_from_reading_files(tmp_path: Path) -> None:
    from img2dataset.downloader import download_image

    from ovseg.data.build.img2dataset_worker import guarded

    secret = tmp_path / "secret"
    secret.write_bytes(b"not yours")
    row = (0, secret.as_uri())
    _, stream, _ = download_image(row, 5, None, None)
    assert stream.read() == b"not yours"
    with guarded(FetchOptions(allow_private_hosts=True)):
        _, stream, message = download_image(row, 5, None, None)
    assert stream is None and reason_of(message) == "not http or https"


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("2606:4700::1111", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("192.168.0.1", False),
        ("172.16.0.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("::1", False),
        ("fe80::1%eth0", False),
        ("fc00::1", False),
        ("::ffff:10.0.0.1", False),
        ("2002:7f00:1::", False),
        ("64:ff9b::7f00:1", False),
        ("64:ff9b::808:808", True),
        ("nonsense", False),
        ("fec0::1", False),
        ("192.0.0.8", False),
        ("192.88.99.1", False),
        ("3fff::1", False),
        ("5f00::1", False),
        ("100:0:0:1::1", False),
        ("64:ff9b:1::808:808", False),
        ("2606:4700::5efe:10.0.0.1", False),
        ("2606:4700::200:5efe:127.0.0.1", False),
        ("2606:4700::5efe:8.8.8.8", True),
    ],
)
def test_public_addresses(address: str, public: bool) -> None:
    assert is_public(address) is public


def test_a_name_with_one_private_address_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("8.8.8.8", 80)),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 80)),
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answers)
    with pytest.raises(guard.RefusedError, match="private address"):
        guard._connect("rebind.example", 80, FetchOptions(), time.monotonic() + 1)


def test_connecting_is_part_of_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Six dead addresses of one name, each of which could take the whole time-out."""
    entry = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("8.8.8.8", 80))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [entry] * 6)
    now = [0.0]
    waited: list[float] = []

    class Dead:
        def __init__(self, *_: object) -> None:
            self._timeout = 0.0

        def settimeout(self, seconds: float) -> None:
            self._timeout = seconds

        def connect(self, _: object) -> None:
            waited.append(self._timeout)
            now[0] += self._timeout
            raise TimeoutError("timed out")

        def close(self) -> None:
            pass

    monkeypatch.setattr(socket, "socket", Dead)
    monkeypatch.setattr(guard.time, "monotonic", lambda: now[0])
    options = FetchOptions(timeout=3.0, deadline=4.0)
    with pytest.raises(OSError, match="response too slow"):
        guard.build_opener(options).open("http://dead.example/a.jpg")
    assert waited == [3.0, 1.0]


def test_a_handshake_that_trickles_is_cut_off() -> None:
    options = FetchOptions(allow_private_hosts=True, timeout=1.0, deadline=60.0)
    stop = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def trickle() -> None:
            connection, _ = listener.accept()
            with connection, contextlib.suppress(OSError):
                connection.sendall(b"\x16\x03\x03\x40\x00")  # a TLS record of 16 kB begins
                while not stop.wait(0.1):
                    connection.sendall(b"x")

        thread = threading.Thread(target=trickle, daemon=True)
        thread.start()
        address = f"https://127.0.0.1:{listener.getsockname()[1]}/a.jpg"
        with pytest.raises(urllib.error.URLError) as raised:
            guard.build_opener(options).open(address, timeout=1.0)
        stop.set()
        thread.join()
    assert reason_of(str(raised.value)) == "timed out"


def test_addresses_beyond_ascii_can_be_sent() -> None:
    assert ascii_address("http://bücher.example/ä b.jpg?q=ö") == (
        "http://xn--bcher-kva.example/%C3%A4%20b.jpg?q=%C3%B6"
    )
    assert ascii_address("http://a/%20") == "http://a/%20"
    assert ascii_address("http://[ü") == "http://[ü"


def test_reasons() -> None:
    assert reason_of("HTTP Error 503: Service Unavailable") == "HTTP 503"
    assert reason_of("<urlopen error [Errno 111] Connection refused>") == "connection failed"
    assert reason_of("certificate verify failed") == "TLS failure"
    assert reason_of("something new") == "other network failure"
