"""Learning low-rank updates of a tower from masks, by gradients through it.

Letters: N position, S width of what is seen, C column: none of the classes, and each, H' W' view.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
import torch
from torch import Tensor, nn

from ovseg.evaluation.sets.base import EvaluationSample, Labels
from ovseg.inference.encode import EncodedView
from ovseg.inference.views import Box, Padding, View
from ovseg.models.interface import TunableModel
from ovseg.models.taught.factors import Updates
from ovseg.models.taught.head import FARTHEST, seen_in
from ovseg.models.taught.low_rank import learning, require_tunable
from ovseg.teaching.closed_form import Spread
from ovseg.teaching.lessons import Floats, Teacher
from ovseg.teaching.settings import TeachingSettings


@dataclass(frozen=True)
class StartingHead:
    """A linear head that is trained along, and forgotten.

    Attributes:
        spread: of what is seen.
        linear: its weights at the start, float [S, C].
        bias: stays, float [C].
    """

    spread: Spread
    linear: Floats
    bias: Floats


def train_updates(
    teacher: Teacher,
    samples: Sequence[EvaluationSample],
    head: StartingHead,
    settings: TeachingSettings,
    on_progress: Callable[[int, int], None],
) -> Updates:
    """Train updates of the tower of a teacher's model, which stays as it is.

    Args:
        teacher: knows which pixels count for what.
        samples: photos with masks.
        head: to start with.
        settings: of the training.
        on_progress: told steps done and steps in all.
    """
    model = require_tunable(teacher.model)
    chance = np.random.default_rng(settings.seed)
    with learning(model.tower, settings.lora, settings.seed) as layers:
        trained = _TrainedHead(model, head)
        optimizer = torch.optim.AdamW(
            [*chain.from_iterable(each.parameters() for each in layers.values()), trained.linear],
            lr=settings.lora_rate,
            weight_decay=0.0,
        )
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, settings.lora_rate, settings.lora_steps
        )
        for step in range(settings.lora_steps):
            optimizer.zero_grad()
            for number in chance.integers(len(samples), size=settings.lora_batch):
                loss = crop_loss(model, teacher, samples[number], trained, chance)
                (loss / settings.lora_batch).backward()
            optimizer.step()
            schedule.step()
            on_progress(step + 1, settings.lora_steps)
        return {name: layer.factors() for name, layer in layers.items()}


class _TrainedHead:
    """A `StartingHead` on a model's device, whose weights learn."""

    def __init__(self, model: TunableModel, head: StartingHead) -> None:
        self.mean, self.deviation, self.bias = (
            model.from_numpy(each) for each in (head.spread.mean, head.spread.deviation, head.bias)
        )
        self.linear = nn.Parameter(model.from_numpy(head.linear.copy()))

    def __call__(self, seen: Tensor) -> Tensor:
        """Logits [N, C] of what is seen, [N, S]."""
        values = ((seen - self.mean) / self.deviation).clamp(-FARTHEST, FARTHEST)
        return values @ self.linear + self.bias


def crop_loss(
    model: TunableModel,
    teacher: Teacher,
    sample: EvaluationSample,
    head: Callable[[Tensor], Tensor],
    chance: np.random.Generator,
) -> Tensor:
    """Cross entropy of a head with the masks in a crop of a photo, over the positions that count.

    It has gradients for whatever wants them.
    """
    loaded = teacher.loaded(sample)
    straight = [view for view in loaded.views if not view.flipped]
    view, labels = _perhaps_mirrored(
        straight[chance.integers(len(straight))], loaded.labels, chance
    )
    size = _crop_size(view, teacher)
    top, left = (
        int(chance.integers(side - part + 1)) for side, part in zip(view.shape, size, strict=True)
    )
    box = Box(top, left, *size)
    padding = Padding(size) if teacher.labeller.protocol.one_pass else view.padding
    crop = replace(view, boxes=(box,), padding=padding)
    grouped = model.look(model.from_numpy(crop.window(box)[None]))
    (shares,) = teacher.shares(labels, EncodedView(grouped, crop))
    seen = seen_in(grouped)[0].float()  # [N, S]
    targets = torch.from_numpy(shares).to(seen)
    surprise = -(targets * head(seen).log_softmax(dim=1)).sum()
    return surprise / targets.sum().clamp(min=1)


def _perhaps_mirrored(
    view: View, labels: Labels, chance: np.random.Generator
) -> tuple[View, Labels]:
    if chance.integers(2):
        return view, labels
    return replace(view, pixels=np.ascontiguousarray(view.pixels[..., ::-1])), labels[:, ::-1]


def _crop_size(view: View, teacher: Teacher) -> tuple[int, int]:
    """A window of the model; where it looks at whole photos, half of both sides."""
    if not teacher.labeller.protocol.one_pass:
        return view.boxes[0].height, view.boxes[0].width
    step = teacher.model.preprocessing.multiple_of
    rows, columns = (max(side // (2 * step), 1) * step for side in view.shape)
    return min(rows, view.shape[0]), min(columns, view.shape[1])
