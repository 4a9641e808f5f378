"""`ovseg segment`, through the runner and as a process."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ovseg_cli.__main__ import run

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    path = tmp_path / "broken.jpg"
    path.write_bytes(b"\xff\xd8\xff\xe0 cut")
    return path


def labels_of(folder: Path, stem: str) -> np.ndarray:
    return np.asarray(Image.open(folder / f"{stem}.labels.png"))


def test_the_cat_is_the_cat_and_the_wall_is_not(chelsea: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run(["segment", str(chelsea), "--classes", "cat,dog", "--output", str(out)]) == 0
    labels = labels_of(out, "chelsea")
    assert labels.shape == (300, 451)
    assert (labels[60:260, 60:360] == 1).mean() > 0.9, "face"
    assert (labels[60:, 400:] == 1).mean() < 0.05, "wall"
    assert (labels == 2).mean() < 0.005, "no dog but a sliver at an ear"
    assert Image.open(out / "chelsea.overlay.png").height > 300


def test_runs_as_a_process(chelsea: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ovseg_cli", "segment", str(chelsea), "--classes", "cat"]
    result = subprocess.run([*command, "--json"], capture_output=True, text=True, cwd=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    assert json.loads(result.stdout)["classes"][0]["name"] == "cat"


def test_json_has_one_object_a_line(chelsea: Path, capsys: Captured) -> None:
    assert run(["segment", str(chelsea), str(chelsea), "--classes", "cat", "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    summary = json.loads(line)
    assert (summary["width"], summary["height"], summary["files"]) == (451, 300, [])
    assert sum(found["share"] for found in summary["classes"]) == pytest.approx(1, abs=1e-5)


def test_table(chelsea: Path, capsys: Captured) -> None:
    assert run(["segment", str(chelsea), "--classes", "cat,dog"]) == 0
    out = capsys.readouterr().out
    assert "share of pixels" in out
    assert "cat" in out


def test_everything_that_can_be_saved(chelsea: Path, tmp_path: Path, capsys: Captured) -> None:
    out = tmp_path / "out"
    save = "json,rle,logits,groups"
    arguments = ["segment", str(chelsea), "--classes", "dog,cat", "-o", str(out), "--save", save]
    assert run([*arguments, "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["files"]
    suffixes = ("overlay.png", "labels.png", "json", "rle.json", "logits.npz", "groups.png")
    assert listed == [str(out / f"chelsea.{suffix}") for suffix in suffixes]
    names = {Path(name).name for name in listed}
    assert {file.name for file in out.iterdir()} == {*names, "annotations.json"}
    annotation = json.loads((out / "chelsea.rle.json").read_text())[0]
    labels = labels_of(out, "chelsea")
    assert annotation["category_id"] == 2
    assert annotation["area"] == (labels == 2).sum()
    with np.load(out / "chelsea.logits.npz") as scores:
        assert scores["group_scores"].shape == (56 * 84, 3)
        assert scores["groups"].shape == (300, 451)
        assert scores["classes"].tolist() == ["background", "dog", "cat"]


def test_vocabulary_and_class_file(chelsea: Path, tmp_path: Path, capsys: Captured) -> None:
    assert run(["segment", str(chelsea), "--vocab", "voc", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["classes"][0]["name"] == "cat"
    words = tmp_path / "words.txt"
    words.write_text("dog;puppy\nkitten;cat\n")
    assert run(["segment", str(chelsea), "--classes", f"@{words}", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["classes"][0]["name"] == "kitten"


def test_no_background(chelsea: Path, capsys: Captured) -> None:
    arguments = ["segment", str(chelsea), "--classes", "cat,dog", "--no-background", "--json"]
    assert run(arguments) == 0
    names = {found["name"] for found in json.loads(capsys.readouterr().out)["classes"]}
    assert "background" not in names


def test_failures_do_not_stop_the_others(
    chelsea: Path, broken: Path, tmp_path: Path, capsys: Captured
) -> None:
    images = [str(broken), str(chelsea), str(tmp_path / "gone.png")]
    assert run(["segment", *images, "--classes", "cat", "--json"]) == 1
    captured = capsys.readouterr()
    assert len(captured.out.splitlines()) == 1
    errors = captured.err.splitlines()
    assert len(errors) == 3
    assert str(broken) in errors[0]
    assert "no such file" in errors[1]
    assert "2 of 3 images failed" in errors[2]


def test_equal_names_do_not_overwrite_each_other(chelsea: Path, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        Image.open(chelsea).resize((64, 64)).save(tmp_path / folder / "x.png")
    out = tmp_path / "out"
    images = [str(tmp_path / "a"), str(tmp_path / "b")]
    assert run(["segment", *images, "--classes", "cat", "--output", str(out)]) == 0
    assert len(list(out.iterdir())) == 4


def some_photos(chelsea: Path, *paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.open(chelsea).resize((64, 64)).save(path)


def test_equal_stems_give_files_of_their_own(chelsea: Path, tmp_path: Path) -> None:
    photos = [tmp_path / name for name in ("photo.jpg", "photo.png", "photo.jpg.png")]
    some_photos(chelsea, *photos)
    out = tmp_path / "out"
    assert run(["segment", *map(str, photos), "--classes", "cat", "-o", str(out)]) == 0
    assert len(list(out.iterdir())) == 6


def test_the_same_name_one_folder_up(
    chelsea: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    some_photos(chelsea, tmp_path / "photo.jpg", tmp_path / "sub" / "photo.jpg")
    monkeypatch.chdir(tmp_path / "sub")
    assert run(["segment", "photo.jpg", "../photo.jpg", "--classes", "cat", "-o", "out"]) == 0
    assert len(list(Path("out").iterdir())) == 4


def test_a_second_run_segments_the_same_photos(chelsea: Path, tmp_path: Path) -> None:
    some_photos(chelsea, tmp_path / "a.jpg", tmp_path / "b.jpg")
    for out in (tmp_path / "out", tmp_path):
        arguments = ["segment", str(tmp_path), "--classes", "cat", "-o", str(out)]
        assert run(arguments) == 0
        first = sorted(out.iterdir())
        assert run(arguments) == 0
        assert sorted(out.iterdir()) == first
        assert len(list(out.glob("*.png"))) == 4


def test_one_coco_file_for_the_run(chelsea: Path, broken: Path, tmp_path: Path) -> None:
    photos = [tmp_path / "in" / "a" / "x.png", tmp_path / "in" / "b" / "x.png"]
    some_photos(chelsea, *photos)
    out = tmp_path / "out"
    images = [str(photos[0]), str(broken), str(photos[1])]
    arguments = ["segment", *images, "--classes", "cat,dog", "-o", str(out), "--save", "json,rle"]
    for _ in range(2):
        assert run([*arguments, "--no-background"]) == 1, "one is broken"
    whole = json.loads((out / "annotations.json").read_text())
    assert [(each["id"], each["file_name"]) for each in whole["images"]] == [
        (1, "in/a/x.png"),
        (3, "in/b/x.png"),
    ]
    assert whole["categories"] == [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    ids = [each["id"] for each in whole["annotations"]]
    assert ids == list(range(1, len(ids) + 1))
    assert {each["image_id"] for each in whole["annotations"]} == {1, 3}
    own = [json.loads(file.read_text()) for file in sorted(out.glob("*x.png.json"))]
    assert [image for each in own for image in each["images"]] == whole["images"]
    assert [one for each in own for one in each["annotations"]] == whole["annotations"]
    results = [json.loads(file.read_text()) for file in sorted(out.glob("*.rle.json"))]
    assert [one for each in results for one in each] == whole["annotations"]


def test_annotations_of_someone_else_stay(chelsea: Path, tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "annotations.json").write_text('{"images": []}')
    arguments = ["segment", str(chelsea), "--classes", "cat", "-o", str(tmp_path), "--save"]
    assert run([*arguments, "json"]) == 1
    assert "annotations.json: is not of an earlier run" in capsys.readouterr().err
    assert (tmp_path / "annotations.json").read_text() == '{"images": []}'


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["segment"], 2, "no classes given"),
        (["segment", "--classes", "cat"], 2, "no image given"),
        (["segment", "IMAGE", "--classes", ""], 2, "empty"),
        (["segment", "IMAGE", "--classes", "cat,cat"], 2, "more than once"),
        (["segment", "IMAGE", "--classes", "cat", "--vocab", "voc"], 2, "not both"),
        (["segment", "IMAGE", "--vocab", "vox"], 2, "unknown vocabulary"),
        (["segment", "IMAGE", "--classes", "@none.txt"], 1, "none.txt"),
        (["segment", "https://x/y.jpg", "--classes", "cat"], 2, "curl"),
        (["segment", "nothing-here", "--classes", "cat"], 1, "no such file"),
        (["segment", "IMAGE", "--classes", "cat", "--model", "sam"], 2, "no model or file"),
        (["segment", "IMAGE", "--classes", "cat", "--device", "tpu"], 2, "unknown device"),
        (["segment", "IMAGE", "--classes", "cat", "--save", "json"], 2, "--output"),
        (["segment", "IMAGE", "--classes", "cat", "-o", "OUT", "--save", "svg"], 2, "svg"),
        (["segment", "IMAGE", "--classes", "cat", "-o", "IMAGE"], 1, "output folder"),
        (["segment", "IMAGE", "--classes", "cat", "--treshold", "1"], 2, "--threshold"),
        (["segment", "IMAGE", "--classes", "cat", "--threshold", "nan"], 2, "from 0 to 1"),
        (["segment", "IMAGE", "--classes", "cat", "--threshold", "5"], 2, "from 0 to 1"),
        (["segment", "IMAGE", "--classes", "cat", "--threshold", "-0.1"], 2, "from 0 to 1"),
        (["segment", "IMAGE", "--classes", "cat", "--short-side", "8"], 2, "equal to 16"),
        (["eval", "folder", "--data", "none", "--threshold", "nan"], 2, "from 0 to 1"),
    ],
)
def test_bad_input_is_one_clear_line(
    arguments: list[str],
    code: int,
    message: str,
    chelsea: Path,
    tmp_path: Path,
    capsys: Captured,
) -> None:
    names = {"IMAGE": str(chelsea), "OUT": str(tmp_path / "out")}
    assert run([names.get(argument, argument) for argument in arguments]) == code
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.out == ""
    assert "Traceback" not in captured.err


def test_unknown_words_are_named_on_stderr(chelsea: Path, capsys: Captured) -> None:
    assert run(["segment", str(chelsea), "--classes", "cat,okapi", "--json"]) == 0
    captured = capsys.readouterr()
    assert "'okapi'; nearest that it knows: ox" in captured.err
    json.loads(captured.out)


def test_many_unknown_words_share_a_line(chelsea: Path, capsys: Captured) -> None:
    classes = "cat,okapi,frisbee,fire hydrant,scissors"
    assert run(["segment", str(chelsea), "--classes", classes, "--json"]) == 0
    warnings = [line for line in capsys.readouterr().err.splitlines() if "does not know" in line]
    assert len(warnings) == 1
    assert "does not know 4 of 5 phrases: okapi, frisbee, fire hydrant and 1 more" in warnings[0]


def test_the_understood_part_of_a_sentence_is_named(chelsea: Path, capsys: Captured) -> None:
    classes = "a cat sitting on a couch,an xyzzy dog"
    assert run(["segment", str(chelsea), "--classes", classes, "--json"]) == 0
    warnings = capsys.readouterr().err.splitlines()
    expected = "the model understands only 'dog' of 'an xyzzy dog'"
    assert warnings[0] == f"ovseg: warning: {expected}"


def test_debug_shows_the_traceback(chelsea: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVSEG_DEBUG", "1")
    with pytest.raises(Exception, match="more than once"):
        run(["segment", str(chelsea), "--classes", "cat,cat"])


def test_show_draws_in_the_terminal(chelsea: Path, capsys: Captured) -> None:
    assert run(["segment", str(chelsea), "--classes", "cat", "--show"]) == 0
    assert capsys.readouterr().out.count("▀") > 500


def test_list_classes(capsys: Captured) -> None:
    assert run(["segment", "--list-classes"]) == 0
    words = capsys.readouterr().out.splitlines()
    assert "cat" in words
    assert words == sorted(words)
    assert run(["segment", "--list-classes", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == words


@pytest.mark.parametrize("command", ["segment", "eval voc", "build-dataset cutouts"])
def test_help_names_ranges_and_defaults(command: str, capsys: Captured) -> None:
    assert run([*command.split(), "--help"]) == 0
    help_text = " ".join(capsys.readouterr().out.split())
    ranges = {
        "segment": ("0 to 1; the model's own by default", "16<=x<=8192"),
        "eval voc": ("0 to 1; the protocol's by default",),
        "build-dataset cutouts": ("64 to 4096", "0 to 0.9", "1 or more"),
    }
    assert all(text in help_text for text in ranges[command])
