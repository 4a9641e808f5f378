"""The momentum encoder: a slow copy of the image encoder that no gradient reaches."""

import copy

from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from ovseg.models.ovsegmentor.image_encoder import ImageEncoder


class MomentumEncoder:
    """A copy whose weights follow the online encoder's exponentially.

    The copy stays in training mode, drop path and Gumbel noise included, as in the reference.

    Args:
        online: the encoder to follow, which the copy starts equal to.
        momentum: share of its own weights that the copy keeps per step.
    """

    def __init__(self, online: ImageEncoder, momentum: float) -> None:
        self.encoder = copy.deepcopy(online).requires_grad_(False).train()
        self._update = get_ema_multi_avg_fn(momentum)
        self._own: list[Tensor] = list(self.encoder.parameters())
        self._followed: list[Tensor] = list(online.parameters())

    def follow(self) -> None:
        """One step towards the online encoder, after its optimizer step; all tensors at once."""
        self._update(self._own, self._followed, 0)
