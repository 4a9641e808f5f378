"""What every segmentation model offers, whatever it was trained on.

Letters: B image, G group, Q phrase, A attention head, C embedding width, h w grid rows and columns.

A model turns an image into *groups*: regions given by a soft assignment of grid positions, each
with an embedding. It turns phrases into class embeddings of the same width, and scores one against
the other. A dense model is one whose groups are its positions; it leaves the assignment out.

Arrays are torch tensors, or NumPy arrays where a model runs without torch: code that handles them
keeps to the array API, so that it serves both.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeGuard

import array_api_compat
import numpy as np

# NumPy 2.1 keeps the standard itself. The wrapper for older ones imports all of NumPy, down to its
# Fortran tools, which takes longer than the first mask of a small model.
_KEEPS_THE_STANDARD = hasattr(np, "unstack")

Array = Any


def array_namespace(array: Array) -> Any:
    """The module that holds the functions for an array, as the array API standard has them."""
    if _KEEPS_THE_STANDARD and isinstance(array, np.ndarray):
        return np
    return array_api_compat.array_namespace(array)


def to_numpy(values: Array) -> np.ndarray:
    """An array of any kind, from any device, as a NumPy array of the same type."""
    return values.detach().cpu().numpy() if hasattr(values, "cpu") else np.asarray(values)


@dataclass(frozen=True)
class GroupedImage:
    """A batch of images, each as G regions.

    Attributes:
        embedding: what class embeddings are compared with, float [B, G, C].
        grid: rows and columns (h, w) of the positions, row-major; h*w = G for dense models.
        assignment: share of each position that belongs to each group, float [B, G, h*w], summing to
            1 over the groups; None where group g is position g.
        image_embedding: one embedding for the whole image, float [B, C], or None.
        heads: one embedding for each attention head A that looks for the whole image, float
            [B, A, C], or None.
        attention: where each of them looks, before a softmax, float [B, A, h*w], or None.
        features: what tells best which positions of two images show the same, float [B, N, D], on
            a grid of the same shape, perhaps coarser by a whole factor; None where that is what
            `refine affinity` goes by, too.
        stages: what classes can be taught on, float [B, N, S], on the grid of `features`; None
            where that is what positions or groups are compared with words by.
        weights: where embeddings are on a grid that is coarser by a whole factor, [B, N, C], what
            else scores at the positions of `grid` are made of, float [B, h*w, W]; None elsewhere.
    """

    embedding: Array
    grid: tuple[int, int]
    assignment: Array | None = None
    image_embedding: Array | None = None
    heads: Array | None = None
    attention: Array | None = None
    features: Array | None = None
    stages: Array | None = None
    weights: Array | None = None

    @property
    def correspondence(self) -> tuple[Array, tuple[int, int]]:
        """What positions of two images are compared by, float [B, N, D], and its grid."""
        rows, columns = self.grid
        if self.features is not None:
            times = round((rows * columns / self.features.shape[1]) ** 0.5)
            return self.features, (rows // times, columns // times)
        return self.own_features, self.grid

    @property
    def own_features(self) -> Array:
        """Of each position: its embedding, or who belongs to the same groups, float [B, N, D]."""
        if self.assignment is None:
            return self.embedding
        return array_namespace(self.assignment).matrix_transpose(self.assignment)


@dataclass(frozen=True)
class Preprocessing:
    """How pixels must reach the model.

    Attributes:
        mean, std: per RGB channel, in units of 0..255.
        short_side: pixels of the shorter image side the model is used at.
        long_side: most pixels the longer side may have; the aspect is kept.
        multiple_of: both sides are rounded to a multiple of this.
        window, stride: side and step of the sliding windows it is used with, in pixels of the
            resized image; a window of 0 is one pass over the whole image.
        resample: how images are resized: `bilinear` as OpenCV does it, not antialiased, or
            `bicubic` as Pillow does it, antialiased and with the longer side cut to whole pixels.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    short_side: int
    long_side: int = 2048
    multiple_of: int = 1
    window: int = 0
    stride: int = 0
    resample: Literal["bilinear", "bicubic"] = "bilinear"


@dataclass(frozen=True)
class ModelCard:
    """What a model is, for people and for cache keys.

    Attributes:
        name: as given to `--model`.
        kind: the family, such as `starter` or `ovsegmentor`.
        description: one sentence that says what it learned from.
        licence: SPDX expression of the weights.
        content_hash: SHA-256 over the weights and everything else that changes an embedding.
    """

    name: str
    kind: str
    description: str
    licence: str
    content_hash: str


