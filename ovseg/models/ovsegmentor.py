"""OVSegmentor (Xu et al., CVPR 2023): image encoder, text encoder and what joins them.

Letters: B image or text, G group, L token, C embedding width.
"""

import math

import torch
from torch import Tensor, nn

from ovseg.models.entity_decoder import EntityDecoder
from ovseg.models.image_encoder import EncodedImage, ImageEncoder
from ovseg.models.projector import Projector
from ovseg.models.text_encoder import EncodedText, TextEncoder


class OVSegmentor(nn.Module):
    """The trained modules. Encoders run once; each projection is a call of its own.

    Projections are apart since BatchNorm, in training, normalises with the rows of its own call.

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

    def embed_image(self, encoded: EncodedImage) -> Tensor:
        """Image embedding, float [B, C], not normalised: the projected mean group."""
        return self.image_projector(encoded.mean)

    def embed_groups(self, encoded: EncodedImage) -> Tensor:
        """Group embeddings, float [B, G, C], not normalised."""
        return self.image_projector(encoded.groups)

    def embed_text(self, encoded: EncodedText) -> Tensor:
        """Text embedding, float [B, C], not normalised."""
        return self.text_projector(encoded.sentence)

    def complete_entities(self, masked: EncodedText, encoded: EncodedImage) -> Tensor:
        """What the image says about the masked words, float [B, C], not normalised."""
        answer = self.entity_decoder(masked.tokens, masked.mask, encoded.groups)
        return self.bridge_projector(answer)
