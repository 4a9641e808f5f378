"""OVSegmentor (Xu et al., CVPR 2023): image encoder, text encoder and what joins them.

Letters: B image or text, G group, L token, D image width, E text width, F width of the entity
decoder, C embedding width.
"""

import math

import torch
from torch import Tensor, nn

from ovseg.distributed import mean_over_processes
from ovseg.models.ovsegmentor.entity_decoder import EntityDecoder
from ovseg.models.ovsegmentor.image_encoder import EncodedImage, ImageEncoder
from ovseg.models.ovsegmentor.text_encoder import EncodedText, TextEncoder


class Projector(nn.Module):
    """Linear, BatchNorm, ReLU, Linear.

    In training each call normalises with the statistics of its own rows, so rows of different kinds
    (image means, group features) go through separate calls.
    """

    def __init__(self, width: int, hidden: int, out: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(width, hidden)
        self.norm: nn.BatchNorm1d | nn.SyncBatchNorm = nn.BatchNorm1d(hidden)
        self.out = nn.Linear(hidden, out)

    def forward(self, x: Tensor) -> Tensor:
        """Project features, float [..., width] -> [..., out]; all leading axes are rows."""
        rows = x.reshape(-1, x.shape[-1])  # BatchNorm takes one row axis
        hidden = self._normalise_batch(rows) if self.training else self.norm(self.hidden(rows))
        projected = self.out(hidden.relu())
        return projected.reshape(*x.shape[:-1], projected.shape[-1])

    def _normalise_batch(self, rows: Tensor) -> Tensor:
        """`norm(hidden(rows))` with the rows' mean taken off first.

        BatchNorm takes any constant off again, so the result is the same. But features of a batch
        are close to each other: taken off after the linear layer, the mean leaves few of a float's
        digits, which a small variance then magnifies.
        """
        centre = rows.detach().mean(dim=0)  # [width]
        if isinstance(self.norm, nn.SyncBatchNorm):
            centre = mean_over_processes(centre)
        normalised = self.norm(self.hidden(rows - centre))
        self._correct_running_mean(centre)
        return normalised

    @torch.no_grad()
    def _correct_running_mean(self, centre: Tensor) -> None:
        """Put what was taken off back into the mean that evaluation uses."""
        if self.norm.running_mean is not None and self.norm.momentum is not None:
            shift = self.hidden.weight @ centre.to(self.hidden.weight.dtype)
            # As BatchNorm itself, past autograd: the buffer was saved for a backward pass that
            # never reads it, and a second call before that pass must not spoil the first.
            self.norm.running_mean.data.add_(shift, alpha=self.norm.momentum)


class OVSegmentor(nn.Module):
    """The trained modules, by named steps: encoders, entity decoder, and projections.

    Encoders may see a batch in parts. Each projection is a call of its own, with the whole batch,
    since its BatchNorm, in training, normalises with the rows of that call.

    Args:
        initial_temperature: the learned scale starts at its inverse.
        max_scale: upper bound of the scale.
    """

    def __init__(
        self,
        image_encoder: ImageEncoder,
        text_encoder: TextEncoder,
        image_projector: Projector,
        text_projector: Projector,
        bridge_projector: Projector,
        entity_decoder: EntityDecoder,
        initial_temperature: float = 0.07,
        max_scale: float = 100.0,
    ) -> None:
        super().__init__()
        self.image_encoder = image_encoder
        self.text_encoder = text_encoder
        self.image_projector = image_projector
        self.text_projector = text_projector
        self.bridge_projector = bridge_projector
        self.entity_decoder = entity_decoder
        self.logit_scale = nn.Parameter(torch.tensor(-math.log(initial_temperature)))
        self.max_scale = max_scale

    @property
    def scale(self) -> Tensor:
        """What cosines are multiplied by before a softmax, at most `max_scale`, float []."""
        return self.logit_scale.exp().clamp_max(self.max_scale)

    def encode_image(self, pixels: Tensor) -> EncodedImage:
        """Group normalised images, float [B, 3, H, W], H and W multiples of the patch."""
        encoded: EncodedImage = self.image_encoder(pixels)
        return encoded

    def encode_text(self, ids: Tensor, mask: Tensor) -> EncodedText:
        """Encode token ids, int64 [B, L], with their mask [B, L]."""
        encoded: EncodedText = self.text_encoder(ids, mask)
        return encoded

    def embed_image(self, groups: Tensor) -> Tensor:
        """Image embedding of group features [B, G, D], float [B, C], not normalised."""
        return self.image_projector(groups.mean(dim=1))

    def embed_groups(self, groups: Tensor) -> Tensor:
        """Embeddings of group features [B, G, D], float [B, G, C], not normalised."""
        return self.image_projector(groups)

    def embed_text(self, sentence: Tensor) -> Tensor:
        """Text embedding of sentence features [B, E], float [B, C], not normalised."""
        return self.text_projector(sentence)

    def complete_entities(self, masked: EncodedText, image: EncodedImage) -> Tensor:
        """What the image says about a caption's masked words, float [B, F]; see `embed_answer`."""
        answer: Tensor = self.entity_decoder(masked.tokens, masked.mask, image.groups)
        return answer

    def embed_answer(self, answer: Tensor) -> Tensor:
        """Embedding of what `complete_entities` found, float [B, C], not normalised."""
        return self.bridge_projector(answer)
