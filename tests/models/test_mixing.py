"""Positions mixed with those that look alike."""

import math

import pytest
import torch
from torch.nn import functional

from ovseg.models import mixing
from ovseg.models.mixing import affinity, mixed


def test_shares_by_hand() -> None:
    two = torch.tensor([[[2.0, 0.0], [0.0, 3.0]]])  # cosines 1 and 0
    share = math.exp(4) / (math.exp(4) + 1)
    found = affinity(two, two, 4.0)[0]
    torch.testing.assert_close(found, torch.tensor([[share, 1 - share], [1 - share, share]]))


def test_mixing_is_a_mean_over_like_positions_again_and_again() -> None:
    torch.manual_seed(0)
    values, features = torch.randn(2, 5, 3), torch.randn(2, 5, 4) + 7
    wanted = values
    for _ in range(2):
        after = torch.zeros_like(wanted)
        for image in range(2):
            own = features[image] - features[image].mean(dim=0)
            for place in range(5):
                likeness = functional.cosine_similarity(own[place][None], own)
                after[image, place] = (6.0 * likeness).softmax(0) @ wanted[image]
        wanted = after
    torch.testing.assert_close(mixed(values, features, 6.0, 2), wanted)


def test_where_all_looks_alike_all_get_the_mean() -> None:
    values = torch.tensor([[[1.0], [2.0], [6.0]]])
    torch.testing.assert_close(
        mixed(values, torch.ones(1, 3, 4), 6.0, 1), torch.full((1, 3, 1), 3.0)
    )


def test_a_few_at_a_time_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    values, features = torch.randn(2, 9, 3), torch.randn(2, 9, 4)
    whole = mixed(values, features, 6.0, 2)
    monkeypatch.setattr(mixing, "PIECE", 40)  # two rows of eighteen
    torch.testing.assert_close(mixed(values, features, 6.0, 2), whole)
