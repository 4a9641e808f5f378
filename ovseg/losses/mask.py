"""Cross-image mask consistency: two images of one entity agree on its mask (Xu et al., sec. 3.4).

Letters: B image, G group, N patch, D width, C embedding width, H W pixels, h w grid rows and
columns; i online group, j momentum group.
"""

import math
from collections.abc import Callable

import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from ovseg.errors import MissingDependencyError


def mask_consistency_loss(
    query: Tensor,
    cross_query: Tensor,
    cross_key: Tensor,
    relevance: Tensor,
    grid: tuple[int, int],
    size: tuple[int, int] = (224, 224),
    threshold: float = 0.6,
    trained_groups: float = 0.5,
    smoothing: float = 1.0,
    valid: Tensor | None = None,
) -> Tensor:
    """Dice loss between the masks that an image's groups and a momentum encoder find.

    Both look at the cross image: the momentum encoder with its own queries (the pseudo masks), the
    online encoder with the queries it found in another image of the same entity.

    Args:
        query: assignment queries of the image, online encoder, float [B, G, D].
        cross_query, cross_key: assignment queries [B, G, D] and keys [B, N, D] of the cross image,
            momentum encoder; no gradient flows into them.
        relevance: how near each group is to the shared entity, float [B, G]; see `relevance_of`.
        grid: rows and columns (h, w) of the keys.
        size: rows and columns (H, W) at which masks are compared.
        threshold: a pseudo mask is on above this share of its own maximum.
        trained_groups: share of the groups that receive a gradient, the most relevant ones.
        smoothing: added to both parts of the Dice fraction.
        valid: images that have a cross image, bool [B]; all by default.

    Returns:
        The loss, float []: 1 - Dice over all masks of an image, divided by G, summed over images as
        in the reference: it grows with the batch, and its weight of 0.1 belongs to 128 images.
    """
    with torch.no_grad():
        pseudo = attention_masks(cross_query, cross_key, grid, size)  # [B, G, H, W]
        target = binary_targets(pseudo, threshold)
    masks = attention_masks(query, cross_key.detach(), grid, size)
    masks = _detach_irrelevant(masks, relevance, trained_groups)
    order = match_masks(masks.detach(), pseudo)  # [B, G]
    target = target.gather(1, order[..., None, None].expand_as(target))
    loss = dice_loss(min_max(masks), target, smoothing) / masks.shape[1]  # [B]
    return loss.sum() if valid is None else loss.where(valid, 0).sum()


def relevance_of(group_embeddings: Tensor, entity_embedding: Tensor) -> Tensor:
    """Dot product of each group with the shared entity's text, float [B, G].

    Args:
        group_embeddings: projected groups, float [B, G, C], not normalised.
        entity_embedding: projected text of the entity, float [B, C], not normalised.
    """
    return torch.einsum("bgc,bc->bg", group_embeddings, entity_embedding)


def attention_masks(
    query: Tensor, key: Tensor, grid: tuple[int, int], size: tuple[int, int]
) -> Tensor:
    """Scaled dot products of queries and keys as masks, float [B, G, H, W], corners aligned."""
    query, key = _at_least_float32(query), _at_least_float32(key)
    logits = torch.einsum("bgd,bnd->bgn", query, key) / math.sqrt(query.shape[-1])
    masks = logits.unflatten(-1, grid)  # [B, G, h, w]
    return functional.interpolate(masks, size=size, mode="bilinear", align_corners=True)


def binary_targets(pseudo: Tensor, threshold: float) -> Tensor:
    """1 where the sigmoid of a raw mask exceeds `threshold` of its own maximum, [B, G, H, W]."""
    probability = pseudo.sigmoid()
    highest = probability.amax(dim=(-2, -1), keepdim=True)
    return (probability > threshold * highest).to(pseudo.dtype)


def min_max(masks: Tensor) -> Tensor:
    """Each mask stretched to 0..1; a constant one becomes 0 with zero gradient, not NaN."""
    lowest = masks.amin(dim=(-2, -1), keepdim=True)
    span = masks.amax(dim=(-2, -1), keepdim=True) - lowest
    flat = span <= torch.finfo(masks.dtype).tiny
    stretched = (masks - lowest) / span.masked_fill(flat, 1)
    return stretched.masked_fill(flat, 0)


def dice_loss(masks: Tensor, target: Tensor, smoothing: float = 1.0) -> Tensor:
    """1 - Dice over all masks of an image at once, float [B].

    Args:
        masks, target: values in 0..1, float [B, G, H, W].
    """
    overlap = (masks * target).sum(dim=(1, 2, 3))
    total = masks.sum(dim=(1, 2, 3)) + target.sum(dim=(1, 2, 3))
    return 1 - (2 * overlap + smoothing) / (total + smoothing)


def match_masks(masks: Tensor, pseudo: Tensor) -> Tensor:
    """The pseudo mask of each mask: a one-to-one matching of least total distance.

    The distance is L2 between raw masks of unit length. All images' costs go to the host in one
    transfer, since every transfer waits for the device.

    Args:
        masks, pseudo: raw masks, float [B, G, H, W].

    Returns:
        Index of the pseudo mask that mask i is matched with, int64 [B, G].
    """
    unit_masks = functional.normalize(masks.flatten(2), dim=-1)
    unit_pseudo = functional.normalize(pseudo.flatten(2), dim=-1)
    cosine = torch.einsum("bip,bjp->bij", unit_masks, unit_pseudo)
    # A mask of zeros has no direction: its length is 0 or 1, and |a-b|^2 takes that into account.
    square = unit_masks.square().sum(-1)[:, :, None] + unit_pseudo.square().sum(-1)[:, None]
    cost = (square - 2 * cosine).clamp_min(0).sqrt()
    # A step whose features are not finite must reach the loss, where training can skip it.
    costs = torch.nan_to_num(cost, nan=2.0).cpu().numpy()
    assign = _linear_sum_assignment()
    columns = [torch.from_numpy(assign(image)[1]) for image in costs]
    return torch.stack(columns).to(masks.device, torch.int64)


def _detach_irrelevant(masks: Tensor, relevance: Tensor, trained_groups: float) -> Tensor:
    """The same values, without gradients for the groups least relevant to the entity."""
    groups = masks.shape[1]
    untrained = math.floor(groups * (1 - trained_groups) + 1e-6)
    if untrained == 0:
        return masks
    least = relevance.topk(untrained, dim=1, largest=False).indices  # [B, untrained]
    trained = torch.ones_like(relevance, dtype=torch.bool).scatter(1, least, False)
    return torch.where(trained[..., None, None], masks, masks.detach())


def _at_least_float32(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def _linear_sum_assignment() -> Callable[[npt.NDArray], tuple[npt.NDArray, npt.NDArray]]:
    """SciPy's Hungarian algorithm; costs [G, G] to row and column indices."""
    try:
        from scipy.optimize import linear_sum_assignment
    except ImportError as error:
        raise MissingDependencyError("scipy", "train", "mask consistency") from error
    return linear_sum_assignment
