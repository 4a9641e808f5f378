"""`ovseg segment`: regions, annotations of a run, names from elsewhere, doubt."""

import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ovseg.data import guard
from ovseg.data.annotations.formats import FORMATS, read_annotations
from ovseg.inference.result import Segmentation
from ovseg_cli.__main__ import run

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def photos(chelsea: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("a.png", "b.png"):
        Image.open(chelsea).resize((90, 60)).save(folder / name)
    return folder


def test_a_file_for_each_format_says_the_same(
    photos: Path, tmp_path: Path, capsys: Captured
) -> None:
    out = tmp_path / "out"
    arguments = ["segment", str(photos), "--classes", "cat,dog", "-o", str(out)]
    assert run([*arguments, "--format", ",".join(FORMATS), "--polygons", "0"]) == 0
    shown = capsys.readouterr().out.splitlines()
    files = [out / each.file for each in FORMATS.values()]
    assert set(map(str, files)) < set(shown)
    masks = [np.asarray(Image.open(out / f"{stem}.labels.png")) for stem in "ab"]
    for path in files:
        images = list(read_annotations(path))
        assert [image.name for image in images] == ["a.png", "b.png"]
        for image, labels in zip(images, masks, strict=True):
            cat = np.zeros(labels.shape, bool)
            for region in image.regions:
                if region.name == "cat":
                    cat |= region.within(*labels.shape)
            assert (cat == (labels == 1)).all(), path
    assert run([*arguments, "--format", "coco,coco"]) == 0, "a second run replaces the first's"


def test_small_parts_become_background_everywhere(
    photos: Path, tmp_path: Path, capsys: Captured
) -> None:
    out = tmp_path / "out"
    arguments = ["segment", str(photos / "a.png"), "--classes", "cat,dog", "--json"]
    assert run(arguments) == 0
    before = json.loads(capsys.readouterr().out)
    assert [each["name"] for each in before["classes"]] == ["cat", "background", "dog"]
    kept = ["--min-area", "500", "--instances", "--save", "json", "-o", str(out)]
    assert run([*arguments, *kept]) == 0
    after = json.loads(capsys.readouterr().out)
    assert [each["name"] for each in after["classes"]] == ["cat", "background"]
    (region,) = after["regions"]
    labels = np.asarray(Image.open(out / "a.labels.png"))
    (annotation,) = json.loads((out / "a.json").read_text())["annotations"]
    assert region["area"] == (labels == 1).sum() == annotation["area"]
    assert run([*arguments, "--min-score", "0.99"]) == 0
    assert [each["name"] for each in json.loads(capsys.readouterr().out)["classes"]] == [
        "background"
    ]


def test_names_come_from_standard_input(photos: Path, tmp_path: Path) -> None:
    (photos / "a.png").rename(photos / "a [1]\n.png")
    names = b"\0".join(os.fsencode(path) for path in sorted(photos.iterdir()))
    command = [sys.executable, "-m", "ovseg_cli", "segment", "-", "--classes", "cat", "--json"]
    done = subprocess.run(command, input=names, capture_output=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    images = [json.loads(line)["image"] for line in done.stdout.splitlines()]
    assert images == [str(photos / "a [1]\n.png"), str(photos / "b.png")]


@pytest.mark.parametrize("content", [b"", b"\n\n"])
def test_standard_input_without_names(
    content: bytes, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
    assert run(["segment", "-", "--classes", "cat"]) == 2
    assert "standard input names no image" in capsys.readouterr().err


@pytest.fixture
def server(photos: Path) -> Iterator[str]:
    """Answers /x/a.png and /y/a.png with an image, and everything else with 404."""
    content = (photos / "a.png").read_bytes()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = self.path.endswith("/a.png")
            self.send_response(200 if found else 404)
            self.send_header("Content-Length", str(len(content) if found else 0))
            self.end_headers()
            self.wfile.write(content if found else b"")

        def log_message(self, *_: object) -> None:
            pass

    served = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=served.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{served.server_port}"
    served.shutdown()
    served.server_close()


def test_addresses_are_fetched_where_they_are_allowed(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.chdir(tmp_path)
    urls = [f"{server}/x/a.png", f"{server}/y/a.png", f"{server}/none.png"]
    arguments = ["segment", *urls, "--classes", "cat", "-o", "out", "--format", "coco"]
    assert run(arguments) == 2
    assert "has --allow-urls" in capsys.readouterr().err
    assert run([*arguments, "--allow-urls"]) == 1
    errors = capsys.readouterr().err
    assert f"{urls[0]}: cannot be fetched (private address)" in errors
    assert "3 of 3 images failed" in errors
    monkeypatch.setattr(guard, "is_public", lambda _: True)
    assert run([*arguments, "--allow-urls"]) == 1
    assert f"{urls[2]}: cannot be fetched (HTTP 404)" in capsys.readouterr().err
    images = list(read_annotations(Path("out/annotations.json")))
    assert [image.name for image in images] == ["x/a.png", "y/a.png"]
    assert images[0].regions


@pytest.mark.parametrize("url", ["ftp://host/a.png", "s3://bucket/a.png", "https:///a.png"])
def test_other_addresses_are_no_images(url: str, capsys: Captured) -> None:
    assert run(["segment", url, "--classes", "cat", "--allow-urls"]) == 2
    assert "only http and https" in capsys.readouterr().err


def test_doubt_is_by_the_best_class_and_the_threshold() -> None:
    def doubtful(*scores: float, threshold: float | None) -> bool:
        labels = np.arange(1 + len(scores), dtype=np.uint16)[None]
        return Segmentation(
            image=np.zeros((*labels.shape, 3), np.uint8),
            classes=("background", *map(str, scores)),
            labels=labels,
            scores=np.array([[threshold or 0, *scores]], np.float32),
            group_map=lambda: labels.astype(np.int32),
            group_scores=np.zeros((1, labels.size), np.float32),
            threshold=threshold,
        ).is_doubtful

    assert doubtful(0.02, 0.006, threshold=0.004)
    assert not doubtful(0.02, 0.3, threshold=0.004)
    assert doubtful(0.6, threshold=0.5) and not doubtful(0.7, threshold=0.5)
    assert not doubtful(threshold=0.5), "nothing was found"
    assert not doubtful(0.6, threshold=None) and not doubtful(0.6, threshold=0.0)


def test_doubt_is_one_line(photos: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Segmentation, "is_doubtful", property(lambda _: True))
    assert run(["segment", str(photos), "--classes", "cat", "--json"]) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert "every score is near the threshold in 2 of 2 images" in line
    assert run(["segment", str(photos), "--classes", "cat", "--json", "-q"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--format", "coco"], "--format needs a folder"),
        (["--format", "voc", "-o", "OUT"], "no format voc: choose from coco"),
        (["--polygons", "-1", "-o", "OUT"], "a number of pixels from 0"),
        (["--min-area", "-1"], "greater than or equal to 0"),
        (["--min-score", "nan"], "a score is a number"),
    ],
)
def test_requests_that_make_no_sense(
    options: list[str], message: str, photos: Path, tmp_path: Path, capsys: Captured
) -> None:
    given = [str(tmp_path / "out") if each == "OUT" else each for each in options]
    assert run(["segment", str(photos), "--classes", "cat", *given]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_words_are_filtered(capsys: Captured) -> None:
    assert run(["segment", "--list-classes", "Terrier", "poodle"]) == 0
    words = capsys.readouterr().out.splitlines()
    assert "standard poodle" in words
    assert words and all("terrier" in word or "poodle" in word for word in words)
    assert run(["segment", "--list-classes", "xyzzy"]) == 2
    assert "knows no word with xyzzy in it" in capsys.readouterr().err
