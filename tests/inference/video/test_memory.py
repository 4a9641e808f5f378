"""Scores that other frames make steadier."""

import numpy as np
import pytest

from ovseg.inference.video.correspondence import Correspondence
from ovseg.inference.video.memory import DETAIL, Features, Memory, on_grid, shares_of_labels

GRID, FINE = (2, 3), (4, 6)
SETTINGS = Correspondence(last=2, radius=0, top=1)


def features() -> Features:
    return Features(np.eye(6, dtype=np.float32)[None], GRID)


def scores(sure: float) -> np.ndarray:
    """Of two labels on the fine grid: the second is so sure in the left half."""
    found = np.full((1, 4, 6, 2), 0.5, np.float32)
    found[:, :, :3] = (1 - sure, sure)
    return found.reshape(1, 24, 2)


def test_the_first_frame_has_nothing_before_it() -> None:
    memory = Memory(SETTINGS, 0.5)
    found = memory.steadied(0, features(), scores(0.9), FINE)
    own = on_grid(scores(0.9), FINE, GRID)
    detail = scores(0.9) - on_grid(own, GRID, FINE)
    expected = on_grid(own, GRID, FINE) + (1 - DETAIL * 0.5) * detail
    assert found == pytest.approx(expected, abs=1e-6)


def test_frames_before_are_mixed_in() -> None:
    """Every position is most like itself, so that it takes from where it was."""
    memory = Memory(SETTINGS, 0.5)
    memory.steadied(0, features(), scores(0.9), FINE)
    memory.begin()
    memory.steadied(0, features(), scores(0.1), FINE)
    (remembered,) = memory._now[0]
    assert remembered.maps[0] == pytest.approx([0.5, 0.5])  # half of 0.1, half of 0.9
    memory.begin()
    memory.forget()
    assert memory._before(0, 0) == []


def test_frames_ahead_count_too() -> None:
    memory = Memory(SETTINGS, 1.0)
    memory.steadied(0, features(), scores(0.2), FINE, [(features(), scores(0.8))])
    assert memory._now[0][0].maps[0] == pytest.approx([0.2, 0.8])


def test_scores_of_any_kind_become_shares() -> None:
    positive = np.array([[[0.004, 0.012]]], np.float32)
    assert shares_of_labels(positive, 0.0)[0, 0] == pytest.approx([0.25, 0.75])
    cosines = np.array([[[-0.1, 0.1]]], np.float32)
    expected = np.exp([0, 2]) / np.exp([0, 2]).sum()
    assert shares_of_labels(cosines, 10.0)[0, 0] == pytest.approx(expected, rel=1e-5)
    assert np.isfinite(shares_of_labels(np.zeros((1, 1, 2), np.float32), 0.0)).all()


def test_grids() -> None:
    fine = np.arange(24, dtype=np.float32).reshape(1, 24, 1)
    coarse = on_grid(fine, FINE, GRID)
    assert coarse[0, 0, 0] == pytest.approx(np.mean([0, 1, 6, 7]))
    assert on_grid(coarse, GRID, GRID) is coarse
    assert on_grid(np.ones((2, 6, 3), np.float32), GRID, (5, 7)) == pytest.approx(1)
