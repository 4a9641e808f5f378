"""`ovseg eval` through its runner, and once as a real process."""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from ovseg_cli.__main__ import run
from tests.evaluation.sets import tiny


@pytest.fixture
def voc(tmp_path: Path, chelsea: Path) -> Path:
    """A VOC of two pictures: the sample photo twice, its middle labelled cat."""
    from ovseg.data.images import read_image

    photo = read_image(chelsea)
    labels = np.zeros(photo.shape[:2], np.uint8)
    labels[40:260, 90:400] = 8
    labels[:5] = 255
    root = tmp_path / "VOC2012"
    tiny.voc(root, {"a": labels, "b": labels[:, ::-1]})
    tiny.photo(root / "JPEGImages/a.jpg", photo)
    tiny.photo(root / "JPEGImages/b.jpg", np.ascontiguousarray(photo[:, ::-1]))
    return root


def test_tables_name_score_protocol_and_hash(voc: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["eval", "voc", "--data", str(voc)]) == 0
    out = capsys.readouterr().out
    assert "mIoU" in out
    assert "starter on voc" in out
    assert "protocol: own (" in out


def test_json_report_and_comparison(
    voc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = tmp_path / "a.json", tmp_path / "b.json"
    report = tmp_path / "report"
    command = ["eval", "voc", "--data", str(voc), "--json"]
    assert run([*command, "--report", str(report), "--sweep", "threshold"]) == 0
    text = capsys.readouterr().out
    first.write_text(text)
    document = json.loads(text)
    cat = document["classes"][8]
    assert (cat["name"], document["images"]) == ("cat", 2)
    assert cat["iou"] > 0.5
    assert len(document["sweep"]) == 19
    assert (report / "index.html").is_file()
    assert run([*command, "--threshold", "0.9", "--save", str(second)]) == 0
    capsys.readouterr()
    assert run(["eval", "compare", str(first), str(second)]) == 0
    assert "B - A" in capsys.readouterr().out
    assert run(["eval", "compare", str(first), str(second), "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)) == {"mean_iou", "difference"}


def test_markdown_and_limit(voc: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["eval", "voc20", "--data", str(voc), "--markdown", "--limit", "1"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("## starter on voc20")
    assert "voc20, 1 images, SegmentationClass, val, first 1 of 2" in out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["vocc", "--data", "."], 2, "did you mean voc"),
        (["--data", ".", "vocc"], 2, "did you mean voc"),
        (["voc", "--data", "no-such-folder"], 1, "no such folder"),
        (["voc", "--data", "."], 1, "ImageSets/Segmentation/val.txt is missing"),
        (["voc", "--data", ".", "--json", "--markdown"], 2, "not both"),
        (["voc", "--data", ".", "--sweep", "model"], 2, "only threshold or background"),
        (["voc", "--data", ".", "--tta", "rotate"], 2, "choose flip, scales"),
        (["voc"], 2, "--data"),
        (["compare", "a.json"], 2, "missing argument"),
        (["compare", "a.json", "b.json"], 1, "cannot be read"),
        (["classify", "no-such-folder"], 1, "one folder of images per class"),
        (["retrieve", "no-such-folder"], 1, "captions_val2017.json"),
    ],
)
def test_one_line_says_what_is_wrong(
    arguments: list[str],
    code: int,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["eval", *arguments]) == code
    assert message in capsys.readouterr().err


@pytest.fixture
def own(tmp_path: Path, chelsea: Path) -> Path:
    """A folder set of three photos whose list names four."""
    from ovseg.data.images import read_image

    root = tmp_path / "own"
    photo = read_image(chelsea)
    labels = np.zeros(photo.shape[:2], np.uint8)
    labels[40:260, 90:400] = 1
    for name in ("a", "b c", "d.e"):
        tiny.photo(root / f"images/{name}.png", photo)
        tiny.index_png(root / f"labels/{name}.png", labels)
    tiny.text(root / "classes.txt", "background\ncat\n")
    tiny.text(root / "val.txt", "a\nb c\nd.e\nmissing\n")
    return root


def test_what_a_list_names_in_vain_is_an_error_beside_the_score_of_the_others(
    own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = tmp_path / "a.json"
    command = ["eval", "folder", "--data", str(own), "--json", "--save", str(saved)]
    assert run([*command, "--split", "val"]) == 1
    out, err = capsys.readouterr()
    document = json.loads(out)
    assert (document["images"], document["absent"]) == (3, ["missing"])
    assert json.loads(saved.read_text())["images"] == 3
    (line,) = [line for line in err.splitlines() if "error" in line]
    assert line.endswith("1 of the images in val.txt are not there and not scored: missing")
    assert run([*command, "--split", "nosuch"]) == 2
    assert "there is no split nosuch" in capsys.readouterr().err


def test_masks_of_one_bit_and_of_0_and_255_score_as_labels_do(
    own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image

    command = ["eval", "folder", "--data", str(own), "--json"]

    def score(*options: str) -> float:
        assert run([*command, *options]) == 0
        return json.loads(capsys.readouterr().out)["scores"]["mean_iou"]

    wanted = score()
    paths = list((own / "labels").iterdir())
    masks = [np.array(Image.open(path)) for path in paths]
    for path, mask in zip(paths, masks, strict=True):
        Image.fromarray(mask.astype(bool)).save(path)
    assert score() == wanted
    for path, mask in zip(paths, masks, strict=True):
        tiny.index_png(path, mask * 255)
    assert score("--label-map", "255=1") == wanted
    assert run(command) == 1
    assert "--label-map" in capsys.readouterr().err
    assert run([*command, "--ignore-label", "many"]) == 2


def test_sets_are_listed_with_their_sources(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["eval", "sets"]) == 0
    out = capsys.readouterr().out
    for name in ("voc20", "context59", "coco-stuff", "cityscapes", "cutouts-objects", "folder"):
        assert name in out
    assert run(["eval", "sets", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 12


def test_help_shows_sets_and_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["eval", "--help"]) == 0
    out = capsys.readouterr().out
    assert "ovseg eval SET --data FOLDER" in out
    assert "compare" in out
    assert run(["eval", "voc", "--help"]) == 0
    assert "--protocol" in capsys.readouterr().out


def test_classify_and_retrieve(tmp_path: Path, chelsea: Path, capsys) -> None:
    from ovseg.data.images import read_image

    tiny.photo(tmp_path / "cat/a.png", read_image(chelsea))
    tiny.photo(tmp_path / "truck/a.png")
    assert run(["eval", "classify", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["images"] == 2
    tiny.text(tmp_path / "captions.tsv", "cat/a.png\tcat\ntruck/a.png\ttruck\n")
    assert run(["eval", "retrieve", str(tmp_path)]) == 0
    assert "text to image, recall at 1" in capsys.readouterr().out


@pytest.mark.slow
def test_as_a_process(voc: Path) -> None:
    command = [sys.executable, "-m", "ovseg_cli", "eval", "voc", "--data", str(voc), "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["images"] == 2


def noise(root: Path, count: int) -> None:
    """A VOC of grey pictures, small and many, with labels at random."""
    generator = np.random.default_rng(0)
    tiny.voc(root, {f"{i:02d}": generator.integers(0, 21, (60, 80)) for i in range(count)})


@pytest.mark.slow
def test_two_processes_print_what_one_prints(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """More pictures than a chunk, so that both have some."""
    noise(tmp_path / "VOC2012", 20)
    arguments = ["eval", "voc", "--data", str(tmp_path / "VOC2012"), "--json", "--threshold", "0.2"]
    assert run(arguments) == 0
    alone = capfd.readouterr().out
    assert run([*arguments, "--num-processes", "2"]) == 0
    assert capfd.readouterr().out == alone


@pytest.mark.slow
def test_a_killed_process_goes_on_to_the_same_result(
    tmp_path: Path, own_cache: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "VOC2012"
    noise(root, 24)
    arguments = ["eval", "voc", "--data", str(root), "--json"]
    process = subprocess.Popen(
        [sys.executable, "-m", "ovseg_cli", *arguments], stdout=subprocess.DEVNULL
    )
    while process.poll() is None and not list(own_cache.glob("evaluation/*/records-0.jsonl")):
        time.sleep(0.05)
    process.kill()
    assert process.wait() == -9, "it ended before it could be killed"
    capfd.readouterr()
    assert run(arguments) == 0
    resumed = capfd.readouterr()
    assert "of 24 images taken from an interrupted run" in resumed.err
    assert run([*arguments, "--fresh"]) == 0
    assert capfd.readouterr().out == resumed.out
