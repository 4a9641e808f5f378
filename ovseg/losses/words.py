"""Words that a caption does not mention: which of them are wrong answers for its image.

Five captions of a photo name a few of the things in it. A word that is missing may be there all
the same, so it is no negative for certain.

Letters: B image, W word.
"""

from typing import Literal

import torch
from torch import Tensor

from ovseg.losses.pooling import unit

Absent = Literal["negative", "similar", "top"]


def surely_absent(
    present: Tensor,
    scores: Tensor,
    texts: Tensor,
    absent: Absent,
    most_alike: float,
    left_out: float,
) -> Tensor:
    """Words that count as wrong answers for an image, bool [B, W].

    Args:
        present: words that the captions name, bool [B, W].
        scores: of each word for each image, float [B, W].
        texts: features of the words before the trained part, float [W, E], not normalised.
        absent: "negative" counts every word that is not named; "similar" leaves out those whose
            cosine with a named one exceeds `most_alike` (a puppy is a dog); "top" leaves out the
            share `left_out` of each image's absent words that score highest, which are likeliest to
            be there.
    """
    missing = ~present
    if absent == "similar":
        return missing & ~_like_one_named(present, texts, most_alike)
    if absent == "top":
        return missing & ~_highest(scores.detach(), missing, left_out)
    return missing


def _like_one_named(present: Tensor, texts: Tensor, most_alike: float) -> Tensor:
    texts = unit(texts)
    alike = (texts @ texts.T > most_alike).float()  # [W, W]
    return present.float() @ alike > 0


def _highest(scores: Tensor, missing: Tensor, share: float) -> Tensor:
    """The `share` of each row's missing words with the highest scores, bool [B, W]."""
    lowest = torch.finfo(scores.dtype).min
    order = scores.masked_fill(~missing, lowest).argsort(dim=1, descending=True)
    rank = torch.empty_like(order).scatter_(
        1, order, torch.arange(order.shape[1], device=order.device).expand_as(order)
    )
    return missing & (rank < (share * missing.sum(dim=1, keepdim=True)).floor())


def frequency_offsets(counts: Tensor, strength: float) -> Tensor:
    """What is added to each word's logits in training, float [W]: `strength * log p(word)`.

    Words that captions name often then need less from the image, and without the offset, at
    inference, rare ones are not at a disadvantage (logit adjustment, Menon et al. 2021).

    Args:
        counts: images that name each word, int64 [W].
    """
    share = (counts.double() + 1) / (counts.sum() + len(counts))
    return (strength * share.log()).float()
