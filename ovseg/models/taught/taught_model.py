"""A model with taught classes beside its words: the same interface, still an open vocabulary.

Letters: B image, G group or position, C width of the base's embeddings, K taught class, Q phrase.

Behind the base's embedding of a position come the odds of each taught class, and behind that of a
phrase which taught class it names. A phrase that names none keeps the base's score, to the bit
where no taught class is asked for.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from ovseg.models.enlarging import to_grid
from ovseg.models.interface import (
    Array,
    GroupedImage,
    ModelCard,
    PartlyKnown,
    Preprocessing,
    SegmentationModel,
    UnknownPhrase,
    array_namespace,
    is_closed,
    is_dense,
    to_numpy,
)
from ovseg.models.taught.head import on_grid, seen_in
from ovseg.models.taught.scoring import DOUBT
from ovseg.models.taught.stuff import scores_beside_stuff
from ovseg.models.taught.taught_names import TaughtNames

KIND = "taught"


class Head(Protocol):
    """What tells taught classes."""

    def odds(self, seen: Array) -> Array:
        """Of each class, float [B, N, K], of what is seen, [B, N, S]."""
        ...

    def mapped(self, convert: Any) -> "Head":
        """The same with every array converted."""
        ...


@dataclass(frozen=True)
class Taught:
    """What a model was taught.

    Attributes:
        classes: the phrases of each class, K entries.
        head: tells them; arrays of NumPy.
        text: what the base's own score counts beside the odds.
        stuff: places of classes that are background; their words do not count.
        doubt: of other words where masks find a taught class; see `taught_scores`.
    """

    classes: tuple[tuple[str, ...], ...]
    head: Head
    text: float
    stuff: tuple[int, ...] = ()
    doubt: float = DOUBT


class TaughtModel:
    """Implements `SegmentationModel`.

    Args:
        base: the model whose positions are read; on its device.
        taught: what is known beside.
        card: what it is.
    """

    def __init__(self, base: SegmentationModel, taught: Taught, card: ModelCard) -> None:
        self.base = base
        self.taught = taught
        self.card = card
        self.names = TaughtNames(taught.classes, taught.stuff)
        self._head = taught.head.mapped(self._converted)

    @property
    def preprocessing(self) -> Preprocessing:
        return self.base.preprocessing

    @property
    def templates(self) -> tuple[str, ...]:
        return self.base.templates

    @property
    def threshold(self) -> float:
        return self.base.threshold

    @property
    def scales(self) -> tuple[float, ...]:
        """Sizes at which images are read, as multiples of the short side."""
        return getattr(self.base, "scales", (1.0,))

    @property
    def align_corners(self) -> bool:
        """Whether the outermost positions lie on a window's outermost pixels."""
        return getattr(self.base, "align_corners", False)

    def to(self, device: str) -> "TaughtModel":
        self.base = self.base.to(device)
        self._head = self.taught.head.mapped(self._converted)
        return self

    def from_numpy(self, values: np.ndarray) -> Array:
        return self.base.from_numpy(values)

    def encode_image(self, pixels: Array) -> GroupedImage:
        """What the base finds, with odds behind its embeddings, float [B, G, C + K]."""
        return self.with_odds(self.base.encode_image(pixels))

    def with_odds(self, found: GroupedImage) -> GroupedImage:
        """What the base found, with odds behind its embeddings."""
        xp: Any = array_namespace(found.embedding)
        odds = on_grid(self._head.odds(seen_in(found)), found)
        return replace(found, embedding=xp.concat([found.embedding, odds], axis=-1))

    def encode_text(self, phrases: Sequence[str], templates: Sequence[str]) -> Array:
        """Class embeddings of the base, and 1 for the taught class that is named, [Q, C + K]."""
        words = self.base.encode_text(phrases, templates)
        xp: Any = array_namespace(words)
        named = self.from_numpy(self.names.named(phrases))
        if self.taught.stuff:
            words = words * xp.astype(self.from_numpy(self.names.wordless(phrases)), words.dtype)
        return xp.concat([words, xp.astype(named, words.dtype)], axis=-1)

    def score(
        self, grouped: GroupedImage, class_embeddings: Array, threshold: float | None
    ) -> Array:
        """Scores of background and phrases, float [B, G, 1 + Q]; see `scores_beside_stuff`."""
        taught = len(self.taught.classes)
        own, words = (each.shape[-1] - taught for each in (grouped.embedding, class_embeddings))
        found = replace(grouped, embedding=grouped.embedding[..., :own])
        base = self.base.score(found, class_embeddings[..., :words], threshold)
        if grouped.assignment is not None:  # groups have 0 or 1 for a background
            bar = base[..., :1] * (self.threshold if threshold is None else threshold)
            xp: Any = array_namespace(base)
            base = xp.concat([bar, base[..., 1:]], axis=-1)
        return scores_beside_stuff(
            base,
            to_grid(grouped.embedding[..., own:], grouped),
            class_embeddings,
            text=self.taught.text,
            threshold=self.threshold,
            stuff=self.taught.stuff,
            logarithms=is_dense(self.base),
            doubt=self.taught.doubt,
        )

    def known_words(self) -> list[str] | None:
        """The base's words and the taught ones; None for open vocabularies."""
        words = self.base.known_words()
        return None if words is None else self.names.beside(words)

    def unknown(self, phrases: Sequence[str]) -> list[UnknownPhrase]:
        """The phrases that the base does not know and that were not taught."""
        return self.base.unknown(self.names.others(phrases))

    def partly_known(self, phrases: Sequence[str]) -> list[PartlyKnown]:
        """The phrases that were not taught and of which the base knows a part."""
        others = self.names.others(phrases)
        return self.base.partly_known(others) if is_closed(self.base) else []

    def _converted(self, values: Array) -> Array:
        return self.base.from_numpy(np.asarray(to_numpy(values), np.float32))
