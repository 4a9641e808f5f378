"""Scores of images from scores at positions, against sums written out."""

import math

import pytest
import torch
from torch.nn import functional

from ovseg.losses.pooling import (
    chosen_heads,
    own_attention,
    pooled,
    position_scores,
    smooth_maximum,
)


def test_cosines_at_positions_by_hand() -> None:
    positions = torch.tensor([[[3.0, 0.0], [0.0, 2.0]]])
    texts = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    scores = position_scores(positions, texts)
    half = 1 / math.sqrt(2)
    torch.testing.assert_close(scores, torch.tensor([[[1.0, 0.0], [half, half]]]))


def test_smooth_maximum_by_hand_and_at_its_ends() -> None:
    scores = torch.tensor([[0.2, 0.8, 0.5]])
    by_hand = math.log((math.exp(1.0) + math.exp(4.0) + math.exp(2.5)) / 3) / 5
    assert float(smooth_maximum(scores, 5.0)) == pytest.approx(by_hand, rel=1e-6)
    assert float(smooth_maximum(scores, 1e-3)) == pytest.approx(0.5, abs=1e-3)
    assert float(smooth_maximum(scores.double(), 1e4)) == pytest.approx(0.8, abs=1e-3)


def test_own_attention_by_hand() -> None:
    weights = [math.exp(2.0), math.exp(4.0)]
    by_hand = (weights[0] * 0.5 + weights[1] * 1.0) / sum(weights)
    found = own_attention(torch.tensor([0.5, 1.0]), 4.0)
    assert float(found) == pytest.approx(by_hand, rel=1e-6)


def test_no_gradient_flows_through_the_attention() -> None:
    scores = torch.tensor([0.5, 1.0], requires_grad=True)
    own_attention(scores, 4.0).backward()
    torch.testing.assert_close(scores.grad, (4 * scores.detach()).softmax(0))


def test_mean_is_the_plain_one() -> None:
    scores = torch.rand(2, 3, 4)
    torch.testing.assert_close(pooled(scores, "mean", 9.0), scores.mean(-1))


def test_each_caption_chooses_the_head_nearest_to_it() -> None:
    torch.manual_seed(0)
    heads, texts = torch.randn(4, 3, 5), torch.randn(4, 5)
    heads.requires_grad_()
    found = chosen_heads(heads, texts)
    for image in range(4):
        cosines = functional.cosine_similarity(heads[image].detach(), texts[image][None], dim=1)
        best = cosines.tolist().index(max(cosines.tolist()))
        assert torch.equal(found[image], heads[image, best])
    found.sum().backward()
    assert float(heads.grad.sum()) == 4 * 5  # one head of each image
