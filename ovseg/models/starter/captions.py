"""What positions show, in the space that captions and images share.

Letters: B image, h w rows and columns, N = h*w position, D feature, C embedding width, R word.

Learned from photos with captions alone, by `tools/make_starter_captions.py`: an aligned model on
stages of the classifier's network, of which this is the image's part.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from ovseg.models.projection import Projection
from ovseg.models.starter.network import LITE2

STAGES = (5, 7)
"""Stages of the network that are read; the later one has all that the classifier reads."""
FEATURES = sum(LITE2[stage - 1].width for stage in STAGES)
WIDTH = 256
HIDDEN = 512
FARTHEST = 5.0
"""Deviations from the mean beyond which a feature counts no more."""


THINGS, IMAGE = 0.5, 0.25
"""The powers of what captions say about a position and about the image, beside the classes of a
word that they are trusted about; of others, the smaller the less."""


class Described(NamedTuple):
    """Embeddings, of unit length or, as means, shorter: of keys and of the whole image."""

    positions: Tensor  # [B, M, C]
    image: Tensor  # [B, C]


class CaptionReader(nn.Module):
    """Embeddings of positions and images from two scales, and how likely words are by them.

    A word's product with `scale` times an embedding, less `none_of_these`, is the logarithm of how
    much likelier it is there than all words of the captions are, each as often as it was used.

    Args:
        words: R, of the reference words.
    """

    token_mean: Tensor
    token_deviation: Tensor
    reference: Tensor
    frequency: Tensor
    scale: Tensor

    def __init__(self, words: int) -> None:
        super().__init__()
        self.register_buffer("token_mean", torch.zeros(FEATURES))
        self.register_buffer("token_deviation", torch.ones(FEATURES))
        self.register_buffer("reference", torch.zeros(words, WIDTH))
        self.register_buffer("frequency", torch.zeros(words))  # logarithms
        self.register_buffer("scale", torch.ones(1))
        self.position_projection = Projection(FEATURES, WIDTH, form="parallel", hidden=HIDDEN)
        self.image_projection = Projection(FEATURES, WIDTH, form="parallel", hidden=HIDDEN)

    def forward(self, fine: Tensor, coarse: Tensor, keys: int) -> Described:
        """Features of an image and of the half-sized one, float [B, D, h, w] and [B, D, h/2, w/2].

        Where they are compared with words, the mean of unit vectors is the mean of cosines. Of the
        image they are read at the keys alone, of the half-sized one, which may have fewer
        positions, there.
        """
        large, small = (self._normal(maps) for maps in (fine, coarse))
        positions = self._positions(at_keys(large, keys).mT.unflatten(-1, (keys, keys)))
        positions = positions.flatten(2).mT + at_keys(self._positions(small), keys)
        image = self._image(large) + self._image(small)
        return Described(positions / 2, image / 2)

    def compared(self, positions: Tensor, around: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        """What class embeddings are multiplied by, of things and of surroundings.

        Args:
            positions: embeddings, float [B, N, C], as things are mixed.
            around: the same as surroundings are mixed.
            image: embedding, float [B, C].

        Returns:
            float [B, N, C + 1] each; the last channel is what is taken off whatever the word is.
        """
        things = THINGS * self._likely(positions) + IMAGE * self._likely(image)[:, None]
        return things, self._likely(around)

    def _likely(self, embeddings: Tensor) -> Tensor:
        scaled = self.scale * embeddings
        logits = scaled @ self.reference.T + self.frequency  # [..., R]
        return torch.cat([scaled, -log_sum_exp(logits)], dim=-1)

    def _normal(self, maps: Tensor) -> Tensor:
        """Features in deviations from their means, [B, D, h, w]."""
        mean, deviation = (x[:, None, None] for x in (self.token_mean, self.token_deviation))
        return ((maps - mean) / deviation).clamp(-FARTHEST, FARTHEST)

    def _positions(self, seen: Tensor) -> Tensor:
        """Unit embeddings of positions, [B, C, h, w]."""
        projected = self.position_projection(seen.movedim(1, -1))
        return functional.normalize(projected, dim=-1).movedim(-1, 1)

    def _image(self, seen: Tensor) -> Tensor:
        """A unit embedding of all positions, [B, C]."""
        return functional.normalize(self.image_projection(seen.mean(dim=(2, 3))), dim=-1)


def at_keys(values: Tensor, keys: int) -> Tensor:
    """A map, float [B, X, h, w], read at keys x keys places, float [B, M, X]."""
    at = functional.interpolate(values, (keys, keys), mode="bilinear", align_corners=False)
    return at.flatten(2).mT


def log_sum_exp(values: Tensor) -> Tensor:
    """Along the last axis, [..., 1], by a softmax, for which ONNX Runtime has a quick kernel."""
    most = values.amax(dim=-1, keepdim=True)
    return most - values.softmax(dim=-1).amax(dim=-1, keepdim=True).log()
