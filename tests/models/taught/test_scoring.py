"""The rule of taught classes: numbers made by hand, torch and NumPy."""

import math

import numpy as np
import pytest
import torch

from ovseg.models.taught.scoring import MOST_TOLD, margins, taught_scores

KINDS = pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])


@KINDS
def test_taught_classes_go_from_the_threshold_as_far_as_they_are_likelier(kind: type) -> None:
    """Two taught classes, one asked for, and a word; the model knows the first class's word."""
    base = np.float32([[[0.4, 0.5, 0.7], [0.4, 0.2, 0.7], [0.4, 0.0, 0.7]]])
    odds = np.float32([[[2.0, 1.0], [2.0, 1.0], [40.0, -90.0]]])
    classes = np.float32([[1, 1, 0], [1, 0, 0]])
    found = np.asarray(taught_scores(*(kind(x) for x in (base, odds, classes)), 0.1, 0.4))
    assert np.array_equal(found[..., 0], base[..., 0])
    alone = np.asarray(
        taught_scores(*(kind(x) for x in (base, odds, classes * np.float32([1, 0, 0]))), 0.1, 0.4)
    )
    assert np.array_equal(alone[..., 1:], base[..., 1:])  # nothing that was taught is asked for
    told = [2 + 0.1 * math.log(odd / (0.4 / 0.6)) for odd in (0.5 / 0.5, 0.2 / 0.8)]
    for position, first in enumerate(told):
        above = (math.exp(first) - 1 - math.e) / (1 + math.exp(first) + math.e)
        expected = 0.4 + above * (0.6 if above > 0 else 0.4)
        assert found[0, position, 1] == pytest.approx(expected, rel=1e-5)
        seen = min(first, 2)  # its words may take away from what masks see, not add
        assert found[0, position, 2] == pytest.approx(0.7 / (0.7 + 0.3 * math.exp(seen)), rel=1e-5)
    doubted = np.asarray(
        taught_scores(*(kind(x) for x in (base, odds, classes)), 0.1, 0.4, doubt=0.5)
    )
    assert doubted[0, 0, 2] == pytest.approx(0.7 / (0.7 + 0.3 * math.exp(1)), rel=1e-5)
    assert np.array_equal(doubted[..., 1], found[..., 1])
    assert found[0, 2, 1] == pytest.approx(1.0)


def test_taught_classes_that_masks_do_not_find_leave_other_words_as_they_are() -> None:
    """However many are asked for, and whatever their words say."""
    base = np.float32([[[0.5, 0.7, 0.6, 0.6]]])
    odds = np.float32([[[0.0, -1.0]]])
    classes = np.float32([[1, 0, 0], [1, 1, 0], [1, 0, 1]])
    found = taught_scores(base, odds, classes, 1.0, 0.5)
    assert found[0, 0, 1] == base[0, 0, 1]
    assert found[0, 0].argmax() == 1


def test_words_of_taught_classes_take_back_what_masks_say_of_others() -> None:
    """Masks that find a class everywhere do not silence the rest where its word is far."""
    base = np.float32([[[0.5, 0.7, 0.01], [0.5, 0.7, 0.6]]])
    odds = np.float32([[[2.0], [2.0]]])
    classes = np.float32([[1, 0], [1, 1]])
    found = taught_scores(base, odds, classes, 1.0, 0.5)
    assert found[0, 0, 1] == base[0, 0, 1]
    assert found[0, 1, 1] < base[0, 1, 1]


def test_words_find_nothing_beside_taught_ones_that_they_did_not_find_before() -> None:
    """Masks say that the taught class is not there: what it had is the background's."""
    chance = np.random.default_rng(0)
    base = np.pad(chance.random((1, 2000, 4), np.float32), ((0, 0), (0, 0), (1, 0)))
    base[..., 0] = 0.5
    odds = chance.normal(0, 5, (1, 2000, 2)).astype(np.float32)
    classes = np.float32([[1, 0, 0], [1, 0, 0], [1, 1, 0], [1, 0, 1]])
    before, after = base.argmax(axis=-1), taught_scores(base, odds, classes, 1.0, 0.5)
    for word in (1, 2):
        assert (before[after.argmax(axis=-1) == word] == word).all()
    surrounded = after[(before > 2) & (odds.max(axis=-1) < -6)]
    assert len(surrounded) and (surrounded.argmax(axis=-1) == 0).all()


def test_margins_are_bounded_whatever_the_threshold() -> None:
    for threshold in (0.0, 0.5, 1.0):
        found = margins(np.float32([[[0.0, 1e-9, 0.5, 1.0]]]), threshold)
        assert np.isfinite(found).all() and np.abs(found).max() == MOST_TOLD
    assert margins(np.float32([[[0.5]]]), 0.5) == pytest.approx(0)
