"""Models small enough to reason about, and a set they can be tried on."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ovseg.evaluation.protocol import load_protocol
from ovseg.evaluation.run import Run
from ovseg.evaluation.sets.base import EvaluationSet
from ovseg.evaluation.sets.catalogue import open_set
from ovseg.models.interface import GroupedImage, ModelCard, Preprocessing, UnknownPhrase
from ovseg.models.scoring import ovsegmentor_scores
from tests.evaluation.sets import tiny

PATCH = 4
GROUPS = 5
WIDTH = 12


class FakeModel:
    """Random but fixed features per patch; dense, or grouped into GROUPS groups."""

    templates = ("a photo of a {}.",)
    threshold = 0.3

    def __init__(self, *, grouped: bool, seed: int = 0) -> None:
        self.grouped = grouped
        generator = torch.Generator().manual_seed(seed)
        self.weight = torch.randn(3 * PATCH * PATCH, WIDTH, generator=generator)
        self.queries = torch.randn(GROUPS, WIDTH, generator=generator)
        self.calls: list[tuple[int, ...]] = []
        self.preprocessing = Preprocessing(
            mean=(120.0, 120.0, 120.0), std=(60.0, 60.0, 60.0), short_side=32, multiple_of=PATCH
        )
        kind = "grouped" if grouped else "dense"
        self.card = ModelCard(f"fake-{kind}", "fake", "made up", "CC0-1.0", f"{kind}{seed}" * 8)

    def to(self, device: str) -> "FakeModel":
        return self

    def from_numpy(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(values)

    def encode_image(self, pixels: Tensor) -> GroupedImage:
        self.calls.append(tuple(pixels.shape))
        patches = torch.nn.functional.unfold(pixels, PATCH, stride=PATCH)  # [B, 3 P P, N]
        features = torch.tanh(patches.transpose(1, 2) @ self.weight)  # [B, N, C]
        grid = (pixels.shape[2] // PATCH, pixels.shape[3] // PATCH)
        if not self.grouped:
            return GroupedImage(features, grid)
        assignment = (self.queries @ features.transpose(1, 2)).softmax(dim=1)  # [B, G, N]
        groups = assignment @ features
        return GroupedImage(groups, grid, assignment, groups.mean(1))

    def encode_text(self, phrases: Sequence[str], templates: Sequence[str]) -> Tensor:
        rows = []
        for phrase in phrases:
            words = " ".join(template.format(phrase) for template in templates)
            generator = torch.Generator().manual_seed(sum(map(ord, words)))
            rows.append(torch.randn(WIDTH, generator=generator))
        return torch.nn.functional.normalize(torch.stack(rows), dim=1)

    def score(self, grouped: GroupedImage, embeddings: Tensor, threshold: float | None) -> Tensor:
        if self.grouped:
            return ovsegmentor_scores(
                grouped.embedding,
                grouped.image_embedding,
                embeddings,
                torch.tensor(20.0),
                threshold,
            )
        phrases = grouped.embedding @ embeddings.T
        constant = float("-inf") if threshold is None else threshold
        return torch.cat([torch.full_like(phrases[..., :1], constant), phrases], dim=-1)

    def known_words(self) -> None:
        return None

    def unknown(self, phrases: Sequence[str]) -> list[UnknownPhrase]:
        return []


SMALL = {"short_side": 32, "window": 32, "stride": 16, "threshold": 0.6}
"""What brings a protocol down to the size of these pictures."""


def run_of(evaluated: EvaluationSet, model: FakeModel, name: str = "groupvit", **changes) -> Run:
    return Run(model, evaluated, load_protocol(name, evaluated, {**SMALL, **changes}))


def folder_set(root: Path, images: int = 5, *, background: bool = True) -> EvaluationSet:
    """A folder of random pictures of several shapes, three classes and perhaps a background."""
    generator = np.random.default_rng(7)
    shapes = [(40, 56), (60, 44), (40, 56), (37, 37), (90, 41)]
    for index in range(images):
        height, width = shapes[index % len(shapes)]
        small = generator.integers(0, 256, (5, 6, 3)).astype(np.uint8)
        pixels = np.kron(small, np.ones((20, 20, 1), np.uint8))[:height, :width]
        labels = generator.integers(0, 3 + background, (height // 5 + 1, width // 5 + 1))
        labels = np.kron(labels, np.ones((5, 5), np.int64))[:height, :width]
        labels[:3, :3] = 255
        tiny.photo(root / f"images/{index:02d}.png", pixels)
        tiny.index_png(root / f"labels/{index:02d}.png", labels)
    names = ["background"] * background + ["cat", "red dog", "tree; bush"]
    tiny.text(root / "classes.txt", "\n".join(names) + "\n")
    return open_set("folder", root)
