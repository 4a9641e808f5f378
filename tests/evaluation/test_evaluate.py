"""The verbs of evaluation as a notebook calls them: nothing is printed, results are typed."""

from pathlib import Path

import numpy as np
import pytest

import ovseg
from ovseg.errors import RecipeError, UsageError
from ovseg.evaluation.evaluate import classify_folder, prepare, protocol_changes, retrieve_folder
from ovseg.evaluation.result import summarise
from ovseg.evaluation.run import Run, evaluate
from ovseg.models.interface import UnknownPhrase
from tests.evaluation.fakes import FakeModel, folder_set
from tests.evaluation.sets import tiny


def test_a_set_is_evaluated_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evaluated = folder_set(tmp_path / "set")
    model = FakeModel(grouped=True)
    seen: list[tuple[int, int]] = []
    result = ovseg.evaluate(
        "folder",
        tmp_path / "set",
        model,
        protocol="groupvit",
        threshold=0.6,
        sweep=True,
        limit=3,
        save=tmp_path / "result.json",
        report=tmp_path / "report",
        on_progress=lambda done, total: seen.append((done, total)),
    )
    assert isinstance(result, ovseg.EvaluationResult)
    assert (result.set_name, len(result.names), result.threshold) == ("folder", 3, 0.6)
    assert len(result.sweep) == 19 and seen[-1] == (3, 3)
    run = prepare(model, evaluated.first(3), "groupvit", {"threshold": 0.6})
    alone = summarise(run, evaluate(run))
    assert (result.confusion == alone.confusion).all()
    assert result.protocol_hash == alone.protocol_hash
    assert ovseg.EvaluationResult.read(tmp_path / "result.json").to_json() == result.to_json()
    assert (tmp_path / "report/index.html").is_file()
    assert capsys.readouterr() == ("", "")


def test_the_protocol_is_that_of_the_kind_of_model(tmp_path: Path) -> None:
    evaluated = folder_set(tmp_path)
    model = FakeModel(grouped=True)
    run = prepare(model, evaluated)
    assert isinstance(run, Run)
    assert (run.protocol.name, run.protocol.short_side, run.thresholds) == ("own", 32, ())
    changed = prepare(model, evaluated, changes={"scales": (1.0, 2.0)}, batch=2)
    assert (changed.protocol.scales, changed.batch) == ((1.0, 2.0), 2)
    with pytest.raises(RecipeError, match="refine"):
        prepare(model, evaluated, changes={"refine": "twice"})


def test_changes_of_a_protocol() -> None:
    assert protocol_changes() == {}
    assert protocol_changes(0.0, "none", ["flip"]) == {
        "threshold": 0.0, "refine": "none", "flip": True
    }  # fmt: skip
    assert protocol_changes(tta=("scales", "flip"))["scales"] == (0.75, 1.0, 1.25)
    with pytest.raises(UsageError, match="rotate: choose flip, scales or both"):
        protocol_changes(tta=["rotate", "flip"])


class Forgetful(FakeModel):
    """Knows no word but cat."""

    def unknown(self, phrases):
        return [UnknownPhrase(phrase, ()) for phrase in phrases if phrase != "cat"]


def test_unknown_words_are_named_in_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    prepare(Forgetful(grouped=True), folder_set(tmp_path))
    assert caplog.messages == [
        "fake-grouped does not know 3 of the 4 words of folder: red dog, tree, bush; their score "
        "is 0"
    ]


def test_folders_are_ranked(tmp_path: Path) -> None:
    for index, name in enumerate(("cat", "dog")):
        tiny.photo(tmp_path / name / "a.png", np.full((30, 40, 3), 200 * index, np.uint8))
    model = FakeModel(grouped=True)
    found = classify_folder(tmp_path, model)
    assert (found.model, found.images, found.classes) == ("fake-grouped", 2, 2)
    tiny.text(tmp_path / "captions.tsv", "cat/a.png\tcat\ndog/a.png\tdog\n")
    seen: list[int] = []
    recall = retrieve_folder(tmp_path, model, on_progress=lambda done, _: seen.append(done))
    assert (recall.texts, seen) == (2, [2])


def test_further_classes_count_as_background_where_they_win(tmp_path: Path) -> None:
    evaluated = folder_set(tmp_path)
    model = FakeModel(grouped=False)
    changes = {"short_side": 32, "threshold": 0.1}
    plain = prepare(model, evaluated, "own", changes)
    asked = protocol_changes(distractors="cat,zebra,quartz;agate")
    run = prepare(model, evaluated, "own", {**changes, **asked})
    assert run.protocol.distractors == ("zebra", "quartz; agate"), "the set has a cat of its own"
    assert run.protocol.hash != plain.protocol.hash
    before, after = (summarise(each, evaluate(each)).confusion for each in (plain, run))
    assert before.shape == after.shape
    assert after[:, 0].sum() > before[:, 0].sum()
    assert (after[:, 1:] <= before[:, 1:]).all()
    with pytest.raises(UsageError, match="no background"):
        prepare(model, folder_set(tmp_path / "b", background=False), "own", asked)
