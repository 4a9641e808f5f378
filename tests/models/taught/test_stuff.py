"""Taught classes that are background, by hand-made odds."""

from math import inf

import numpy as np
import pytest
import torch

from ovseg.models.taught.scoring import taught_scores
from ovseg.models.taught.stuff import scores_beside_stuff

THRESHOLD = 0.1
# Taught are mug, floor and wall; positions show a mug, floor, and something else.
ODDS = np.array([[[4, -3, -3], [-3, 4, 1], [-4, -4, -4]]], np.float32)
CAT = [1, 0, 0, 0]  # the base knows it; behind it no taught class
MUG, FLOOR = [0, 1, 0, 0], [0, 0, 1, 0]
BASE = np.array([[[0.1, 0.5], [0.1, 0.5], [0.1, 0.5]]], np.float32)  # cat everywhere


def _labels(phrases: list[list[int]], stuff: tuple[int, ...], background: float = 0.1) -> list[int]:
    base = np.zeros((1, 3, 1 + len(phrases)), np.float32)
    base[..., 0] = background
    for column, phrase in enumerate(phrases, start=1):
        base[..., column] = 0.5 * phrase[0]
    classes = np.array(phrases, np.float32)
    scores = scores_beside_stuff(base, ODDS, classes, 0.0, THRESHOLD, stuff)
    assert scores.shape == base.shape
    again = scores_beside_stuff(
        torch.from_numpy(base), torch.from_numpy(ODDS), torch.from_numpy(classes), 0.0, THRESHOLD,
        stuff,
    )  # fmt: skip
    np.testing.assert_allclose(again.numpy(), scores, rtol=1e-5, atol=1e-6)
    return scores[0].argmax(axis=1).tolist()


def test_what_was_not_taught_loses_where_stuff_is_found() -> None:
    assert _labels([CAT], ()) == [1, 1, 1]
    assert _labels([CAT], (1, 2)) == [1, 0, 1]
    assert _labels([CAT], (1, 2), background=-inf) == [1, 1, 1]  # there is no background


def test_stuff_that_is_asked_for_is_a_class() -> None:
    assert _labels([FLOOR, MUG], (1, 2)) == [2, 1, 0]
    assert _labels([CAT, FLOOR], (1, 2)) == [1, 2, 1]


def test_stuff_competes_each_for_itself() -> None:
    """A mug is likelier than floor and than wall, though not than both together."""
    odds = np.array([[[1.0, 0.6, 0.6]]], np.float32)
    base = np.array([[[THRESHOLD, 0.0]]], np.float32)
    told = (base, odds, np.array([MUG], np.float32), 0.0, THRESHOLD)
    assert taught_scores(*told)[0, 0].argmax() == 0
    assert scores_beside_stuff(*told, (1, 2))[0, 0].argmax() == 1


@pytest.mark.parametrize("logarithms", [False, True])
def test_columns_that_are_added_change_no_other(logarithms: bool) -> None:
    random = np.random.default_rng(0)
    base = random.normal(0.1, 0.1, (2, 5, 4)).astype(np.float32)
    odds = random.normal(size=(2, 5, 3)).astype(np.float32)
    classes = np.concatenate([np.ones((3, 2)), np.eye(3)], axis=1).astype(np.float32)
    told = (base, odds, classes, 0.3, THRESHOLD)
    plain = taught_scores(*told, logarithms)
    np.testing.assert_array_equal(scores_beside_stuff(*told, (), logarithms), plain)
    np.testing.assert_allclose(scores_beside_stuff(*told, (0, 2), logarithms), plain, rtol=1e-6)
