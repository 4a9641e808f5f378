"""What the losses of a whole batch need of each pair, in parts or joined.

Letters: A pair of the whole batch, G group, D image width, E text width, F width of the entity
decoder.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from ovseg.models.image_encoder import EncodedImage


@dataclass(frozen=True)
class Features:
    """What the losses of the whole batch need of each pair; None where they do not need it.

    Attributes:
        groups: float [A, G, D].
        caption: sentence feature, float [A, E].
        answer: the entity decoder's first token, float [A, F].
        prompt: sentence feature of the prompt, float [A, E].
    """

    groups: Tensor
    caption: Tensor | None
    answer: Tensor | None
    prompt: Tensor | None

    def tensors(self) -> list[Tensor]:
        """Those that are there, in the order of the attributes."""
        found = (getattr(self, field.name) for field in fields(self))
        return [tensor for tensor in found if tensor is not None]

    def detached(self) -> "Features":
        """Copies without a graph that collect gradients."""
        return features_of(
            [None if x is None else x.detach().requires_grad_() for x in self._all()]
        )

    def _all(self) -> list[Tensor | None]:
        return [getattr(self, field.name) for field in fields(self)]

    @staticmethod
    def joined(parts: Sequence["Features"]) -> "Features":
        """The features of all parts, one after the other."""
        columns = zip(*(part._all() for part in parts), strict=True)
        return features_of([_concatenate(column) for column in columns])


def features_of(columns: Sequence[Tensor | None]) -> Features:
    groups, caption, answer, prompt = columns
    assert groups is not None
    return Features(groups, caption, answer, prompt)


def _concatenate(column: Sequence[Tensor | None]) -> Tensor | None:
    present = [tensor for tensor in column if tensor is not None]
    return torch.cat(present) if present else None


@dataclass(frozen=True)
class EncodedPart:
    """A part after the encoders."""

    image: EncodedImage
    features: Features
