"""`ovseg.pretrain` and `ovseg.plan_pretraining` as functions."""

from pathlib import Path

import pytest

import ovseg
from ovseg.errors import RecipeError, UsageError
from ovseg.training.log import LogLine, Observer
from tests.training.runs import SMALL, recipe


def test_a_run_and_its_plan(scenes: Path, tmp_path: Path) -> None:
    overrides = [*SMALL, f'data.shards=["{scenes}"]', "schedule.max_steps=2"]
    seen: list[LogLine] = []

    class Keep(Observer):
        def logged(self, line: LogLine) -> None:
            seen.append(line)

    plan = ovseg.plan_pretraining("smoke", overrides)
    assert (plan.steps, plan.global_batch) == (2, 4)
    result = ovseg.pretrain("smoke", tmp_path / "run", overrides, observer=Keep())
    assert isinstance(result, ovseg.TrainingResult) and result.steps == 2
    assert result.output == tmp_path / "run" and [line.step for line in seen] == [1, 2]


def test_what_makes_no_sense_is_said_at_once(scenes: Path) -> None:
    with pytest.raises(RecipeError, match="no such recipe"):
        ovseg.pretrain("cc4n")
    with pytest.raises(UsageError, match="--data-root"):
        ovseg.pretrain(recipe(scenes, "train.evaluate_on=voc"))
    with pytest.raises(UsageError, match="overrides are for recipes by name"):
        ovseg.plan_pretraining(recipe(scenes), ["train.seed=1"])
