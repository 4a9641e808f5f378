"""The command that measures the starter: its counting, on numbers worked out by hand."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from ovseg.data.class_list import ClassList
from ovseg.evaluation.sets.base import EvaluationSample, EvaluationSet
from ovseg.inference.encode import EncodedView
from ovseg.inference.views import Box, Padding, View
from ovseg.models.interface import GroupedImage
from tests.models.starter.test_starter import load_tool

tool: Any = load_tool("measure_starter")

# Two positions, left and right, and three phrases: 0.6 and 0.1, 0.3 and 0.9, nothing.
SCORES = np.array([[0.6, 0.3, 0.0], [0.1, 0.9, 0.0]], np.float32)


class TwoPositions:
    """A model whose class embeddings choose a column of SCORES."""

    templates = ("{}",)
    threshold = 0.2

    def encode_text(self, phrases: list[str], templates: tuple[str, ...]) -> np.ndarray:
        return np.eye(3, dtype=np.float32)[[("cat", "dog", "cow").index(p) for p in phrases]]

    def score(
        self, grouped: GroupedImage, classes: np.ndarray, threshold: float | None
    ) -> np.ndarray:
        scores = grouped.embedding @ classes.T
        bar = -np.inf if threshold is None else threshold
        return np.concatenate([np.full_like(scores[..., :1], bar), scores], axis=-1)


def view() -> EncodedView:
    grouped = GroupedImage(SCORES[None], (1, 2))
    pixels = np.zeros((3, 2, 4), np.float32)
    return EncodedView(grouped, View(pixels, (Box(0, 0, 2, 4),), Padding((2, 4))))


def evaluated(labels: np.ndarray, *, background: bool = True) -> EvaluationSet:
    return EvaluationSet(
        "coco-object",
        Path(),
        ClassList.of(["cat", "dog", "cow"]),
        background,
        (EvaluationSample("one", Path("one.jpg"), "1"),),
        lambda _sample: labels,
    )


def test_a_photo_is_asked_for_all_or_for_its_own_classes() -> None:
    target = np.array([[1, 1, 1, 1], [1, 1, 1, 1]], np.uint8)  # a cat, all over
    sample = SimpleNamespace(sample=evaluated(target).samples[0])
    both, own = (
        tool.Question("all", evaluated(target)),
        tool.Question("own", evaluated(target), True),
    )
    for question in (both, own):
        question.ask(TwoPositions(), sample, view())
    areas = [question.counts[0][0] for question in (both, own)]
    # Between the positions the scores cross: 0.6 to 0.1 and 0.3 to 0.9 at a quarter and three.
    assert areas[0].tolist() == [[0, 0, 0], [4, 8, 4], [0, 0, 4], [0, 0, 0]]
    assert areas[1].tolist() == [[0, 0, 2], [6, 8, 6], [0, 0, 0], [0, 0, 0]]


def test_false_alarms_are_those_of_absent_classes_asked_for_alone() -> None:
    # Above 0.2 are the dog at all pixels, the cow at none, and the cat, whose scores fall from 0.6
    # to 0.1 by 0.475 and 0.225, at three of four.
    alarms = [
        tool.false_alarms(
            TwoPositions(), view(), evaluated(np.zeros((2, 4), np.uint8)), here, (2, 4)
        )
        for here in ([0], [])
    ]
    assert alarms == [0.5, pytest.approx((0.75 + 1 + 0) / 3)]


def test_a_row_of_the_table() -> None:
    one = np.array([[4, 8, 4], [2, 2, 6]])  # IoU 4 / 8 and 2 / 6
    two = np.array([[8, 8, 8], [0, 0, 0]])  # IoU 1, and a class that is not there
    row = tool.row("things", [(one, two), (two, one)], True)
    assert row.mean_iou == pytest.approx(100 * (12 / 16 + 2 / 6) / 2)
    assert (row.even, row.odd) == pytest.approx((100 * (1 / 2 + 1 / 3) / 2, 100.0))
    assert row.low <= row.mean_iou <= row.high
    assert row.boundary_iou == pytest.approx(row.mean_iou)
    assert row.precision == pytest.approx(100 * 2 / 6)  # behind the background


def test_stuff_is_all_but_things(tmp_path: Path) -> None:
    annotations = tmp_path / "annotations"
    (annotations / "panoptic_train2017").mkdir(parents=True)
    (tmp_path / "train2017").mkdir()
    kinds = [("cat", 17, 1), ("sky-other-merged", 187, 0), ("grass-merged", 193, 0)]
    document = {
        "images": [{"id": 5, "file_name": "5.jpg"}],
        "categories": [{"name": n, "id": i, "isthing": t} for n, i, t in kinds],
        "annotations": [
            {
                "image_id": 5,
                "file_name": "5.png",
                "segments_info": [
                    {"id": number, "category_id": category}
                    for number, category in ((1, 17), (2, 187), (3, 193))
                ],
            }
        ],
    }
    (annotations / "panoptic_train2017.json").write_text(json.dumps(document))
    ids = np.zeros((1, 4, 3), np.uint8)
    ids[0, :, 2] = [0, 1, 2, 3]  # red, in OpenCV's order
    cv2.imwrite(str(annotations / "panoptic_train2017" / "5.png"), ids)
    cv2.imwrite(str(tmp_path / "train2017" / "5.jpg"), ids)
    found = tool.stuff(tmp_path, "train2017")
    assert found.words.names == ("sky", "grass")
    assert not found.background
    assert found.read_labels(found.samples[0]).tolist() == [[255, 255, 0, 1]]


def test_the_table_as_markdown() -> None:
    row = tool.Row("80 things", 16.31, 12.0, 18.0, 13.0, 14.0, 8.0, 47.1, 100)
    lines = tool.show(tool.Table((row,), 0.114, 198.7, 12.6)).splitlines()
    assert lines[2] == "| 80 things | 16.3 | 12.0 to 18.0 | 13.0, 14.0 | 8.0 | 47 % |"
    assert "0.11 % of the pixels" in lines[-1] and "199 ms" in lines[-1]
