"""Cross-image mask consistency against hand-computed values and naive loops."""

import itertools
import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from ovseg.losses.mask import (
    attention_masks,
    binary_targets,
    dice_loss,
    mask_consistency_loss,
    match_masks,
    min_max,
    relevance_of,
)

GRID = (2, 3)
SIZE = (8, 12)


def given(batch: int = 3, groups: int = 4, width: int = 5) -> tuple[Tensor, ...]:
    torch.manual_seed(0)
    shapes = [(groups, width), (groups, width), (GRID[0] * GRID[1], width), (groups,)]
    return tuple(torch.randn(batch, *shape).double() for shape in shapes)


def naive(query: Tensor, cross_query: Tensor, cross_key: Tensor, size: tuple[int, int]) -> float:
    """Image by image, with every permutation tried instead of the Hungarian algorithm."""
    total = 0.0
    groups, width = query.shape[1:]
    for image in range(len(query)):
        masks, pseudo = (
            functional.interpolate(
                (q[image] @ cross_key[image].T / math.sqrt(width)).reshape(1, groups, *GRID),
                size=size,
                mode="bilinear",
                align_corners=True,
            )[0]
            for q in (query, cross_query)
        )
        best = min(
            itertools.permutations(range(groups)),
            key=lambda order: sum(
                float((masks[i] / masks[i].norm() - pseudo[j] / pseudo[j].norm()).norm())
                for i, j in enumerate(order)
            ),
        )
        overlap = area = 0.0
        for i, j in enumerate(best):
            on = pseudo[j].sigmoid()
            target = (on > 0.6 * on.max()).double()
            mask = (masks[i] - masks[i].min()) / (masks[i].max() - masks[i].min())
            overlap += float((mask * target).sum())
            area += float(mask.sum() + target.sum())
        total += 1 - (2 * overlap + 1) / (area + 1)
    return total / groups


def test_equals_a_naive_loop_over_images_and_permutations() -> None:
    query, cross_query, cross_key, relevance = given()
    loss = mask_consistency_loss(query, cross_query, cross_key, relevance, GRID, SIZE)
    assert float(loss) == pytest.approx(naive(query, cross_query, cross_key, SIZE), rel=1e-10)


def test_the_loss_is_a_sum_over_images() -> None:
    tensors = given()
    total = mask_consistency_loss(*tensors, GRID, SIZE)
    alone = [
        mask_consistency_loss(*(x[image : image + 1] for x in tensors), GRID, SIZE)
        for image in range(3)
    ]
    assert float(total) == pytest.approx(float(sum(alone)), rel=1e-12)


def test_images_without_a_cross_image_do_not_count() -> None:
    query, cross_query, cross_key, relevance = given()
    some = torch.tensor([True, False, True])
    tensors = (query, cross_query, cross_key, relevance)
    kept = mask_consistency_loss(*(x[some] for x in tensors), GRID, SIZE)
    loss = mask_consistency_loss(*tensors, GRID, SIZE, valid=some)
    assert float(loss) == pytest.approx(float(kept), rel=1e-12)
    none = torch.zeros(3, dtype=torch.bool)
    assert float(mask_consistency_loss(*tensors, GRID, SIZE, valid=none)) == 0


def test_only_the_most_relevant_half_of_the_groups_learns() -> None:
    query, cross_query, cross_key, _ = given()
    query.requires_grad_()
    cross_query.requires_grad_()
    cross_key.requires_grad_()
    relevance = torch.tensor([[0.1, 3, -2, 1]] * 3).double()
    mask_consistency_loss(query, cross_query, cross_key, relevance, GRID, SIZE).backward()
    assert query.grad is not None
    learns = query.grad.abs().amax(dim=-1) > 0
    assert learns.tolist() == [[False, True, False, True]] * 3
    assert cross_query.grad is None and cross_key.grad is None


@pytest.mark.parametrize(("share", "trained"), [(1.0, 4), (0.75, 3), (0.3, 2), (0.01, 1)])
def test_the_share_of_trained_groups_is_a_setting(share: float, trained: int) -> None:
    query, cross_query, cross_key, relevance = given()
    query.requires_grad_()
    mask_consistency_loss(
        query, cross_query, cross_key, relevance, GRID, SIZE, trained_groups=share
    ).backward()
    assert query.grad is not None
    assert (query.grad.abs().amax(dim=-1) > 0).sum(dim=1).tolist() == [trained] * 3


