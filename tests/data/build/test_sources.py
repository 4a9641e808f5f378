"""Every kind of source: recognised, read, and refused with a reason."""

import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image, features

from ovseg.data.build import sources
from ovseg.data.build.encoding import prepare_image
from ovseg.data.build.sources import CaptionSource, Columns, resolve_source
from ovseg.data.dataset.folder import ImageOptions
from ovseg.data.dataset.plan import Tally
from ovseg.data.images import read_image
from ovseg.errors import DataError, DownloadError, UsageError
from tests.data.pictures import picture
from tests.hostile_server import serving, truncating


def _rows(source: CaptionSource) -> tuple[list[tuple], Tally]:
    tally = Tally()
    return [row for chunk in source.chunks(tally) for row in chunk.iter_rows()], tally


def _resolve(name: str | Path, file: str | Path = "", images: Path | None = None) -> CaptionSource:
    return resolve_source(str(name), str(file), Columns(), images)


def test_cc12m_and_cc3m_differ_in_their_columns(tmp_path: Path) -> None:
    (tmp_path / "12.tsv").write_text("http://a\ta dog\n")
    (tmp_path / "3.tsv").write_text("a dog\thttp://a\n")
    wanted = [("http://a", "a dog", None, None)]
    assert _rows(_resolve("cc12m", tmp_path / "12.tsv"))[0] == wanted
    assert _rows(_resolve("cc3m", tmp_path / "3.tsv"))[0] == wanted


def test_cc3m_is_downloaded_and_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVSEG_CACHE", str(tmp_path))
    body = b"".join(b"a dog %d\thttp://a/%d\n" % (n, n) for n in range(50_000))
    heard: list[int] = []
    with serving(body, truncating(400_000), *[truncating(len(body))]) as server:
        known = replace(sources.KNOWN["cc3m"], url=server.url)
        monkeypatch.setitem(sources.KNOWN, "cc3m", known)
        source = resolve_source("cc3m", "", Columns(), None, lambda here, _: heard.append(here))
        assert len(server.requests) == 2 and server.requests[1]["range"] == "bytes=400000-"
    assert Path(source.address).read_bytes() == body and heard[-1] == len(body)
    assert _resolve("cc3m").address == source.address  # from the cache: the server is gone


def test_offline_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVSEG_CACHE", str(tmp_path))
    monkeypatch.setenv("OVSEG_OFFLINE", "1")
    with pytest.raises(DownloadError, match=r"captions/cc12m\.tsv"):
        _resolve("cc12m")


def test_coco(tmp_path: Path) -> None:
    content = {
        "images": [{"id": 5, "file_name": "5.jpg", "coco_url": "http://c/5.jpg"}],
        "annotations": [
            {"image_id": 5, "caption": "A dog.\n"},
            {"image_id": 5, "caption": "Ein Hund"},
            {"image_id": 6, "caption": "no such image"},
        ],
    }
    path = tmp_path / "captions.json"
    path.write_text(json.dumps(content))
    rows, tally = _rows(_resolve(path))
    assert [row[:2] for row in rows] == [
        ("http://c/5.jpg", "A dog."),
        ("http://c/5.jpg", "Ein Hund"),
    ]
    assert tally.dropped == {"no image": 1}
    assert _rows(_resolve("coco", path, tmp_path))[0][0][:2] == ("5.jpg", "A dog.")


def test_redcaps(tmp_path: Path) -> None:
    row = {"image_id": "x1", "subreddit": "pics", "url": "http://r/1.jpg", "caption": "a cat"}
    for number in (1, 2):
        path = tmp_path / f"{number}.json"
        path.write_text(json.dumps({"annotations": [row | {"raw_caption": "A CAT"}]}))
    assert _resolve(path).kind == "redcaps"
    assert [r[:2] for r in _rows(_resolve("redcaps", tmp_path))[0]] == [
        ("http://r/1.jpg", "a cat")
    ] * 2
    assert _rows(_resolve("redcaps", path, tmp_path))[0][0][0] == "pics/x1.jpg"


