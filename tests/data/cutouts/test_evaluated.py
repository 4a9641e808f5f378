"""Composed sets as `ovseg eval` reads them: what was drawn is what is scored."""

import json
import logging
from pathlib import Path

import cv2
import numpy as np
import pytest

from ovseg.data.cutouts import build
from ovseg.data.cutouts.request import CutoutsRequest, plan_cutouts
from ovseg.errors import UsageError
from ovseg.evaluation.sets.base import MOST_CLASSES
from ovseg.evaluation.sets.catalogue import open_set
from ovseg_cli.__main__ import run
from tests.data.cutouts.conftest import SHAPES, polygon, save

pytest.importorskip("resvg_py")


@pytest.fixture
def scenes(cutouts: Path, backgrounds: Path, tmp_path: Path) -> Path:
    request = CutoutsRequest(cutouts, backgrounds, tmp_path / "scenes", 30, 3, 96, 0.2)
    build.build_cutouts(request)
    return request.out


@pytest.mark.parametrize("side", ["test", "train"])
def test_labels_are_the_segments_of_the_composed_scenes(scenes: Path, side: str) -> None:
    document = json.loads((scenes / f"annotations/panoptic_{side}.json").read_text())
    category = {item["id"]: item["name"] for item in document["categories"]}
    opened = open_set("cutouts", scenes, split=side)
    assert opened.classes == ("background", *category.values())
    assert len(opened.samples) == len(document["annotations"])
    for sample, truth in zip(opened.samples, document["annotations"], strict=True):
        labels = opened.read_labels(sample)
        png = cv2.imread(str(scenes / f"annotations/panoptic_{side}" / truth["file_name"]))
        ids = png.astype(np.int64) @ [65536, 256, 1]
        expected = np.zeros(ids.shape, np.int64)
        for segment in truth["segments_info"]:
            name = category[segment["category_id"]]
            expected[ids == segment["id"]] = opened.classes.index(name)
        assert (labels == expected).all() and labels.any()
        assert labels.shape == cv2.imread(str(sample.image)).shape[:2]


def test_eval_scores_a_composed_set(scenes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch")
    command = ["eval", "cutouts", "--data", str(scenes), "--model", "starter", "--json"]
    assert run(command) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["images"] == 6
    assert [row["name"] for row in document["classes"]] == ["background", "cat", "dog"]


def test_a_share_for_testing_is_never_empty(
    cutouts: Path, backgrounds: Path, tmp_path: Path
) -> None:
    plan = plan_cutouts(CutoutsRequest(cutouts, backgrounds, tmp_path / "out", 3))
    assert (plan.train, plan.test) == (2, 1)
    with pytest.raises(UsageError, match="one scene cannot be divided"):
        plan_cutouts(CutoutsRequest(cutouts, backgrounds, tmp_path / "out", 1))
    whole = plan_cutouts(CutoutsRequest(cutouts, backgrounds, tmp_path / "out", 1, test_share=0))
    assert (whole.train, whole.test) == (1, 0)


def test_more_entities_than_eval_can_tell_apart(
    cutouts: Path,
    backgrounds: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert build.MOST_EVALUATED == MOST_CLASSES - 1  # the background is a class
    monkeypatch.setattr(build, "MOST_EVALUATED", 1)
    save(cutouts / "cat3.png", polygon(SHAPES["bar"], (9, 200, 200)), "A cat.")
    request = CutoutsRequest(cutouts, backgrounds, tmp_path / "all", 10, 3, 96, 0.2)
    with caplog.at_level(logging.WARNING):
        build.build_cutouts(request)
    assert "the test set has 2 entities; `ovseg eval` can tell 1 apart" in caplog.text
    caplog.clear()
    fewer = CutoutsRequest(cutouts, backgrounds, tmp_path / "top", 10, 3, 96, 0.2, top_entities=1)
    summary = build.build_cutouts(fewer)
    assert (summary.entities, caplog.text) == (1, "")
    assert summary.rejected == {"not among the 1 entities with most drawings": 5}
    assert (fewer.out / "classes.txt").read_text() == "cat\n"
