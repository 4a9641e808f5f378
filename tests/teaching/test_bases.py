"""Teaching models of every family, of random weights, and whether the gain is told."""

import json
from pathlib import Path

import numpy as np
import pytest

import ovseg
from ovseg.errors import UsageError
from ovseg.evaluation.sets.catalogue import open_set
from ovseg.models.description import describe
from ovseg.models.interface import to_numpy
from ovseg.models.registry import load_model
from ovseg.models.taught.file import read_note
from ovseg.teaching.lessons import Curriculum, Teacher
from ovseg_cli.__main__ import run
from tests.models.aligned.tiny import write_tiny
from tests.models.clip.tiny import write_folder
from tests.models.ovsegmentor.test_predictor import write_small_checkpoint
from tests.teaching.photos import painted, painted_set


def _base(family: str, folder: Path) -> str:
    if family == "clip":
        return f"clip:{write_folder(folder)}"
    folder.mkdir()
    if family == "aligned":
        return str(write_tiny(folder / "base.safetensors"))
    return str(write_small_checkpoint(folder))


@pytest.mark.parametrize("family", ["clip", "ovsegmentor"])
def test_teaches_other_bases_than_the_built_in(family: str, tmp_path: Path) -> None:
    base = _base(family, tmp_path / "base")
    folder, mine = painted_set(tmp_path / "set", range(3)), tmp_path / "mine.safetensors"
    done = ovseg.teach(base, folder, mine, hidden=0, folds=2)
    assert done.classes == ("zonk", "blip")
    assert done.held_out["all"] >= done.held_out["words"]
    pixels, words = painted(12)[0], ["zonk", "blop", "cat"]
    found = ovseg.segment(pixels, words, mine)
    if family == "clip":
        assert {1, 2} & set(np.unique(found.labels))
    else:  # groups of random weights tell nothing; its checkpoint is in the file
        Path(base).unlink()
    again = ovseg.segment(pixels, words, mine)
    np.testing.assert_array_equal(found.labels, again.labels)
    np.testing.assert_array_equal(found.scores, again.scores)


def test_stuff_is_in_the_file_and_has_no_words(tmp_path: Path) -> None:
    base = _base("aligned", tmp_path / "base")
    folder, mine = painted_set(tmp_path / "set", range(2)), tmp_path / "mine.safetensors"
    ovseg.teach(base, folder, mine, hidden=0, folds=2, stuff="blip")
    assert read_note(mine).stuff == ("blip",)
    assert describe(str(mine))["model"]["stuff"] == ["blip"]
    model = load_model(mine, "cpu")
    words = to_numpy(model.encode_text(["zonk", "Blop", "cat"], ("{}",)))
    assert words[:, :-2].any(axis=1).tolist() == [True, False, True]
    assert words[:, -2:].tolist() == [[1, 0], [0, 1], [0, 0]]
    curriculum = Curriculum.of(open_set("folder", folder), None, ["blip"])
    teacher = Teacher(load_model(base, "cpu"), curriculum)
    lesson = next(iter(teacher.lessons(curriculum.evaluated.samples)))[1]
    assert lesson.words.any(axis=0).tolist() == [True, False]
    with pytest.raises(UsageError, match=r"stuff cat: .* which are zonk, blip"):
        ovseg.teach(base, folder, tmp_path / "x.safetensors", stuff="cat")


def test_comparison_tells_whether_the_gain_is_real(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = _base("aligned", tmp_path / "base")
    folder, mine = painted_set(tmp_path / "set", range(4)), tmp_path / "mine.safetensors"
    ovseg.teach(base, folder, mine, hidden=0, folds=2)
    unseen = painted_set(tmp_path / "unseen", range(10, 15))
    saved = tmp_path / "before.json", tmp_path / "after.json"
    for model, path in zip((base, mine), saved, strict=True):
        asked = ["eval", "folder", "--data", str(unseen), "--model", str(model)]
        assert run([*asked, "--save", str(path)]) == 0
    capsys.readouterr()
    assert run(["eval", "compare", *map(str, saved), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["mean_iou"][1] > told["mean_iou"][0]
    assert told["difference"]["interval"]["low"] > 0
