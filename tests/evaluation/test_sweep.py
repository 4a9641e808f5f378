"""Backgrounds that are swept: every rule, by the pass of the encoder that there is anyway."""

from pathlib import Path

import pytest

from ovseg.errors import UsageError
from ovseg.evaluation.evaluate import measure, prepare
from ovseg.evaluation.result import EvaluationResult
from ovseg.evaluation.run import Run
from ovseg.evaluation.sweep import check_sweep
from tests.evaluation.fakes import SMALL, FakeModel, folder_set


@pytest.mark.parametrize(("name", "own"), [("groupvit", ""), ("tcl", "constant")])
def test_every_rule_scores_as_it_does_alone(tmp_path: Path, name: str, own: str) -> None:
    evaluated, model = folder_set(tmp_path), FakeModel(grouped=name == "groupvit")
    calls: list[int] = []
    run = prepare(model, evaluated, name, SMALL, sweep="background")
    result = measure(run)
    calls.append(len(model.calls))
    assert calls[0] == len(evaluated.samples)  # windows of an image at once, and only once
    rules = result.sweep_by_rule
    assert list(rules) == ["", *(r for r in ("probability", "constant", "words") if r != own)]
    for rule, points in rules.items():
        if not rule:
            continue
        assert len(points) >= 19
        for point in points[::8]:
            changes = {**SMALL, "background_rule": rule, "threshold": point.threshold}
            alone = measure(prepare(model, evaluated, name, changes))
            assert alone.scores.mean_iou == pytest.approx(point.mean_iou), (rule, point)
    path = tmp_path / "result.json"
    result.write(path)
    assert EvaluationResult.read(path).sweep == result.sweep


def test_an_interrupted_sweep_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVSEG_CACHE", str(tmp_path / "cache"))
    evaluated, model = folder_set(tmp_path / "set"), FakeModel(grouped=False)
    run = prepare(model, evaluated, "tcl", SMALL, sweep="background")
    whole = measure(run)
    other = prepare(model, evaluated, "tcl", SMALL, sweep="threshold")
    assert run.points == len(whole.sweep) > other.points == 19
    assert run.key != other.key


def test_what_cannot_be_swept_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(UsageError, match="only threshold or background"):
        check_sweep("model")
    assert (check_sweep(True), check_sweep(None), check_sweep(False)) == ("threshold", "", "")
    model = FakeModel(grouped=False)
    plain = folder_set(tmp_path / "plain", background=False)
    with pytest.raises(UsageError, match="has no background"):
        prepare(model, plain, "tcl", SMALL, sweep="background")
    evaluated = folder_set(tmp_path / "set")
    changes = {**SMALL, "refine": "pamr", "refine_windows": True}
    run: Run = prepare(model, evaluated, "tcl", changes, sweep="background")
    assert [each.rule for each in run.rules] == []
    assert "the rule probability is not swept: refine_windows" in caplog.text
