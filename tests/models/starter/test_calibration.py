"""Whether scores are what they say: its counting, on numbers worked out by hand."""

import numpy as np

from tests.models.starter.test_measure import TwoPositions, evaluated, tool, view
from tools.starter_calibration import Calibration, Painted, Reliability


def test_pixels_are_counted_by_their_winning_scores() -> None:
    painted = Painted(
        np.array([[0, 1, 1, 2, 2, 1]], np.uint8),
        np.array([[0.5, 0.55, 0.6, 0.99, 1.0, 0.7]], np.float32),
    )
    target = np.array([[1, 1, 2, 2, 0, 255]], np.uint8)  # the last one counts for nothing
    found = Reliability("both")
    found.add([(painted, target)])
    found.add([])
    assert found.counts[0].T.tolist() == [[1, 1, 0, 0, 2], [1, 0, 0, 0, 1]]
    assert found.lines() == [
        "| both | all | 100 % (16.67) | 0 % (16.67) | – | – | 50 % (33.33) | 50 % (66.67) |",
        "| both | even | 100 % (16.67) | 0 % (16.67) | – | – | 50 % (33.33) | 50 % (66.67) |",
        "| both | odd | – | – | – | – | – | – |",
    ]


def test_all_are_asked_for_at_once_and_each_alone() -> None:
    labels = np.array([[1, 1, 1, 1], [1, 1, 1, 1]], np.uint8)  # a cat, all over

    def paint(asked: list[int]) -> Painted:
        return tool.paint(TwoPositions(), evaluated(labels), view(), asked, labels.shape)

    calibration = Calibration()
    calibration.ask(paint, labels, 3)
    # Above the bar of 0.2: the cat or the dog everywhere; the cat at three of four; the dog.
    shown = [each.counts[0].sum(axis=0).tolist() for each in vars(calibration).values()]
    assert shown == [[8, 4], [6, 6], [8, 0]]
    assert [each.pixels for each in vars(calibration).values()] == [[8], [8], [16]]
    assert len(calibration.show().splitlines()) == 2 + 3 * 3
