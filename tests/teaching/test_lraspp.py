"""What teaching is measured beside learns from masks, and is scored pixel by pixel."""

from pathlib import Path

import numpy as np

from ovseg.evaluation.sets.catalogue import open_set
from tests.teaching.photos import painted_set
from tools.lraspp import Tuning, confusion_of, fine_tuned

TINY = Tuning(steps=2, batch=2, side=64, short_side=64)


def test_counts_every_pixel_and_is_the_same_with_the_same_seed(tmp_path: Path) -> None:
    evaluated = open_set("folder", painted_set(tmp_path, range(3)))
    first, again = (
        confusion_of(fine_tuned(evaluated, [0, 2], TINY), evaluated, TINY) for _ in range(2)
    )
    assert first.sum() == 3 * 96 * 96
    true = [(evaluated.read_labels(each) == 1).sum() for each in evaluated.samples]
    assert first[1].sum() == sum(true)
    np.testing.assert_array_equal(first, again)


def test_starts_from_a_backbone(tmp_path: Path) -> None:
    evaluated = open_set("folder", painted_set(tmp_path, range(1)))
    backbone = fine_tuned(evaluated, [0], TINY).backbone.state_dict()
    still = Tuning(steps=1, batch=2, side=64, short_side=64, learning_rate=1e-12)
    found = fine_tuned(evaluated, [0], still, backbone).backbone.state_dict()
    name = "0.0.weight"
    np.testing.assert_allclose(found[name].numpy(), backbone[name].numpy(), atol=1e-6)
