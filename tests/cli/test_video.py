"""Videos through the command line."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from ovseg.data.video import open_video
from ovseg_cli.__main__ import run

pytest.importorskip("av")
Captured = pytest.CaptureFixture[str]


@pytest.fixture
def frames(tmp_path: Path, chelsea: Path) -> Path:
    """Three pictures of a cat that moves."""
    pixels = np.asarray(Image.open(chelsea).convert("RGB").resize((192, 128)))
    (tmp_path / "cat").mkdir()
    for number in range(3):
        picture = Image.fromarray(pixels[:, 4 * number : 160 + 4 * number])
        picture.save(tmp_path / "cat" / f"{number}.png")
    return tmp_path / "cat"


def test_a_folder_as_a_process(frames: Path, tmp_path: Path) -> None:
    command = [
        *(sys.executable, "-m", "ovseg_cli", "segment", str(frames), "--video"),
        *("--classes", "cat,dog", "-o", str(tmp_path / "out"), "--tracks", "--json"),
        *("--short-side", "128"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["frame"] for line in lines] == [0, 1, 2]
    assert lines[0]["tracks"][0]["label"] == 1
    assert len(list(open_video(tmp_path / "out/cat.overlay.mp4"))) == 3
    assert len(list((tmp_path / "out/cat.labels").iterdir())) == 3
    assert len(COCO(str(tmp_path / "out/cat.video.json")).imgs) == 3


def test_a_first_mask(frames: Path, tmp_path: Path, capsys: Captured) -> None:
    mask = np.zeros((128, 160), np.uint8)
    mask[20:110, 40:120] = 1
    Image.fromarray(mask).save(tmp_path / "first.png")
    words = ["segment", str(frames), "--first-mask", str(tmp_path / "first.png")]
    assert run([*words, "--short-side", "128", "-o", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith("cat.video.json")


def test_a_table_without_an_output(frames: Path, capsys: Captured) -> None:
    words = ["segment", str(frames), "--video", "--classes", "cat", "--every", "2"]
    assert run([*words, "--short-side", "64", "--steadiness", "0"]) == 0
    assert "2 frames" in " ".join(capsys.readouterr().out.split())  # a long path is wrapped


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        (["none.mp4", "--classes", "cat"], 1, "no such file"),
        (["none.mp4"], 2, "no classes given"),
        (["a.mp4", "b.jpg", "--classes", "cat"], 2, "a.mp4 is a video, others are not"),
        (["FRAMES", "--video", "--classes", "cat", "--start", "9"], 1, "none of its 3 frames"),
        (["FRAMES", "--video", "--classes", "cat", "--start", "2", "--end", "1"], 2, "start"),
        (["FRAMES", "--video", "--classes", "cat", "--instances"], 2, "--instances is for pict"),
        (["FRAMES", "--classes", "cat", "--steadiness", "0.5"], 2, "--steadiness is for videos"),
    ],
)
def test_one_clear_line(
    more: list[str], code: int, message: str, frames: Path, capsys: Captured
) -> None:
    assert run(["segment", *(str(frames) if word == "FRAMES" else word for word in more)]) == code
    told = capsys.readouterr().err
    assert message in told and len(told.splitlines()) <= 2


def test_eval(frames: Path, tmp_path: Path, capsys: Captured) -> None:
    for folder in ("JPEGImages", "Annotations"):
        (tmp_path / "set" / folder / "cat").mkdir(parents=True)
    for number in range(3):
        picture = Image.open(frames / f"{number}.png")
        picture.save(tmp_path / f"set/JPEGImages/cat/{number:05d}.jpg")
        mask = np.zeros((128, 160), np.uint8)
        mask[20:110, 50 - 4 * number : 120] = 1
        Image.fromarray(mask).save(tmp_path / f"set/Annotations/cat/{number:05d}.png")
    words = ["eval", "video", "--data", str(tmp_path / "set"), "--short-side", "64"]
    assert run([*words, "--first-mask", "--json"]) == 0
    assert 0 <= json.loads(capsys.readouterr().out)["j_and_f"] <= 1
    assert run(words) == 1  # without a file of words
    assert "words.txt" in capsys.readouterr().err
    (tmp_path / "set/words.txt").write_text("cat: cat\n")
    assert run(words) == 0
    assert "flicker" in capsys.readouterr().out
