"""ProxyCLIP's rule against its definition, and on both kinds of arrays."""

import numpy as np
import pytest
import torch

from ovseg.inference.refine import affinity
from ovseg.inference.refine.affinity import FeatureAffinity


def by_hand(scores: np.ndarray, features: np.ndarray, rule: FeatureAffinity) -> np.ndarray:
    """Of one window, with every similarity at once."""
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    similarity = unit @ unit.T
    logits = rule.gamma * (similarity - rule.beta * similarity.mean())
    logits[(logits < 0) & ~np.eye(len(logits), dtype=bool)] = -np.inf
    weights = np.exp(logits)
    return weights / weights.sum(axis=1, keepdims=True) @ scores


@pytest.mark.parametrize("piece", [1, 100, 10**6])
def test_agrees_with_the_definition(piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(affinity, "PIECE", piece)
    draw = np.random.default_rng(0)
    scores, features = draw.normal(size=(2, 12, 4)), draw.normal(size=(2, 12, 6)) + 0.5
    rule = FeatureAffinity(beta=1.1, gamma=2.0)
    wanted = np.stack([by_hand(*pair, rule) for pair in zip(scores, features, strict=True)])
    np.testing.assert_allclose(rule.refine(scores, features), wanted)
    found = rule.refine(torch.from_numpy(scores), torch.from_numpy(features))
    np.testing.assert_allclose(found.numpy(), wanted)


def test_a_patch_like_no_other_keeps_its_scores() -> None:
    scores = np.random.default_rng(0).normal(size=(1, 5, 3))
    alike = np.ones((1, 5, 4))  # the mean is 1, and nothing reaches 1.2 times it
    np.testing.assert_allclose(FeatureAffinity().refine(scores, alike), scores)
