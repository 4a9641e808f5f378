"""`[loss]`: which losses train a model, and their weights in the sum."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from ovseg.config.section import Count, NonNegative, Positive, Section, Share

Pooling = Literal["mean", "maximum", "attention"]


class ContrastiveLossConfig(Section):
    """`[loss.contrastive]`: image-caption contrast (equation 4 of the paper).

    The keys after `max_scale` are for aligned models, whose scale is `[model.aligned.logits]`.
    """

    enabled: bool = True
    """Whether it is part of the sum."""
    weight: NonNegative = 1.0
    """In the sum."""
    initial_temperature: Positive = 0.07
    """What cosines are divided by at first; it is learned."""
    max_scale: Positive = 100.0
    """Upper bound of the learned scale, after its exponential."""
    score: Literal["mean", "maximum", "attention", "heads"] = "mean"
    """How well a caption fits an image: by the embedding of the image, by the smooth maximum or the
    caption's own attention over its positions, or by the head of the tower that it fits best."""
    sharpness: Positive = 40.0
    """Of the maximum and of the attention, in front of cosines."""
    form: Literal["softmax", "sigmoid", "talk2dino"] = "softmax"
    """Softmax over images and over captions; a sigmoid for each of both; or the softmax divided by
    the square of the batch, as Talk2DINO's."""


class EntityLossConfig(Section):
    """`[loss.entity]`: masked entity completion."""

    enabled: bool = True
    """Whether it is part of the sum."""
    weight: NonNegative = 1.0
    """In the sum."""


class MaskLossConfig(Section):
    """`[loss.mask]`: cross-image mask consistency, of the second stage."""

    enabled: bool = False
    """Whether it is part of the sum."""
    weight: NonNegative = 0.1
    """In the sum."""
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.6
    """A target pixel is on above this share of its mask's maximum."""
    trained_groups: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of the groups, those nearest to the shared entity, that receive a gradient."""
    smoothing: Positive = 1.0
    """Added to numerator and denominator of the Dice loss."""
    resolution: Annotated[int, Field(ge=1, le=2_048)] = 224
    """Side in pixels at which masks are matched and compared."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.99
    """Share of its old weights that the momentum encoder keeps per step."""


class CaptionLossConfig(Section):
    """`[loss.captions]`: captions scored at positions, beside the contrast; aligned models."""

    enabled: bool = False
    """Whether it is part of the sum."""
    weight: NonNegative = 1.0
    """In the sum."""
    pooling: Pooling = "attention"
    """From positions to the image: smooth maximum, or the caption's own attention over them."""
    sharpness: Positive = 40.0
    """Of the maximum and of the attention, in front of cosines."""


class WordLossConfig(Section):
    """`[loss.words]`: the entities of a photo's captions against its positions; aligned models."""

    enabled: bool = False
    """Whether it is part of the sum."""
    weight: NonNegative = 1.0
    """In the sum."""
    pooling: Pooling = "attention"
    """From positions to the image: smooth maximum, or the word's own attention over them."""
    sharpness: Positive = 40.0
    """Of the maximum and of the attention, in front of cosines."""
    form: Literal["softmax", "sigmoid"] = "softmax"
    """How it is computed."""
    absent: Literal["negative", "similar", "top"] = "negative"
    """Which words that no caption names are wrong answers: all; all but those like a named one; all
    but those that score highest."""
    most_alike: Annotated[float, Field(ge=-1, le=1)] = 0.6
    """With "similar": cosine of two words' text features from which on they are alike."""
    left_out: Share = 0.1
    """With "top": share of the absent words that are left out."""
    frequency: NonNegative = 0.0
    """How much of the logarithm of a word's frequency is added to its logits in training."""
    most: Count = 384
    """Words of a step at most, drawn from those that its captions name."""
    templates: tuple[str, ...] = (
        "{}",
        "a photo of a {}.",
        "there is a {} in the picture.",
        "the {}.",
        "a close view of {}.",
    )
    """Texts for a word, of which each step draws one."""

    @model_validator(mode="after")
    def _fits_together(self) -> "WordLossConfig":
        if not self.templates or any(text.count("{}") != 1 for text in self.templates):
            raise ValueError("templates must hold texts with one {} for the word")
        return self


class StructureLossConfig(Section):
    """`[loss.structure]`: each tower's own neighbourhoods are kept (arXiv 2506.16895)."""

    enabled: bool = False
    """Whether it is part of the sum."""
    weight: NonNegative = 10.0
    """In the sum."""
    temperature: Positive = 0.05
    """What similarities are divided by."""
    levels: Annotated[int, Field(ge=1, le=16)] = 1
    """Neighbours of neighbours up to this many steps."""
    rising_steps: Annotated[int, Field(ge=0)] = 1_000
    """Steps in which the weight rises from 0."""


class LossConfig(Section):
    """`[loss]`: which losses train the model, and their weights in the sum."""

    contrastive: ContrastiveLossConfig = ContrastiveLossConfig()
    entity: EntityLossConfig = EntityLossConfig()
    mask: MaskLossConfig = MaskLossConfig()
    captions: CaptionLossConfig = CaptionLossConfig()
    words: WordLossConfig = WordLossConfig()
    structure: StructureLossConfig = StructureLossConfig()

    @model_validator(mode="after")
    def _something_to_learn(self) -> "LossConfig":
        parts = (self.contrastive, self.entity, self.mask, self.captions, self.words)
        if not any(part.enabled and part.weight > 0 for part in parts):
            raise ValueError("no loss is enabled with a weight above 0")
        return self
