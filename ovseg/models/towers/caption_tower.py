"""A model of a vision and a text tower, read at its patches, behind the interface of all models.

Letters: B image, N patch, P prompt, Q phrase, C embedding width, H W pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ovseg.models.background_words import STUFF_WORDS
from ovseg.models.interface import (
    DenseReading,
    GroupedImage,
    ModelCard,
    OpenVocabulary,
    Preprocessing,
)
from ovseg.models.scoring import dense_clip_scores

PROMPTS_A_BATCH = 256

READING = DenseReading(scale=40.0, background=STUFF_WORDS)
"""For everyone's pictures: SCLIP's scale and words, since neither TIPSv2 nor dino.txt is published
with a background. Nothing else of it changes which class a pixel gets."""

THRESHOLD = 0.0
"""The words alone decide what is background."""


class TextTower(Protocol):
    """Prompts to vectors."""

    def __call__(self, prompts: Sequence[str]) -> Tensor:
        """Not normalised, float32 [P, C]."""
        ...

    def to(self, device: str) -> object: ...


@dataclass(frozen=True)
class Towers:
    """What a model is made of.

    Attributes:
        vision: from normalised images with sides of whole patches to patches, [B, N, C].
        text: prompts to vectors.
        patch: pixels of a patch's side.
        preprocessing: of images.
        templates: prompt templates; a phrase is the mean of its prompts at length 1.
        card: what the model is.
    """

    vision: nn.Module
    text: TextTower
    patch: int
    preprocessing: Preprocessing
    templates: tuple[str, ...]
    card: ModelCard


class CaptionTower(OpenVocabulary):
    """Implements `DenseModel`: the groups are the patches."""

    reading = READING
    threshold = THRESHOLD

    def __init__(self, towers: Towers) -> None:
        self.towers = towers
        self.towers.vision.eval().requires_grad_(False)

    @property
    def card(self) -> ModelCard:
        return self.towers.card

    @property
    def preprocessing(self) -> Preprocessing:
        return self.towers.preprocessing

    @property
    def templates(self) -> tuple[str, ...]:
        return self.towers.templates

    def to(self, device: str) -> "CaptionTower":
        """Move both towers to a device and return self."""
        self.towers.vision.to(device)
        self.towers.text.to(device)
        return self

    def from_numpy(self, values: np.ndarray) -> Tensor:
        """A float32 tensor on the model's device."""
        return torch.from_numpy(values).to(next(self.towers.vision.parameters()).device)

    @torch.inference_mode()
    def encode_image(self, pixels: Tensor) -> GroupedImage:
        """Patches of images [B, 3, H, W] at length 1; sides between two patches are stretched."""
        pixels = stretched(pixels, self.towers.patch)
        patches = functional.normalize(self.towers.vision(pixels).float(), dim=-1)
        grid = (pixels.shape[-2] // self.towers.patch, pixels.shape[-1] // self.towers.patch)
        return GroupedImage(patches, grid)

    @torch.inference_mode()
    def encode_text(self, phrases: Sequence[str], templates: Sequence[str]) -> Tensor:
        """Class embeddings in float32, normalised: [Q, C]."""
        prompts = [template.format(phrase) for phrase in phrases for template in templates]
        starts = range(0, len(prompts), PROMPTS_A_BATCH)
        vectors = torch.cat(
            [self.towers.text(prompts[at : at + PROMPTS_A_BATCH]).float() for at in starts]
        )
        return mean_of_prompts(vectors.reshape(len(phrases), len(templates), -1))

    @torch.inference_mode()
    def score(
        self, grouped: GroupedImage, class_embeddings: Tensor, threshold: float | None
    ) -> Tensor:
        """Scaled cosines behind their background, [B, N, 1 + Q]; see `DenseClip.score`."""
        scale = self.reading.scale
        return dense_clip_scores(grouped.embedding, class_embeddings, scale, threshold)


def mean_of_prompts(vectors: Tensor) -> Tensor:
    """Of vectors [Q, P, C] the mean of each phrase's at length 1, at length 1: [Q, C]."""
    each = functional.normalize(vectors, dim=-1)
    return functional.normalize(each.mean(dim=1), dim=-1)


def stretched(pixels: Tensor, patch: int) -> Tensor:
    """Images [B, 3, H, W] up to the next whole patches: bicubic, not antialiased."""
    size = [ceil(side / patch) * patch for side in pixels.shape[2:]]
    if size == list(pixels.shape[2:]):
        return pixels
    return functional.interpolate(pixels, size, mode="bicubic", align_corners=False)
