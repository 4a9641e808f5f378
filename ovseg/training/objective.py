"""Which losses train a model, and what they came to."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Objective:
    """Which losses train the model, by their weights; a weight of 0 switches one off.

    Attributes:
        mask_images: the number of images whose summed mask loss `mask` is the weight of. The
            reference sums over a device's batch of 128; here the mean over the whole batch is
            multiplied by it, so that the loss does not depend on how a batch is spread.
        threshold, trained_groups, smoothing, resolution: of `mask_consistency_loss`.
    """

    contrastive: float = 1.0
    entity: float = 1.0
    mask: float = 0.0
    mask_images: int = 128
    threshold: float = 0.6
    trained_groups: float = 0.5
    smoothing: float = 1.0
    resolution: int = 224


@dataclass(frozen=True)
class Losses:
    """The losses of a step, float [] each, without gradients; the mean over processes is the
    batch's. Those that are switched off are 0."""

    total: Tensor
    contrastive: Tensor
    entity: Tensor
    mask: Tensor
