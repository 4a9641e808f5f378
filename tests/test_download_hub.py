"""Files of the hub, from a server on the loopback that answers as the hub does."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from ovseg.download import hub_file
from ovseg.errors import DownloadError
from tests.hub_server import Hub, in_place_of_the_hub

NAMES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with in_place_of_the_hub(tmp_path / "hub", monkeypatch) as server:
        yield server


def test_the_first_name_there_is_once(hub: Hub, caplog: pytest.LogCaptureFixture) -> None:
    hub.files = {f"owner/clip/{NAMES[0]}": b"weights" * 1000, f"owner/clip/{NAMES[1]}": b"pickle"}
    with caplog.at_level(logging.WARNING):
        path = hub_file("owner/clip", NAMES, "")
    assert path.read_bytes() == b"weights" * 1000
    assert (
        "downloading open_clip_model.safetensors of owner/clip from the hub (7.0 kB)" in caplog.text
    )
    asked = len(hub.asked)
    assert hub_file("owner/clip", NAMES, "") == path
    assert len(hub.asked) == asked, "the second time it comes from the cache"


def test_falls_back_to_the_next_name(hub: Hub) -> None:
    hub.files = {f"owner/clip/{NAMES[1]}": b"older"}
    assert hub_file("owner/clip", NAMES, "").read_bytes() == b"older"
    with pytest.raises(DownloadError, match=r"owner/other has none of open_clip_model"):
        hub_file("owner/other", NAMES, "")


def test_a_broken_transfer_goes_on(hub: Hub) -> None:
    body = bytes(range(256)) * 4000
    hub.files = {f"owner/clip/{NAMES[0]}": body}
    hub.truncate = 300_000
    try:
        path = hub_file("owner/clip", NAMES, "")
    except DownloadError:  # older clients give up at the first break, and resume when asked again
        path = hub_file("owner/clip", NAMES, "")
    assert path.read_bytes() == body


def test_another_file_than_promised_is_not_kept(hub: Hub) -> None:
    hub.files = {f"owner/clip/{NAMES[0]}": b"tampered"}
    hub.lie = True
    with pytest.raises(DownloadError, match="was promised"):
        hub_file("owner/clip", NAMES, "")
    hub.lie = False
    assert hub_file("owner/clip", NAMES, "").read_bytes() == b"tampered"


def test_offline_says_what_to_fetch_and_what_then(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = (
        r"cannot download open_clip_model.safetensors of owner/clip .*fetch https://huggingface.co/"
        r"owner/clip/resolve/main/open_clip_model.safetensors elsewhere, then name it: X"
    )
    monkeypatch.setattr(
        constants,
        "HUGGINGFACE_CO_URL_TEMPLATE",
        "http://127.0.0.1:1/{repo_id}/resolve/{revision}/{filename}",
    )
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(DownloadError, match=expected) as caught:
        hub_file("owner/clip", NAMES, "then name it: X")
    assert "\n" not in str(caught.value)
    monkeypatch.setenv("OVSEG_OFFLINE", "1")
    with pytest.raises(DownloadError, match="OVSEG_OFFLINE is set"):
        hub_file("owner/clip", NAMES, "then name it: X")
    assert hub.asked == []
