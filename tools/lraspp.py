"""What a user would do instead of teaching: fine-tune torchvision's LR-ASPP MobileNetV3 on masks.

Howard et al., Searching for MobileNetV3, ICCV 2019. All its weights learn; it starts from random
ones, or its backbone from ImageNet's where torchvision can fetch them.

Letters: B photo of a batch, K label, H W pixels.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.models import MobileNet_V3_Large_Weights
from torchvision.models.segmentation import lraspp_mobilenet_v3_large

from ovseg.data.images import Pixels, read_image
from ovseg.evaluation.overlap import confusion_matrix
from ovseg.evaluation.sets.base import EvaluationSet

_MEAN, _DEVIATION = (123.7, 116.3, 103.5), (58.4, 57.1, 57.4)
_IGNORED = -100


@dataclass(frozen=True)
class Tuning:
    """How it is fine-tuned.

    Attributes:
        steps, batch, learning_rate, weight_decay: of AdamW, with one cycle of the rate.
        side: pixels of the square parts it learns from.
        short_side: of photos as it sees them, times 0.7 to 1.4 while it learns.
        seed: of weights, parts and order.
        device: that it learns and is scored on.
    """

    steps: int = 600
    batch: int = 8
    learning_rate: float = 2e-3
    weight_decay: float = 0.01
    side: int = 320
    short_side: int = 448
    seed: int = 0
    device: str = "cpu"


def imagenet_start() -> dict[str, Tensor] | None:
    """Weights of the backbone; None, and why in the log, where they cannot be had."""
    try:
        state = MobileNet_V3_Large_Weights.IMAGENET1K_V1.get_state_dict(
            progress=False, check_hash=True
        )
    except (OSError, RuntimeError) as error:
        logging.warning("no LR-ASPP from an ImageNet start: its weights cannot be had: %s", error)
        return None
    kept = {key: value for key, value in state.items() if key.startswith("features.")}
    return {key.removeprefix("features."): value for key, value in kept.items()}


def fine_tuned(
    evaluated: EvaluationSet,
    chosen: Sequence[int],
    tuning: Tuning,
    start: dict[str, Tensor] | None = None,
) -> nn.Module:
    """A network that gives logits of the labels of a set, trained on some of its photos.

    Args:
        chosen: which photos.
        start: of the backbone; random where there is none.
    """
    torch.manual_seed(tuning.seed)
    net = lraspp_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=len(evaluated.classes)
    )
    if start is not None:
        net.backbone.load_state_dict(start)
    net.to(tuning.device)
    optimizer = torch.optim.AdamW(
        net.parameters(), tuning.learning_rate, weight_decay=tuning.weight_decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, tuning.learning_rate, tuning.steps)
    net.train()
    for pixels, labels in _batches(evaluated, chosen, tuning):
        logits = net(pixels.to(tuning.device))["out"]
        loss = nn.functional.cross_entropy(logits, labels.to(tuning.device), ignore_index=_IGNORED)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return net.eval()


def confusion_of(net: nn.Module, evaluated: EvaluationSet, tuning: Tuning) -> NDArray[np.int64]:
    """Pixels of all photos of a set by what they are and what they are taken for, int64 [K, K]."""
    classes = len(evaluated.classes)
    counts = np.zeros((classes, classes), np.int64)
    for sample in evaluated.samples:
        truth = evaluated.read_labels(sample)
        small = _resized(read_image(sample.image), tuning.short_side)
        with torch.inference_mode():
            logits = net(_normalised(small[None]).to(tuning.device))["out"]
            logits = nn.functional.interpolate(logits, truth.shape, mode="bilinear")
        counts += confusion_matrix(
            truth, logits[0].argmax(0).cpu().numpy().astype(truth.dtype), classes
        )
    return counts


def _batches(
    evaluated: EvaluationSet, chosen: Sequence[int], tuning: Tuning
) -> Iterator[tuple[Tensor, Tensor]]:
    """Parts of photos, float [B, 3, H, W], and their labels, int64 [B, H, W]."""
    chance = np.random.default_rng(tuning.seed)
    samples = [evaluated.samples[number] for number in chosen]
    photos = [(read_image(each.image), evaluated.read_labels(each)) for each in samples]
    for _ in range(tuning.steps):
        drawn = [
            _part(*photos[int(number)], len(evaluated.classes), tuning, chance)
            for number in chance.integers(len(photos), size=tuning.batch)
        ]
        pixels, labels = (np.stack(each) for each in zip(*drawn, strict=True))
        yield _normalised(pixels), torch.from_numpy(labels)


def _part(
    photo: Pixels, labels: NDArray[Any], classes: int, tuning: Tuning, chance: np.random.Generator
) -> tuple[Pixels, NDArray[np.int64]]:
    """A square part of a photo, resized and perhaps mirrored, and its labels."""
    photo = _resized(photo, round(tuning.short_side * chance.uniform(0.7, 1.4)))
    size = photo.shape[1], photo.shape[0]
    known = np.where(labels < classes, labels.astype(np.int32), _IGNORED)
    known = cv2.resize(known, size, interpolation=cv2.INTER_NEAREST)
    short = [max(tuning.side - length, 0) for length in photo.shape[:2]]
    photo = np.pad(photo, ((0, short[0]), (0, short[1]), (0, 0)))
    known = np.pad(known, ((0, short[0]), (0, short[1])), constant_values=_IGNORED)
    top, left = (int(chance.integers(n - tuning.side + 1)) for n in photo.shape[:2])
    where = slice(top, top + tuning.side), slice(left, left + tuning.side)
    photo, known = photo[where], known[where]
    if chance.integers(2):
        photo, known = photo[:, ::-1], known[:, ::-1]
    return np.ascontiguousarray(photo), np.ascontiguousarray(known, np.int64)


def _resized(photo: Pixels, short_side: int) -> Pixels:
    scale = short_side / min(photo.shape[:2])
    size = round(photo.shape[1] * scale), round(photo.shape[0] * scale)
    return cv2.resize(photo, size, interpolation=cv2.INTER_LINEAR)


def _normalised(photos: Pixels) -> Tensor:
    """Float [B, 3, H, W] of uint8 [B, H, W, 3]."""
    values = torch.from_numpy(photos).permute(0, 3, 1, 2).float()
    mean, deviation = (torch.tensor(each).view(1, 3, 1, 1) for each in (_MEAN, _DEVIATION))
    return (values - mean) / deviation
