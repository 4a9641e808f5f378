"""What travels from the loader to the training step.

Letters: B pair, L token, H W pixels.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ovseg.models.tokenizer import Tokens


@dataclass(frozen=True)
class Problem:
    """A sample that could not be read: which one, why, and whether going on makes sense.

    `fatal` problems are not the sample's own, such as a shard that is gone.
    """

    key: str
    reason: str
    fatal: bool = False


@dataclass(frozen=True)
class Questions:
    """Masked entity completion's texts.

    Attributes:
        masked: captions in which every known entity is masked, [B, L].
        prompt: `a photo of dog and frisbee`, naming what was masked, [B, L].
        present: captions in which something was masked, bool [B].
    """

    masked: Tokens
    prompt: Tokens
    present: Tensor


@dataclass(frozen=True)
class CrossImages:
    """What each image is compared with for mask consistency.

    Attributes:
        images: uint8 [B, 3, H, W]; None where the batch's own images serve.
        partner: row of those images that each pair is compared with, int64 [B].
        entity: the word for what both show, [B, L].
        present: pairs that have a cross image, bool [B].
    """

    images: Tensor | None
    partner: Tensor
    entity: Tokens
    present: Tensor


@dataclass(frozen=True)
class Batch:
    """Pairs of one device that are encoded together.

    Attributes:
        images: uint8 [B, 3, H, W], RGB.
        caption: tokens [B, L].
        valid: rows that count, bool [B]; where a sample could not be read, a neighbour's image and
            caption stand in its row and are left out of the losses.
        questions: None where entity completion is off.
        cross: None where mask consistency is off.
        keys: name of each pair in the data set.
        problems: what could not be read, in the order of the rows.
    """

    images: Tensor
    caption: Tokens
    valid: Tensor
    questions: Questions | None = None
    cross: CrossImages | None = None
    keys: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()

    def __len__(self) -> int:
        return len(self.images)

    def to(self, device: torch.device) -> "Batch":
        """The same batch on a device; copies from pinned memory do not wait."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "Batch":
        """The same batch in page-locked memory; the loader calls this by its name."""
        return self._map(lambda tensor: tensor.pin_memory())

    def _map(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        def tokens(texts: Tokens) -> Tokens:
            return Tokens(ids=change(texts.ids), mask=change(texts.mask))

        questions, cross = self.questions, self.cross
        if questions is not None:
            questions = Questions(
                masked=tokens(questions.masked),
                prompt=tokens(questions.prompt),
                present=change(questions.present),
            )
        if cross is not None:
            cross = CrossImages(
                images=None if cross.images is None else change(cross.images),
                partner=change(cross.partner),
                entity=tokens(cross.entity),
                present=change(cross.present),
            )
        return replace(
            self,
            images=change(self.images),
            caption=tokens(self.caption),
            valid=change(self.valid),
            questions=questions,
            cross=cross,
        )
