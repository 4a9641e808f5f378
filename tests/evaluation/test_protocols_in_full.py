"""Whole protocols against themselves written out: image after image, window after window.

Everything is plain here: batch 1, all classes at full size, every step on its own.
"""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate, normalize

from ovseg.data.images import read_image
from ovseg.evaluation.run import Run, predictions
from ovseg.evaluation.sets.base import EvaluationSample
from ovseg.inference.protocol import Protocol
from ovseg.models.interface import GroupedImage, Preprocessing, SegmentationModel
from ovseg.models.templates import imagenet_templates
from tests.evaluation.fakes import FakeModel, folder_set, run_of


def resized(path: Path, protocol: Protocol, rule: Preprocessing) -> tuple[tuple[int, int], Tensor]:
    """The photo's own size, and its normalised pixels at the protocol's, float [1, 3, H', W']."""
    image = read_image(path)
    height, width = image.shape[:2]
    scale = min(protocol.long_side / max(height, width), protocol.short_side / min(height, width))
    rows, columns = int(height * scale + 0.5), int(width * scale + 0.5)
    pixels = cv2.resize(image, (columns, rows), interpolation=cv2.INTER_LINEAR).astype(np.float32)
    pixels = (pixels - np.array(rule.mean, np.float32)) / np.array(rule.std, np.float32)
    return (height, width), torch.from_numpy(pixels).permute(2, 0, 1)[None]


