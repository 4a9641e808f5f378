"""The inference rule, against numbers made by hand and the rule written out."""

import math

import pytest
import torch

from ovseg.models.scoring import group_scores


def test_two_groups_two_classes_by_hand() -> None:
    # Cosines are the identity and the scale is log 3: both softmaxes are (3/4, 1/4).
    eye = torch.eye(2)
    scores = group_scores(eye[None] * 7, torch.ones(1, 2), eye * 2, torch.tensor(math.log(3)), 0.5)
    assert scores[0, :, 1:].flatten().tolist() == pytest.approx([9 / 16, 1 / 16, 1 / 16, 9 / 16])
    assert scores[0, :, 0].tolist() == [0, 0]


def written_out(groups, image, classes, scale, threshold):
    unit = [x / x.norm(dim=-1, keepdim=True) for x in (groups, image, classes)]
    similarity = scale * unit[0] @ unit[2].T
    kept = sorted(range(len(classes)), key=lambda k: -float(unit[1] @ unit[2][k]))[:5]
    scores = torch.zeros_like(similarity)
    for g in range(len(groups)):
        whole = sum(math.exp(float(x)) for x in similarity[g])
        likely = sum(math.exp(float(similarity[g, k])) for k in kept)
        for k in kept:
            share = math.exp(float(similarity[g, k]))
            scores[g, k] = share / whole * share / likely
    limit = min(threshold, float(scores.max()))
    background = [1.0 if float(row.max()) < limit else 0.0 for row in scores]
    return torch.cat([torch.tensor(background).double()[:, None], scores], dim=1)


@pytest.mark.parametrize("threshold", [0.01, 0.2, 0.95])
@pytest.mark.parametrize("classes", [1, 4, 9])
def test_equals_the_rule_written_out(classes: int, threshold: float) -> None:
    torch.manual_seed(0)
    groups, images = torch.randn(2, 4, 6).double(), torch.randn(2, 6).double()
    words = torch.randn(classes, 6).double()
    found = group_scores(groups, images, words, torch.tensor(4.0).double(), threshold)
    for index in range(2):
        expected = written_out(groups[index], images[index], words, 4.0, threshold)
        torch.testing.assert_close(found[index], expected)


def test_the_best_group_is_never_background() -> None:
    torch.manual_seed(0)
    scores = group_scores(
        torch.randn(3, 4, 6), torch.randn(3, 6), torch.randn(9, 6), torch.tensor(1.0), 0.99
    )
    best = scores[..., 1:].amax(dim=-1)
    assert bool((scores[..., 0].gather(1, best.argmax(dim=1, keepdim=True)) == 0).all())
    assert float(scores[..., 0].sum()) == 3 * 3


def test_without_threshold_there_is_no_background() -> None:
    scores = group_scores(
        torch.randn(1, 2, 6), torch.randn(1, 6), torch.randn(3, 6), torch.tensor(1.0), None
    )
    assert scores[..., 0].flatten().tolist() == [-math.inf] * 2