def test_webdataset_tars_are_read_in_place(tmp_path: Path) -> None:
    image = picture()
    members = [
        ("sub/1.jpg", image),
        ("sub/1.txt", b"a dog"),
        ("2.json", json.dumps({"caption": "a cat"}).encode()),
        ("2.png", image),
        ("3.txt", b"no image"),
        ("4.jpg", image),
    ]
    with tarfile.open(tmp_path / "0.tar", "w") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    whole = (tmp_path / "0.tar").read_bytes()
    (tmp_path / "1.tar").write_bytes(whole[: 512 + len(image) // 2])
    rows, tally = _rows(_resolve(tmp_path))
    assert [row[1] for row in rows] == ["a dog", "a cat"]
    assert all(whole[offset : offset + size] == image for _, _, offset, size in rows)
    assert tally.dropped["no image"] == 1 and tally.dropped["no caption"] >= 1


def test_what_is_no_source(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no source 'cc13m'"):
        _resolve("cc13m")
    with pytest.raises(UsageError, match="--source FILE"):
        _resolve("yfcc")
    (tmp_path / "rows.xyz").write_text("")
    with pytest.raises(UsageError, match=r"source\.format"):
        _resolve(tmp_path / "rows.xyz")
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(DataError, match="no JSON"):
        _rows(_resolve(tmp_path / "a.json"))
    with pytest.raises(UsageError, match="no folder"):
        _resolve("cc3m", tmp_path / "rows.xyz", tmp_path / "absent")


def test_the_fingerprint_follows_the_content(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("u\tc\n")
    (tmp_path / "b.tsv").write_text("u\tc\n")
    first, second = (_resolve("cc12m", tmp_path / f"{n}.tsv").fingerprint() for n in "ab")
    assert first == second
    (tmp_path / "b.tsv").write_text("u\td\n")
    assert _resolve("cc12m", tmp_path / "b.tsv").fingerprint() != first


def test_nothing_in_a_folder_is_left_uncounted(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    names = ["a.jpg", "sub/b.AVIF", "c.jfif", "d.jp2", "e.jpe"]
    for name in names:
        (tmp_path / name).write_bytes(b"")
        (tmp_path / name).with_suffix(".txt").write_text("a dog")
    for name in ("alone.txt", "film.mp4", "film.mov", ".DS_Store", "name.of-many-letters"):
        (tmp_path / name).write_text("a dog")
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere")
    (tmp_path / "linked").symlink_to(tmp_path / "sub")
    rows, tally = _rows(_resolve(tmp_path))
    assert sorted(row[0] for row in rows) == sorted(names)
    assert tally.dropped == {
        "a caption without its image": 1,
        "not an image file (.mp4)": 1,
        "not an image file (.mov)": 1,
        "not an image file": 2,
        "unreadable file": 1,
        "a link to a folder, not followed": 1,
    }


def test_images_beside_tars_are_counted(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "0.tar", "w"):
        pass
    (tmp_path / "a.jpg").write_bytes(picture())
    assert _rows(_resolve(tmp_path))[1].dropped == {
        "an image beside .tar files, in none of them": 1
    }


def test_formats_that_segment_reads_are_read(tmp_path: Path) -> None:
    """Each by the decoder that all share."""
    with Image.open(io.BytesIO(picture(1, (40, 30)))) as image:
        for suffix, kind in (
            ("avif", "AVIF"),
            ("jfif", "JPEG"),
            ("jp2", "JPEG2000"),
            ("jpe", "JPEG"),
        ):
            if kind != "AVIF" or features.check("avif"):
                image.convert("RGB").save(tmp_path / f"{suffix}.{suffix}", kind)
                (tmp_path / f"{suffix}.txt").write_text("a dog")
    for path in tmp_path.glob("*.j*"):
        made = prepare_image(path.read_bytes(), ImageOptions(short_side=0))
        assert read_image(path).shape == (made.height, made.width, 3)
    if features.check("avif"):
        assert prepare_image((tmp_path / "avif.avif").read_bytes(), ImageOptions()).width == 40
