"""Classes shown by examples: what was seen inside their masks, and beside them.

Letters: B image, N position, S width of what is seen, M prototype, K class.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from ovseg.models.interface import Array, array_namespace

SHARPNESS = 20.0
"""What differences of cosines are multiplied by for odds."""


@dataclass(frozen=True)
class PrototypeHead:
    """Tells classes by the nearest of a few directions.

    Attributes:
        mean: of what is seen in all examples, float [S].
        deviation: of it, float [S].
        inside: directions of each class, of unit length, float [M, S] each, K of them.
        beside: of what is none of the classes, float [M, S].
    """

    mean: Array
    deviation: Array
    inside: tuple[Array, ...]
    beside: Array

    @property
    def classes(self) -> int:
        """K."""
        return len(self.inside)

    def odds(self, seen: Array) -> Array:
        """Of each class, float [B, N, K]: how much nearer it is than what is none of them."""
        xp: Any = array_namespace(seen)
        values = directions_of((seen - self.mean) / self.deviation)
        nearest = [
            xp.max(values @ xp.matrix_transpose(each), axis=-1)
            for each in (self.beside, *self.inside)
        ]
        cosines = xp.stack(nearest, axis=-1)
        return SHARPNESS * (cosines[..., 1:] - cosines[..., :1])

    def mapped(self, convert: Callable[[Array], Array]) -> "PrototypeHead":
        """The same with every array converted, say to another library or device."""
        return replace(
            self,
            mean=convert(self.mean),
            deviation=convert(self.deviation),
            inside=tuple(convert(each) for each in self.inside),
            beside=convert(self.beside),
        )


def directions_of(values: Array) -> Array:
    """Values, [..., S], at length 1."""
    xp: Any = array_namespace(values)
    lengths = xp.linalg.vector_norm(values, axis=-1, keepdims=True)
    return values / xp.clip(lengths, min=1e-6)
