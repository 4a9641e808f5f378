"""Downloads against a server that breaks every promise it can."""

import hashlib
import urllib.request
from email.message import Message
from pathlib import Path

import pytest

from ovseg import transfer
from ovseg.downloads import Remote, bytes_missing, fetch, is_here, show_size, target
from ovseg.errors import DownloadError
from tests.hostile_server import (
    Server,
    answering,
    endless,
    honest,
    serving,
    truncating,
    without_ranges,
)

BODY = bytes(range(256)) * 4096  # 1 MiB: several chunks
SHA = hashlib.sha256(BODY).hexdigest()


@pytest.fixture(autouse=True)
def _direct(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("OVSEG_OFFLINE", raising=False)


def remote(server: Server, **changes: object) -> Remote:
    values: dict = {"size": len(BODY), "checksum": f"sha256:{SHA}"} | changes
    return Remote("thing", server.url, path="models/thing.bin", **values)


def pull(item: Remote, folder: Path, **options: object) -> Path:
    return fetch(item, folder, **({"first_wait": 0.0, "timeout": 5.0} | options))  # type: ignore


def left_behind(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*") if path.is_file()}


def test_a_file_arrives_whole_and_is_not_fetched_again(tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    with serving(BODY) as server:
        item = remote(server)
        assert bytes_missing(item, tmp_path) == len(BODY)
        path = pull(item, tmp_path, progress=lambda here, total: seen.append((here, total)))
        assert pull(item, tmp_path) == path == target(item, tmp_path)
    assert path.read_bytes() == BODY
    assert is_here(item, tmp_path) and bytes_missing(item, tmp_path) == 0
    assert len(server.requests) == 1
    assert seen[-1] == (len(BODY), len(BODY)) and sorted(seen) == seen
    assert left_behind(tmp_path) == {"thing.bin", ".thing.bin.verified"}


def test_md5_and_unknown_size_serve_old_sources(tmp_path: Path) -> None:
    digest = hashlib.md5(BODY).hexdigest()
    with serving(BODY) as server:
        item = remote(server, checksum=f"md5:{digest}", size=None)
        assert bytes_missing(item, tmp_path) is None
        assert pull(item, tmp_path).read_bytes() == BODY


def test_a_broken_transfer_goes_on_where_it_stopped(tmp_path: Path) -> None:
    with serving(BODY, truncating(300_000), truncating(300_000), honest) as server:
        assert pull(remote(server), tmp_path).read_bytes() == BODY
    assert [request.get("range") for request in server.requests] == [
        None,
        "bytes=300000-",
        "bytes=600000-",
    ]
    assert server.requests[1]["if-range"] == '"v1"'


def test_a_second_call_goes_on_where_the_first_gave_up(tmp_path: Path) -> None:
    with serving(BODY, truncating(300_000), answering(503), honest) as server:
        item = remote(server)
        with pytest.raises(DownloadError, match="answers 503"):
            pull(item, tmp_path, attempts=1)
        assert not is_here(item, tmp_path)
        assert bytes_missing(item, tmp_path) == len(BODY) - 300_000
        assert pull(item, tmp_path).read_bytes() == BODY
    assert server.requests[-1]["range"] == "bytes=300000-"


def test_a_file_that_changed_meanwhile_starts_afresh(tmp_path: Path) -> None:
    def changed(request: object) -> None:
        server.etag = '"v2"'
        honest(request)  # type: ignore[arg-type]

    with serving(BODY, truncating(300_000), changed) as server:
        assert pull(remote(server), tmp_path).read_bytes() == BODY


def test_a_part_from_another_address_is_not_gone_on_with(tmp_path: Path) -> None:
    with serving(BODY[::-1], truncating(300_000), answering(404)) as old, serving(BODY) as new:
        with pytest.raises(DownloadError):
            pull(remote(old), tmp_path)
        assert pull(remote(new), tmp_path).read_bytes() == BODY
    assert "range" not in new.requests[0]


def test_a_server_without_ranges_sends_all_again(tmp_path: Path) -> None:
    with serving(BODY, truncating(300_000), without_ranges) as server:
        assert pull(remote(server), tmp_path).read_bytes() == BODY


def test_a_range_that_cannot_be_satisfied_starts_afresh(tmp_path: Path) -> None:
    with serving(BODY, truncating(300_000), answering(416), honest) as server:
        assert pull(remote(server), tmp_path).read_bytes() == BODY
    assert "range" not in server.requests[-1]


def test_another_range_than_asked_for_is_refused(tmp_path: Path) -> None:
    def shifted(request: object) -> None:
        request.start(206, Content_Length=3, Content_Range="bytes 0-2/3")  # type: ignore

    with (
        serving(BODY, truncating(300_000), shifted) as server,
        pytest.raises(DownloadError, match="another range"),
    ):
        pull(remote(server), tmp_path)


def test_a_wrong_checksum_leaves_nothing_to_trust(tmp_path: Path) -> None:
    with serving(BODY[::-1]) as server:
        item = remote(server)
        with pytest.raises(DownloadError, match=f"came where sha256:{SHA} was expected"):
            pull(item, tmp_path)
        assert not is_here(item, tmp_path)
        server.body = BODY
        assert pull(item, tmp_path).read_bytes() == BODY


def test_a_steady_truncation_ends_with_what_to_put_where(tmp_path: Path) -> None:
    with serving(BODY, truncating(0)) as server, pytest.raises(DownloadError) as caught:
        pull(remote(server), tmp_path, attempts=3)
    assert len(server.requests) == 3
    assert str(caught.value) == (
        f"thing: the transfer broke off at 0 of {len(BODY)} bytes. Fetch {server.url} "
        f"(1.0 MB, sha256:{SHA}) by other means and put it at {tmp_path / 'models/thing.bin'}"
    )


@pytest.mark.parametrize(("status", "requests"), [(404, 1), (403, 1), (503, 2), (429, 2)])
def test_final_answers_are_not_asked_for_twice(tmp_path: Path, status: int, requests: int) -> None:
    with (
        serving(BODY, answering(status)) as server,
        pytest.raises(DownloadError, match=f"answers {status}.*put it at"),
    ):
        pull(remote(server), tmp_path, attempts=2)
    assert len(server.requests) == requests


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("address", ["file:///etc/passwd", "ftp://127.0.0.1/x", "data:,x"])
def test_a_redirect_out_of_the_web_is_refused(tmp_path: Path, status: int, address: str) -> None:
    with (
        serving(BODY, answering(status, Location=address)) as server,
        pytest.raises(DownloadError, match=r"redirected to a (file|ftp|data): address"),
    ):
        pull(remote(server), tmp_path, attempts=1)
    assert b"root" not in b"".join(path.read_bytes() for path in tmp_path.rglob("*.part"))


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_within_the_web_is_followed(tmp_path: Path, status: int) -> None:
    with serving(BODY) as new, serving(b"", answering(status, Location=new.url)) as old:
        assert pull(remote(old), tmp_path).read_bytes() == BODY


def test_a_redirect_loop_ends(tmp_path: Path) -> None:
    def around(request: object) -> None:
        request.start(302, Location=server.url, Content_Length=0)  # type: ignore

    with serving(BODY, around) as server, pytest.raises(DownloadError):
        pull(remote(server), tmp_path, attempts=1)
    assert len(server.requests) < 20


def test_encryption_is_not_given_up_by_a_redirect() -> None:
    request = urllib.request.Request("https://example.org/a")
    with pytest.raises(DownloadError, match="from https to http"):
        transfer._CheckedRedirects().redirect_request(
            request, None, 302, "", Message(), "http://example.org/a"
        )


def test_an_endless_body_is_cut_at_what_was_promised(tmp_path: Path) -> None:
    with (
        serving(BODY, endless) as server,
        pytest.raises(DownloadError, match=f"more than {len(BODY)} bytes"),
    ):
        pull(remote(server), tmp_path)
    assert all(path.stat().st_size < 1000 for path in tmp_path.rglob("*") if path.is_file())


def test_an_endless_body_of_unknown_size_is_cut_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "UNKNOWN_SIZE_LIMIT", 3 << 20)
    with serving(BODY, endless) as server, pytest.raises(DownloadError, match="sends more than"):
        pull(remote(server, size=None), tmp_path)


@pytest.mark.parametrize("size", [None, len(BODY)])
def test_an_announcement_beyond_all_bounds_is_refused(tmp_path: Path, size: int | None) -> None:
    with (
        serving(BODY, lambda request: request.start(200, Content_Length=1 << 50)) as server,
        pytest.raises(DownloadError, match="announces 1125899906842624 bytes"),
    ):
        pull(remote(server, size=size), tmp_path)


def test_a_compressed_body_is_refused(tmp_path: Path) -> None:
    with (
        serving(BODY, answering(200, Content_Encoding="gzip")) as server,
        pytest.raises(DownloadError, match="compressed"),
    ):
        pull(remote(server, size=None), tmp_path)


def test_a_silent_server_times_out(tmp_path: Path) -> None:
    import threading

    release = threading.Event()
    with (
        serving(BODY, lambda _: release.wait(20)) as server,
        pytest.raises(DownloadError, match=r"cannot reach 127\.0\.0\.1:\d+: timed out"),
    ):
        try:
            pull(remote(server), tmp_path, attempts=1, timeout=0.2)
        finally:
            release.set()


def test_no_server_at_all_says_what_to_put_where(tmp_path: Path) -> None:
    with serving(BODY) as server:
        item = remote(server)
    with pytest.raises(DownloadError, match=r"cannot reach .*put it at .*thing\.bin"):
        pull(item, tmp_path, attempts=2)


def test_offline_nothing_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVSEG_OFFLINE", "1")
    with serving(BODY) as server:
        item = remote(server)
        with pytest.raises(DownloadError, match=r"OVSEG_OFFLINE is set.*put it at"):
            pull(item, tmp_path)
        assert server.requests == []
        target(item, tmp_path).parent.mkdir(parents=True)
        target(item, tmp_path).write_bytes(BODY)  # as the sentence says
        assert pull(item, tmp_path).read_bytes() == BODY


def test_a_wrong_file_in_its_place_is_named_and_kept(tmp_path: Path) -> None:
    with serving(BODY) as server:
        item = remote(server)
        target(item, tmp_path).parent.mkdir(parents=True)
        target(item, tmp_path).write_bytes(b"mine")
        with pytest.raises(DownloadError, match="remove it"):
            pull(item, tmp_path)
    assert target(item, tmp_path).read_bytes() == b"mine"


def test_a_file_that_rots_after_its_check_is_found(tmp_path: Path) -> None:
    with serving(BODY) as server:
        item = remote(server)
        path = pull(item, tmp_path)
        path.write_bytes(BODY[:-1])
        with pytest.raises(DownloadError, match="was expected"):
            pull(item, tmp_path)


def test_two_processes_do_not_mix_their_bytes(tmp_path: Path) -> None:
    fcntl = pytest.importorskip("fcntl")
    with serving(BODY) as server:
        item = remote(server)
        part = tmp_path / "models/thing.bin.part"
        part.parent.mkdir()
        with part.open("ab") as other:
            fcntl.flock(other, fcntl.LOCK_EX)
            with pytest.raises(DownloadError, match="another process"):
                pull(item, tmp_path)
        assert pull(item, tmp_path).read_bytes() == BODY


def test_a_full_disk_is_noticed_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10}))
    with serving(BODY) as server, pytest.raises(DownloadError, match=r"needed in .* 10 free"):
        pull(remote(server), tmp_path)


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "models").write_text("a file where the folder should be")
    with serving(BODY) as server, pytest.raises(DownloadError, match="cannot be written"):
        pull(remote(server), tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"url": "file:///etc/passwd"},
        {"url": "ftp://host/x"},
        {"url": "http://"},
        {"checksum": "sha256:abc"},
        {"checksum": "crc:" + "0" * 8},
        {"checksum": ""},
        {"path": "/etc/passwd"},
        {"path": "../x"},
        {"path": ""},
    ],
)
def test_a_remote_that_makes_no_sense_cannot_be_written_down(changes: dict[str, str]) -> None:
    good = {"url": "https://host/x", "checksum": f"sha256:{SHA}", "path": "x"}
    Remote("thing", **good)
    with pytest.raises(ValueError):
        Remote("thing", **(good | changes))


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (None, "size unknown"),
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (999_499, "999 kB"),
        (999_999, "1.0 MB"),
        (353_976_522, "354 MB"),
        (1_710_540_580, "1.7 GB"),
        (2_000_000_000_000, "2000 GB"),
    ],
)
def test_sizes_read_well(size: int | None, text: str) -> None:
    assert show_size(size) == text
