"""Downloads against a server that breaks every promise it can."""

import urllib.request
from email.message import Message
from pathlib import Path

import pytest

from ovseg import download
from ovseg.download import fetch, show_size
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


@pytest.fixture(autouse=True)
def _direct(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("OVSEG_OFFLINE", raising=False)


def pull(server: Server, folder: Path, **options: object) -> Path:
    path = folder / "captions/thing.bin"
    return fetch(server.url, path, **({"first_wait": 0.0, "timeout": 5.0} | options))  # type: ignore


def left_behind(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*") if path.is_file()}


def test_a_file_arrives_whole_and_is_not_fetched_again(tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    with serving(BODY) as server:
        path = pull(server, tmp_path, progress=lambda here, total: seen.append((here, total)))
        assert pull(server, tmp_path) == path == tmp_path / "captions/thing.bin"
    assert path.read_bytes() == BODY
    assert len(server.requests) == 1
    assert seen[-1] == (len(BODY), len(BODY)) and sorted(seen) == seen
    assert left_behind(tmp_path) == {"thing.bin"}


def test_a_broken_transfer_goes_on_where_it_stopped(tmp_path: Path) -> None:
    with serving(BODY, truncating(300_000), truncating(300_000), honest) as server:
        assert pull(server, tmp_path).read_bytes() == BODY
    assert [request.get("range") for request in server.requests] == [
        None,
        "bytes=300000-",
        "bytes=600000-",
    ]
    assert server.requests[1]["if-range"] == '"v1"'


def test_a_second_call_goes_on_where_the_first_gave_up(tmp_path: Path) -> None:
    with serving(BODY, truncating(300_000), answering(503), honest) as server:
        with pytest.raises(DownloadError, match="answers 503"):
            pull(server, tmp_path, attempts=1)
        assert left_behind(tmp_path) == {"thing.bin.part", "thing.bin.part.json"}
        assert pull(server, tmp_path).read_bytes() == BODY
    assert server.requests[-1]["range"] == "bytes=300000-"


def test_a_file_that_changed_meanwhile_starts_afresh(tmp_path: Path) -> None:
    def changed(request: object) -> None:
        server.etag = '"v2"'
        honest(request)  # type: ignore[arg-type]

    with serving(BODY, truncating(300_000), changed) as server:
        assert pull(server, tmp_path).read_bytes() == BODY


def test_a_part_from_another_address_is_not_gone_on_with(tmp_path: Path) -> None:
    with serving(BODY[::-1], truncating(300_000), answering(404)) as old, serving(BODY) as new:
        with pytest.raises(DownloadError):
            pull(old, tmp_path)
        assert pull(new, tmp_path).read_bytes() == BODY
    assert "range" not in new.requests[0]


def test_a_server_without_ranges_sends_all_again(tmp_path: Path) -> None:
    with serving(BODY, truncating(300_000), without_ranges) as server:
        assert pull(server, tmp_path).read_bytes() == BODY


def test_a_range_that_cannot_be_satisfied_starts_afresh(tmp_path: Path) -> None:
    with serving(BODY, truncating(300_000), answering(416), honest) as server:
        assert pull(server, tmp_path).read_bytes() == BODY
    assert "range" not in server.requests[-1]


def test_another_range_than_asked_for_is_refused(tmp_path: Path) -> None:
    def shifted(request: object) -> None:
        request.start(206, Content_Length=3, Content_Range="bytes 0-2/3")  # type: ignore

    with (
        serving(BODY, truncating(300_000), shifted) as server,
        pytest.raises(DownloadError, match="another range"),
    ):
        pull(server, tmp_path)


def test_a_steady_truncation_ends_with_what_to_put_where(tmp_path: Path) -> None:
    with serving(BODY, truncating(0)) as server, pytest.raises(DownloadError) as caught:
        pull(server, tmp_path, attempts=3)
    assert len(server.requests) == 3
    assert str(caught.value) == (
        f"thing.bin: the transfer broke off at 0 of {len(BODY)} bytes. Fetch {server.url} "
        f"by other means and put it at {tmp_path / 'captions/thing.bin'}"
    )


@pytest.mark.parametrize(("status", "requests"), [(404, 1), (403, 1), (503, 2), (429, 2)])
def test_final_answers_are_not_asked_for_twice(tmp_path: Path, status: int, requests: int) -> None:
    with (
        serving(BODY, answering(status)) as server,
        pytest.raises(DownloadError, match=f"answers {status}.*put it at"),
    ):
        pull(server, tmp_path, attempts=2)
    assert len(server.requests) == requests


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("address", ["file:///etc/passwd", "ftp://127.0.0.1/x", "data:,x"])
def test_a_redirect_out_of_the_web_is_refused(tmp_path: Path, status: int, address: str) -> None:
    with (
        serving(BODY, answering(status, Location=address)) as server,
        pytest.raises(DownloadError, match=r"redirected to a (file|ftp|data): address"),
    ):
        pull(server, tmp_path, attempts=1)
    assert b"root" not in b"".join(path.read_bytes() for path in tmp_path.rglob("*.part"))


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_within_the_web_is_followed(tmp_path: Path, status: int) -> None:
    with serving(BODY) as new, serving(b"", answering(status, Location=new.url)) as old:
        assert pull(old, tmp_path).read_bytes() == BODY


def test_a_redirect_loop_ends(tmp_path: Path) -> None:
    def around(request: object) -> None:
        request.start(302, Location=server.url, Content_Length=0)  # type: ignore

    with serving(BODY, around) as server, pytest.raises(DownloadError):
        pull(server, tmp_path, attempts=1)
    assert len(server.requests) < 20


def test_encryption_is_not_given_up_by_a_redirect() -> None:
    request = urllib.request.Request("https://example.org/a")
    with pytest.raises(DownloadError, match="from https to http"):
        download._CheckedRedirects().redirect_request(
            request, None, 302, "", Message(), "http://example.org/a"
        )


def test_an_endless_body_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "SIZE_LIMIT", 3 << 20)
    with serving(BODY, endless) as server, pytest.raises(DownloadError, match="sends more than"):
        pull(server, tmp_path)


def test_an_announcement_beyond_all_bounds_is_refused(tmp_path: Path) -> None:
    with (
        serving(BODY, lambda request: request.start(200, Content_Length=1 << 50)) as server,
        pytest.raises(DownloadError, match="announces 1125899906842624 bytes"),
    ):
        pull(server, tmp_path)


def test_a_compressed_body_is_refused(tmp_path: Path) -> None:
    with (
        serving(BODY, answering(200, Content_Encoding="gzip")) as server,
        pytest.raises(DownloadError, match="compressed"),
    ):
        pull(server, tmp_path)


def test_a_silent_server_times_out(tmp_path: Path) -> None:
    import threading

    release = threading.Event()
    with (
        serving(BODY, lambda _: release.wait(20)) as server,
        pytest.raises(DownloadError, match=r"cannot reach 127\.0\.0\.1:\d+: timed out"),
    ):
        try:
            pull(server, tmp_path, attempts=1, timeout=0.2)
        finally:
            release.set()


def test_no_server_at_all_says_what_to_put_where(tmp_path: Path) -> None:
    with serving(BODY) as server:
        pass
    with pytest.raises(DownloadError, match=r"cannot reach .*put it at .*thing\.bin"):
        pull(server, tmp_path, attempts=2)


def test_offline_nothing_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVSEG_OFFLINE", "1")
    with serving(BODY) as server:
        with pytest.raises(DownloadError, match=r"OVSEG_OFFLINE is set.*put it at"):
            pull(server, tmp_path)
        assert server.requests == []
        path = tmp_path / "captions/thing.bin"
        path.parent.mkdir(parents=True)
        path.write_bytes(BODY)  # as the sentence says
        assert pull(server, tmp_path) == path


def test_two_processes_do_not_mix_their_bytes(tmp_path: Path) -> None:
    fcntl = pytest.importorskip("fcntl")
    with serving(BODY) as server:
        part = tmp_path / "captions/thing.bin.part"
        part.parent.mkdir()
        with part.open("ab") as other:
            fcntl.flock(other, fcntl.LOCK_EX)
            with pytest.raises(DownloadError, match="another process"):
                pull(server, tmp_path)
        assert pull(server, tmp_path).read_bytes() == BODY


def test_a_full_disk_is_noticed_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10}))
    with serving(BODY) as server, pytest.raises(DownloadError, match=r"needed in .* 10 free"):
        pull(server, tmp_path)


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "captions").write_text("a file where the folder should be")
    with serving(BODY) as server, pytest.raises(DownloadError, match="cannot be written"):
        pull(server, tmp_path)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://host/x", "http://", "data:,x"])
def test_other_addresses_than_the_webs_are_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(ValueError, match="no http or https address"):
        fetch(url, tmp_path / "x")


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
