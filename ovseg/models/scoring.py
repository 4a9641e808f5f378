"""How strongly each group of an image shows each class: OVSegmentor's inference rule.

Letters: B image, G group, K class, C embedding width.
"""

import torch
from torch import Tensor
from torch.nn import functional

LIKELY_CLASSES = 5


def group_scores(
    groups: Tensor,
    images: Tensor,
    classes: Tensor,
    scale: Tensor,
    threshold: float | None,
    likely: int = LIKELY_CLASSES,
) -> Tensor:
    """Score background and classes per group, float [B, G, 1 + K].

    With `S` the scaled cosines of groups and classes, `P = softmax(S)` over all classes and `P5`
    the softmax over the classes that the whole image is most like, a class scores `P5 * P`.
    Background (column 0) scores 1 where the best class of a group stays below `threshold` and below
    the best score of any group of the image, else 0; -inf if `threshold` is None.

    Args:
        groups: group embeddings, float [B, G, C]; any length.
        images: image embeddings, float [B, C]; any length.
        classes: class embeddings, float [K, C]; any length.
        scale: what cosines are multiplied by, float [].
        likely: classes that the image embedding keeps (all if there are fewer).
    """
    groups, images, classes = (functional.normalize(x, dim=-1) for x in (groups, images, classes))
    similarity = scale * torch.einsum("bgc,kc->bgk", groups, classes)
    kept = (images @ classes.T).topk(min(likely, len(classes)), dim=-1).indices  # [B, 5]
    unlikely = torch.ones(len(images), len(classes), dtype=torch.bool, device=kept.device)
    unlikely = unlikely.scatter(1, kept, False)[:, None]  # [B, 1, K]
    among_likely = similarity.masked_fill(unlikely, -torch.inf).softmax(dim=-1)
    scores = among_likely * similarity.softmax(dim=-1)  # [B, G, K]
    return torch.cat([_background(scores, threshold), scores], dim=-1)


def _background(scores: Tensor, threshold: float | None) -> Tensor:
    """Column of the background, float [B, G, 1]."""
    best = scores.amax(dim=-1, keepdim=True)  # [B, G, 1]
    if threshold is None:
        return torch.full_like(best, -torch.inf)
    limit = best.amax(dim=1, keepdim=True).clamp_max(threshold)
    return (best < limit).to(scores.dtype)