def test_relevance_is_a_dot_product_per_group() -> None:
    groups = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])
    assert relevance_of(groups, torch.tensor([[10.0, 1.0]])).tolist() == [[12.0, 34.0]]


def test_dice_by_hand() -> None:
    masks = torch.tensor([[[[1.0, 0.5]], [[0.0, 1.0]]]])  # sum 2.5
    target = torch.tensor([[[[1.0, 1.0]], [[0.0, 0.0]]]])  # sum 2, overlap 1.5
    assert dice_loss(masks, target).tolist() == pytest.approx([1 - 4 / 5.5])


def test_targets_are_binarised_at_a_share_of_their_own_maximum() -> None:
    pseudo = torch.tensor([[[[0.0, 2.0, -2.0]], [[-3.0, -3.2, -9.0]]]])
    # Sigmoids 0.5, 0.88, 0.12 against 0.6 * 0.88; 0.047, 0.039, 0.0001 against 0.6 * 0.047.
    assert binary_targets(pseudo, 0.6).tolist() == [[[[0.0, 1.0, 0.0]], [[1.0, 1.0, 0.0]]]]


def test_masks_are_resized_with_aligned_corners() -> None:
    query = torch.tensor([[[2.0]]])
    key = torch.tensor([[[1.0], [3.0]]])
    masks = attention_masks(query, key, (1, 2), (1, 3))
    assert masks.tolist() == [[[[2.0, 4.0, 6.0]]]]


def test_matching_undoes_a_permutation() -> None:
    torch.manual_seed(0)
    pseudo = torch.randn(5, 6, 4, 4)
    order = torch.stack([torch.randperm(6) for _ in range(5)])
    masks = pseudo.gather(1, order[..., None, None].expand_as(pseudo)) * 3
    assert torch.equal(match_masks(masks, pseudo), order)


def test_matching_moves_to_the_host_once(monkeypatch: pytest.MonkeyPatch) -> None:
    moved = []
    original = Tensor.cpu
    monkeypatch.setattr(Tensor, "cpu", lambda self: moved.append(self.shape) or original(self))
    match_masks(torch.randn(5, 6, 4, 4), torch.randn(5, 6, 4, 4))
    assert moved == [(5, 6, 6)]


def test_a_constant_mask_is_zero_without_nan() -> None:
    masks = torch.stack([torch.full((3, 3), 7.0), torch.arange(9.0).reshape(3, 3)])[None]
    masks.requires_grad_()
    stretched = min_max(masks)
    stretched.sum().backward()
    assert stretched[0, 0].abs().max() == 0
    assert stretched[0, 1].max().item() == 1
    assert masks.grad is not None and bool(masks.grad.isfinite().all())


@pytest.mark.parametrize("flat", ["query", "key", "both"])
def test_constant_masks_give_a_finite_loss_and_gradient(flat: str) -> None:
    query, cross_query, cross_key, relevance = given()
    if flat in ("query", "both"):
        query, cross_query = torch.zeros_like(query), torch.zeros_like(cross_query)
    if flat in ("key", "both"):
        cross_key = cross_key[:, :1].expand_as(cross_key)
    query = query.clone().requires_grad_()
    loss = mask_consistency_loss(query, cross_query, cross_key, relevance, GRID, SIZE)
    loss.backward()
    assert math.isfinite(float(loss))
    assert query.grad is not None and bool(query.grad.isfinite().all())


def test_a_single_group_is_trained() -> None:
    query, cross_query, cross_key, relevance = given(groups=1)
    query.requires_grad_()
    loss = mask_consistency_loss(query, cross_query, cross_key, relevance, GRID, SIZE)
    loss.backward()
    assert math.isfinite(float(loss))
    assert query.grad is not None and float(query.grad.abs().max()) > 0


def test_half_precision_is_computed_in_single() -> None:
    query, cross_query, cross_key, relevance = (x.bfloat16() for x in given())
    loss = mask_consistency_loss(query, cross_query, cross_key, relevance, GRID, SIZE)
    exact = mask_consistency_loss(
        query.double(), cross_query.double(), cross_key.double(), relevance.double(), GRID, SIZE
    )
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(float(exact), rel=1e-4)


def test_features_that_are_not_finite_reach_the_loss_as_nan() -> None:
    query, cross_query, cross_key, relevance = given()
    query[0, 0, 0] = float("nan")
    loss = mask_consistency_loss(query, cross_query, cross_key, relevance, GRID, SIZE)
    assert math.isnan(float(loss))
