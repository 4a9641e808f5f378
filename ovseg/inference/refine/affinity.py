"""Scores shared among patches that look alike to some features: ProxyCLIP's rule for attention.

Lan et al., ECCV 2024, section 3, on scores instead of on the values of a last layer: similarities
below `beta` times their mean are cut off, `gamma` sharpens the rest, a softmax makes them shares.

Letters: M window, N position, C feature width, L map, n rows worked on at once.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from array_api_compat import device

from ovseg.models.interface import Array, array_namespace

PIECE = 8_000_000
"""Similarities that are held at once."""


@dataclass(frozen=True)
class FeatureAffinity:
    """Settings of the rule.

    Attributes:
        beta: multiple of the mean similarity from which two patches have to do with each other.
        gamma: how much likeness counts.
    """

    beta: float = 1.2
    gamma: float = 3.0

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    def refine(self, scores: Array, features: Array) -> Array:
        """Scores [M, N, L] mixed within each window by features [M, N, C] of the same positions."""
        xp: Any = array_namespace(scores)
        pairs = zip(scores, features, strict=True)
        return xp.stack([self._of_window(each, unit_rows(found)) for each, found in pairs])

    def _of_window(self, scores: Array, features: Array) -> Array:
        """Scores [N, L] by features [N, C] of unit length."""
        xp: Any = array_namespace(scores)
        middle = xp.mean(features, axis=0)
        mean = xp.sum(middle * middle)  # of all similarities, without making them
        step = max(PIECE // len(features), 1)
        starts = range(0, len(features), step)
        return xp.concat([self._rows(scores, features, mean, at, step) for at in starts])

    def _rows(self, scores: Array, features: Array, mean: Array, start: int, step: int) -> Array:
        xp: Any = array_namespace(scores)
        logits = features[start : start + step] @ features.T  # [n, N]
        logits = self.gamma * (logits - self.beta * mean)
        rows = xp.arange(logits.shape[0], device=device(logits))
        # A patch keeps itself where all else is cut off: rows would be empty.
        itself = xp.arange(len(features), device=device(logits)) == (rows + start)[:, None]
        kept = (logits >= 0) | itself
        weights = xp.where(kept, xp.exp(logits - xp.max(logits, axis=1, keepdims=True)), 0 * logits)
        return (weights @ scores) / xp.sum(weights, axis=1, keepdims=True)


def unit_rows(vectors: Array) -> Array:
    """Vectors [..., C] at length 1; those of length 0 stay."""
    xp: Any = array_namespace(vectors)
    length = xp.sqrt(xp.sum(vectors * vectors, axis=-1, keepdims=True))
    return vectors / xp.where(length > 0, length, xp.ones_like(length))
