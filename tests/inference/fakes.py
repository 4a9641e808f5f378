"""A model small enough to follow by hand."""

from collections.abc import Sequence

import numpy as np

from ovseg.models.interface import GroupedImage, ModelCard, Preprocessing, UnknownPhrase

COLOURS = {"red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1)}


class ColourModel:
    """Knows three colours; runs on NumPy; its groups are cells of 4×4 pixels."""

    templates = ("{}",)
    threshold = 0.5
    preprocessing = Preprocessing((0, 0, 0), (255, 255, 255), short_side=16, multiple_of=4)
    card = ModelCard("colours", "fake", "knows colours", "CC0-1.0", "f" * 64)

    def __init__(self) -> None:
        self.encoded: list[str] = []
        self.batches: list[int] = []

    def to(self, device: str) -> "ColourModel":
        return self

    def from_numpy(self, values: np.ndarray) -> np.ndarray:
        return values

    def encode_image(self, pixels: np.ndarray) -> GroupedImage:
        batch, _, height, width = pixels.shape
        self.batches.append(batch)
        cells = pixels.reshape(batch, 3, height // 4, 4, width // 4, 4).mean(axis=(3, 5))
        return GroupedImage(
            cells.reshape(batch, 3, -1).transpose(0, 2, 1), (height // 4, width // 4)
        )

    def encode_text(self, phrases: Sequence[str], templates: Sequence[str]) -> np.ndarray:
        self.encoded += phrases
        return np.array([COLOURS.get(phrase, (0, 0, 0)) for phrase in phrases], np.float32)

    def score(
        self, grouped: GroupedImage, class_embeddings: np.ndarray, threshold: float | None
    ) -> np.ndarray:
        scores = grouped.embedding @ class_embeddings.T
        bound = -np.inf if threshold is None else threshold
        return np.concatenate([np.full_like(scores[..., :1], bound), scores], axis=-1)

    def known_words(self) -> list[str]:
        return list(COLOURS)

    def unknown(self, phrases: Sequence[str]) -> list[UnknownPhrase]:
        return [UnknownPhrase(p, ("red",)) for p in phrases if p not in COLOURS]
