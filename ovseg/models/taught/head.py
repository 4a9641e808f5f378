"""What was taught, as arrays: from what a model sees at a position to odds of each taught class.

Letters: B image, N position of `GroupedImage.stages` (or group), S width of what is seen, H hidden
unit, K taught class, h w grid.

The odds of a class are the logarithm of how much likelier it is than none of the taught classes.
Written with the array API: torch, NumPy and exported graphs run the same lines.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

from ovseg.models.enlarging import enlarged, factor
from ovseg.models.interface import Array, GroupedImage, array_namespace

FARTHEST = 5.0
"""Deviations from the mean beyond which something seen counts no more."""


@dataclass(frozen=True)
class LearnedHead:
    """A linear classifier, and behind it a layer of hidden units where there is one.

    Attributes:
        mean, deviation: of what is seen in the teaching photos, float [S].
        linear, bias: to logits of none of the classes and of each, float [S, 1 + K] and [1 + K].
        inner, inner_bias: to the hidden units, float [S, H] and [H]; H may be 0.
        outer: from them to logits that are added, float [H, 1 + K].
        rest: 1 where none of the classes was taught as well, else 0: odds are then against chance,
            float [1].
    """

    mean: Array
    deviation: Array
    linear: Array
    bias: Array
    inner: Array
    inner_bias: Array
    outer: Array
    rest: Array

    @property
    def classes(self) -> int:
        """K."""
        return int(self.bias.shape[0]) - 1

    def logits(self, seen: Array) -> Array:
        """Of none and of each class, float [B, N, 1 + K], of [B, N, S]."""
        xp: Any = array_namespace(seen)
        values = (seen - self.mean) / self.deviation
        values = xp.clip(values, min=-FARTHEST, max=FARTHEST)
        hidden = xp.clip(values @ self.inner + self.inner_bias, min=0)
        return values @ self.linear + self.bias + hidden @ self.outer

    def odds(self, seen: Array) -> Array:
        """Of each class, float [B, N, K]."""
        xp: Any = array_namespace(seen)
        logits = self.logits(seen)
        none, classes = logits[..., :1], logits[..., 1:]
        most = xp.max(classes, axis=-1, keepdims=True)
        chance = most + xp.log(xp.mean(xp.exp(classes - most), axis=-1, keepdims=True))
        return classes - xp.where(self.rest > 0, none, chance)

    def mapped(self, convert: Callable[[Array], Array]) -> "LearnedHead":
        """The same with every array converted, say to another library or device."""
        return replace(
            self, **{each.name: convert(getattr(self, each.name)) for each in fields(self)}
        )


def seen_in(grouped: GroupedImage) -> Array:
    """What classes are taught on, float [B, N, S]: stages, or what words are compared with."""
    return grouped.embedding if grouped.stages is None else grouped.stages


def on_grid(values: Array, grouped: GroupedImage) -> Array:
    """Values where `seen_in` is, [B, N, K], where embeddings are, [B, G, K]."""
    if grouped.stages is None or grouped.weights is not None:
        return values
    times = factor(grouped.embedding.shape[1], values.shape[1])
    return enlarged(values, grouped.grid, times)