def mean_maps(
    model: SegmentationModel,
    protocol: Protocol,
    sample: EvaluationSample,
    score: Callable[[GroupedImage], Tensor],
) -> Tensor:
    """Scores [G, L] of every window at its pixels, averaged, at the original size, [L, H, W]."""
    size, pixels = resized(sample.image, protocol, model.preprocessing)
    rows, columns = pixels.shape[2:]
    side, stride = protocol.window, protocol.stride
    total: Tensor | float = 0.0
    times = torch.zeros(rows, columns)
    for i in range(max(rows - side + stride - 1, 0) // stride + 1):
        for j in range(max(columns - side + stride - 1, 0) // stride + 1):
            bottom, right = min(i * stride + side, rows), min(j * stride + side, columns)
            top, left = max(bottom - side, 0), max(right - side, 0)
            grouped = model.encode_image(pixels[:, :, top:bottom, left:right])
            window = at_pixels(score(grouped).T, grouped, (bottom - top, right - left))
            layers = torch.zeros(len(window), rows, columns)
            layers[:, top:bottom, left:right] = window
            total = total + layers
            times[top:bottom, left:right] += 1
    return interpolate((total / times)[None], size, mode="bilinear", align_corners=False)[0]


def at_pixels(scores: Tensor, grouped: GroupedImage, size: tuple[int, int]) -> Tensor:
    """Scores [L, G] at the pixels of a window, [L, *size]: between positions, or by group."""

    def resize(maps: Tensor) -> Tensor:
        grids = maps.reshape(1, -1, *grouped.grid)
        return interpolate(grids, size, mode="bilinear", align_corners=False)[0]

    if grouped.assignment is None:
        return resize(scores)
    return scores[:, resize(grouped.assignment).argmax(0)]


def best_of_each(scores: Tensor, owner: tuple[int, ...], axis: int) -> Tensor:
    """The largest of the scores of every class; `owner` is the class of each phrase."""
    return torch.stack(
        [
            scores.index_select(axis, torch.tensor([q for q, c in enumerate(owner) if c == k]))
            .max(axis)
            .values
            for k in range(max(owner) + 1)
        ],
        axis,
    )


def plain_groupvit(run: Run, sample: EvaluationSample) -> Tensor:
    protocol, classes = run.protocol, run.protocol.class_list
    embeddings = run.model.encode_text(classes.phrases, protocol.templates)
    threshold = protocol.threshold if run.evaluated.background else None

    def score(grouped: GroupedImage) -> Tensor:
        scores = run.model.score(grouped, embeddings, threshold)[0]  # [G, 1 + Q]
        return best_of_each(scores, (0, *classes.phrase_labels), axis=1)

    maps = mean_maps(run.model, protocol, sample, score)
    return maps.argmax(0) if run.evaluated.background else maps[1:].argmax(0)


def plain_tcl(run: Run, sample: EvaluationSample) -> Tensor:
    """Sigmoid of scaled cosines, the mean over windows, then a constant background."""
    protocol, classes = run.protocol, run.protocol.class_list
    embeddings = run.model.encode_text(classes.phrases, protocol.templates)

    def score(grouped: GroupedImage) -> Tensor:
        cosines = normalize(grouped.embedding[0], dim=1) @ embeddings.T  # [G, Q]
        likely = torch.sigmoid(protocol.scale * cosines + protocol.bias)
        return best_of_each(likely, tuple(k - 1 for k in classes.phrase_labels), axis=1)

    maps = mean_maps(run.model, protocol, sample, score)
    best, winner = maps.max(0)
    if not run.evaluated.background:
        return winner
    return torch.where(best > protocol.threshold, winner + 1, 0)


def plain_sclip(run: Run, sample: EvaluationSample) -> Tensor:
    """Cosines averaged over windows, softmax at the original size, rules in their order."""
    protocol = run.protocol
    background = protocol.background_words
    first = 1 if run.evaluated.background else 0
    labels = (label - 1 + first for label in protocol.class_list.phrase_labels)
    owner = (*(0 for _ in background), *labels)
    phrases = background + protocol.class_list.phrases
    chosen = protocol.templates
    templates = imagenet_templates() if isinstance(chosen, str) else chosen
    embeddings = run.model.encode_text(phrases, templates)

    def score(grouped: GroupedImage) -> Tensor:
        return normalize(grouped.embedding[0], dim=1) @ embeddings.T  # [N, Q]

    maps = mean_maps(run.model, protocol, sample, score)
    classes = best_of_each((maps * protocol.scale).softmax(0), owner, axis=0)
    counts = torch.bincount(classes.argmax(0).flatten(), minlength=len(classes))
    if protocol.area_threshold is not None:
        for label in range(1, len(classes)):
            if counts[label] <= protocol.area_threshold * counts[1:].sum():
                classes[label] = 0
    found = classes.argmax(0)
    if run.evaluated.background:
        found[classes.amax(0) < protocol.threshold] = 0
    return found


PLAIN = {"groupvit": plain_groupvit, "tcl": plain_tcl, "sclip": plain_sclip}
# Thresholds and scales at which random features give every label some pixels.
DECISIVE = {
    "groupvit": {"threshold": 0.6},
    "tcl": {"threshold": 0.4},
    "sclip": {"threshold": 0.4, "scale": 8.0, "templates": ("{}.",)},
}


def agreement(run: Run) -> float:
    """Share of equal pixels; the plain labels are of more than one kind."""
    shares, seen = [], set()
    for loaded, labels in predictions(run, run.evaluated.samples):
        plain = PLAIN[run.protocol.name](run, loaded.sample).numpy()
        shares.append(np.mean(labels == plain))
        seen |= set(np.unique(plain).tolist())
    assert len(seen) > 2
    return float(np.min(shares))


@pytest.mark.parametrize("background", [True, False])
def test_groups_equal_the_protocol_written_out(tmp_path: Path, background: bool) -> None:
    evaluated = folder_set(tmp_path, background=background)
    assert agreement(run_of(evaluated, FakeModel(grouped=True))) == 1.0


@pytest.mark.parametrize("name", ["groupvit", "tcl", "sclip"])
@pytest.mark.parametrize("background", [True, False])
def test_positions_equal_the_protocol_written_out(
    tmp_path: Path, name: str, background: bool
) -> None:
    """Up to rounding: where two labels tie to the last digits, either may win."""
    evaluated = folder_set(tmp_path, background=background)
    assert agreement(run_of(evaluated, FakeModel(grouped=False), name, **DECISIVE[name])) > 0.999


@pytest.mark.parametrize("background", [True, False])
def test_groups_equal_tcl_written_out(tmp_path: Path, background: bool) -> None:
    evaluated = folder_set(tmp_path, background=background)
    assert agreement(run_of(evaluated, FakeModel(grouped=True), "tcl", threshold=0.2)) > 0.999


def test_background_words_and_the_area_rule_equal_sclip_written_out(tmp_path: Path) -> None:
    changes = {**DECISIVE["sclip"], "area_threshold": 0.3, "background_words": ("sky", "wall")}
    run = run_of(folder_set(tmp_path), FakeModel(grouped=False), "sclip", **changes)
    assert agreement(run) > 0.999