@dataclass(frozen=True)
class UnknownPhrase:
    """A phrase that a closed model cannot ground, with the nearest ones that it can."""

    phrase: str
    nearest: tuple[str, ...]


@dataclass(frozen=True)
class DenseReading:
    """How a dense model's positions are compared with phrases, where it has its own way.

    Such models bring the cosine of each phrase to the size of the image first and compare phrases
    there. By the rule `probability` by a softmax over all phrases of `scale` times the cosine, with
    background where nothing is likely enough; by `constant` by the sigmoid of `scale` times the
    cosine and `bias`, with background where none exceeds the threshold.

    Attributes:
        scale: what cosines are multiplied by.
        pad_to: windows are padded with zeros to a multiple of this; 1 leaves them.
        background: phrases that stand for whatever was not asked for (`probability`).
        rule: `probability` or `constant`.
        bias: added to scaled cosines (`constant`).
    """

    scale: float
    pad_to: int = 1
    background: tuple[str, ...] = ("background",)
    rule: Literal["probability", "constant"] = "probability"
    bias: float = 0.0


@dataclass(frozen=True)
class PartlyKnown:
    """A phrase of which a closed model grounds a part only: `couch` of `a cat on a couch`."""

    phrase: str
    understood: str


class SegmentationModel(Protocol):
    """The interface of inference. Methods are pure: same input, same output, no gradients."""

    @property
    def card(self) -> ModelCard: ...

    @property
    def preprocessing(self) -> Preprocessing: ...

    @property
    def templates(self) -> tuple[str, ...]:
        """Prompt templates with one `{}` each, used unless the caller brings others."""
        ...

    @property
    def threshold(self) -> float:
        """Background threshold used unless the caller brings another."""
        ...

    def to(self, device: str) -> "SegmentationModel":
        """Move to a device named as torch names it, and return self."""
        ...

    def from_numpy(self, values: np.ndarray) -> Array:
        """Bring float32 values to the model's kind of array, device and type."""
        ...

    def encode_image(self, pixels: Array) -> GroupedImage:
        """Group normalised images, float [B, 3, H, W], sides multiples of `multiple_of`."""
        ...

    def encode_text(self, phrases: Sequence[str], templates: Sequence[str]) -> Array:
        """Class embedding of each phrase, averaged over the templates, float [Q, C]."""
        ...

    def score(
        self, grouped: GroupedImage, class_embeddings: Array, threshold: float | None
    ) -> Array:
        """Scores of background and phrases per group, float [B, G, 1 + Q], larger wins.

        Column 0 is the background by the model's own rule, -inf everywhere if `threshold` is None.
        """
        ...

    def known_words(self) -> list[str] | None:
        """All words a closed model can ground; None for open vocabularies."""
        ...

    def unknown(self, phrases: Sequence[str]) -> list[UnknownPhrase]:
        """The phrases that this model cannot ground; empty for open vocabularies."""
        ...


class OpenVocabulary:
    """What a model says of words when it takes any text."""

    def known_words(self) -> None:
        """None: the vocabulary is open."""
        return

    def unknown(self, phrases: Sequence[str]) -> list[UnknownPhrase]:
        """Nothing is unknown to it."""
        del phrases
        return []


class ClosedModel(SegmentationModel, Protocol):
    """A model that knows words only, and may find one in a longer phrase."""

    def partly_known(self, phrases: Sequence[str]) -> list[PartlyKnown]:
        """The phrases of which this model grounds some words and leaves out others."""
        ...


class DenseModel(SegmentationModel, Protocol):
    """A model whose groups are positions, read as `DenseReading` says."""

    @property
    def reading(self) -> DenseReading: ...


class TunableModel(SegmentationModel, Protocol):
    """A model of torch whose image tower can be updated."""

    @property
    def tower(self) -> Any:
        """The tower's modules."""
        ...

    def look(self, pixels: Array) -> GroupedImage:
        """As `encode_image`, with gradients for the weights that want them."""
        ...


def is_closed(model: SegmentationModel) -> TypeGuard[ClosedModel]:
    """Whether a model may understand a part of a phrase only."""
    return hasattr(model, "partly_known")


def is_dense(model: SegmentationModel) -> TypeGuard[DenseModel]:
    """Whether a model brings its own way to compare positions with phrases."""
    return hasattr(model, "reading")


def is_tunable(model: SegmentationModel) -> TypeGuard[TunableModel]:
    """Whether a model's image tower can be updated."""
    return hasattr(model, "look")
