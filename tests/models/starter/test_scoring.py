"""Scores of the built-in model's positions, in torch and in NumPy."""

import numpy as np
import pytest
import torch

from ovseg.models.starter.scoring import CAUTION, LEAST_SHARE, starter_scores

# Two positions and three classes; the third class is nowhere.
PROBABILITIES = np.array([[[0.8, 0.1, 0.0], [0.02, 0.3, 0.0]]], np.float32)


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
def test_a_score_is_the_sum_of_shares_of_probabilities(kind: type) -> None:
    words = np.array([[1.0, 0.5, 0.0]], np.float32)
    found = starter_scores(kind(PROBABILITIES), kind(words), 0.25)
    assert np.allclose(np.asarray(found), [[[0.25, 0.85], [0.25, 0.17]]])


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
def test_scores_fall_with_the_number_of_phrases_that_are_grounded(kind: type) -> None:
    one, nothing = np.array([[1.0, 0, 0]], np.float32), np.zeros((1, 3), np.float32)
    alone = np.asarray(starter_scores(kind(PROBABILITIES), kind(one), None))[..., 1]
    for others in (1, 7):
        words = np.concatenate([one, np.repeat([[0, 1.0, 0]], others, axis=0), nothing])
        found = starter_scores(kind(PROBABILITIES), kind(words.astype(np.float32)), None)
        expected = alone / (1 + others) ** CAUTION
        assert np.allclose(np.asarray(found)[..., 1], expected)
        assert (np.asarray(found)[..., -1] == 0).all()
    assert (np.asarray(starter_scores(kind(PROBABILITIES), kind(nothing), None))[..., 1] == 0).all()


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
def test_a_phrase_is_not_where_it_has_too_little_of_its_best(kind: type) -> None:
    """Each image by its own best position, and only where there is a background to fall to."""
    steps = np.float32([1.0, 1.01 * LEAST_SHARE, 0.99 * LEAST_SHARE])
    images = np.stack([steps, steps / 2])[..., None]  # [B, P, C]
    words = np.ones((1, 1), np.float32)
    found = np.asarray(starter_scores(kind(images), kind(words), 0.0))[..., 1]
    assert np.allclose(found, [[1, 1.01 * LEAST_SHARE, 0], [0.5, 0.505 * LEAST_SHARE, 0]])
    everywhere = np.asarray(starter_scores(kind(images), kind(words), None))
    assert np.allclose(everywhere[..., 1], images[..., 0])
    assert (everywhere[..., 0] == -np.inf).all()
