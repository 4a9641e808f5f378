"""The temperature makes odds as likely as they say, however sure a head is of itself."""

import numpy as np
import pytest

from ovseg.teaching.mixture import ALONE, HeldOutLogits, Mixture, fitted, mean_iou


@pytest.mark.parametrize("too_sure", [1.0, 4.0, 14.0])
def test_a_head_that_is_too_sure_is_cooled(too_sure: float) -> None:
    chance = np.random.default_rng(0)
    likely = chance.dirichlet((1.0, 1.0, 1.0), 4000).astype(np.float32)  # [N, C]
    true = (likely.cumsum(axis=1) < chance.random((4000, 1))).sum(axis=1)
    held_out = HeldOutLogits(
        linear=too_sure * np.log(likely),
        hidden=np.zeros_like(likely),
        priors=np.full(3, 1 / 3, np.float32),
        words=np.zeros((4000, 2), np.float32),
        shares=np.eye(3, dtype=np.float32)[true],
    )
    found = fitted([held_out], Mixture(linear=1.0), background=True)
    assert found.linear * found.temperature == pytest.approx(1 / too_sure, rel=0.2)


def test_words_that_know_better_than_masks_are_left_to_decide() -> None:
    chance = np.random.default_rng(1)
    true = chance.integers(3, size=2000)
    shares = np.eye(3, dtype=np.float32)[true]
    held_out = HeldOutLogits(
        linear=chance.normal(0, 200, (2000, 3)).astype(np.float32),
        hidden=chance.normal(0, 2, (2000, 3)).astype(np.float32),
        priors=np.full(3, 1 / 3, np.float32),
        words=4 * shares[:, 1:] - 2,
        shares=shares,
    )
    for start in (ALONE, Mixture()):
        assert mean_iou([held_out], fitted([held_out], start, True), True) > 0.95
