"""Scenes composed by `ovseg build-dataset cutouts`, read back and evaluated."""

import json
from pathlib import Path

import numpy as np
import pytest

from ovseg.data.cutouts.build import build_cutouts
from ovseg.data.cutouts.request import CutoutsRequest
from ovseg.evaluation.run import predictions
from ovseg.evaluation.sets.catalogue import open_set
from tests.data.cutouts.conftest import SHAPES, polygon, save
from tests.evaluation.fakes import FakeModel, run_of
from tests.evaluation.sets import tiny


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("scenes")
    places = [("cat", "triangle"), ("cat", "corner"), ("dog", "bolt"), ("dog", "hourglass")]
    for index, (name, shape) in enumerate(places):
        colour = (60 * index, 200 - 40 * index, 30)
        save(root / f"cutouts/{index}.png", polygon(SHAPES[shape], colour), f"A {name}.")
    coarse = np.random.default_rng(5).integers(0, 255, (3, 4, 3)).astype(np.uint8)
    tiny.photo(root / "photographs/0.jpg", np.kron(coarse, np.ones((100, 100, 1), np.uint8)))
    out = root / "out"
    build_cutouts(CutoutsRequest(root / "cutouts", root / "photographs", out, 12, 3, 96, 0.5))
    return out


def test_labels_cover_what_the_set_says_it_placed(scenes: Path) -> None:
    """Areas and categories of the JSON, image by image, against the label maps that are read."""
    evaluated = open_set("cutouts", scenes)
    assert (evaluated.classes, evaluated.background) == (("background", "cat", "dog"), True)
    document = json.loads((scenes / "annotations/panoptic_test.json").read_text())
    names = {entry["id"]: entry["name"] for entry in document["categories"]}
    assert len(evaluated.samples) == len(document["annotations"]) == 6
    for sample, truth in zip(evaluated.samples, document["annotations"], strict=True):
        labels = evaluated.read_labels(sample)
        for label, name in enumerate(evaluated.classes[1:], start=1):
            own = [s for s in truth["segments_info"] if names[s["category_id"]] == name]
            assert (labels == label).sum() == sum(segment["area"] for segment in own)


def test_both_sides_are_splits(scenes: Path) -> None:
    assert len(open_set("cutouts", scenes, "train").samples) == 6


def test_they_can_be_evaluated(scenes: Path) -> None:
    run = run_of(open_set("cutouts", scenes), FakeModel(grouped=True))
    found = [labels for _, labels in predictions(run, run.evaluated.samples)]
    assert len(found) == 6
    assert max(int(labels.max()) for labels in found) <= 2
