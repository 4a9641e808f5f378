"""Compare the propagation of masks over frames with what DINO's released code computed.

    python tests/parity/check_video.py tests/parity/data/video-a

The argument is a prefix: PREFIX.json says every size and constant, PREFIX.safetensors holds frames,
weights and the first mask, and what came of them (`out.*`). One row is printed per quantity: its
name, the largest absolute difference, the tolerance, and whether it passes. The exit code is 1 if a
row does not. With --json they are printed as JSON.

Features may differ by 3e-5, affinities and maps by 1e-5, label maps in five pixels.
"""

import json
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import timm
import torch
from PIL import Image
from safetensors.numpy import load_file

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))  # the clone, of which `tests` is a package

from ovseg.inference.refine.affinity import unit_rows
from ovseg.inference.resize import resize_bilinear
from ovseg.inference.video.correspondence import Correspondence, Remembered, near
from ovseg.models.timm_tower import TimmTower
from tests.parity.rows import Row, run_check

FEATURES, EXACT, LABELS = 3e-5, 1e-5, 5


@dataclass(frozen=True)
class Fixture:
    """A fixture's description and arrays."""

    facts: dict[str, Any]
    values: dict[str, np.ndarray]

    @classmethod
    def read(cls, prefix: Path) -> "Fixture":
        facts = json.loads(prefix.with_name(f"{prefix.name}.json").read_text(encoding="utf-8"))
        return cls(facts, load_file(prefix.with_name(f"{prefix.name}.safetensors")))

    @property
    def outputs(self) -> list[str]:
        return [name.removeprefix("out.") for name in self.values if name.startswith("out.")]

    @property
    def settings(self) -> Correspondence:
        p = self.facts["parameters"]
        return Correspondence(
            last=p["n_last_frames"],
            radius=p["neighbourhood_radius"],
            top=p["topk"],
            temperature=p["temperature"],
        )

    @property
    def frames(self) -> int:
        return sum(name.startswith("in.frame") for name in self.values)

    @cached_property
    def tower(self) -> TimmTower:
        m = self.facts["model"]
        backbone = timm.create_model(
            "vit_small_patch16_224", num_classes=0, dynamic_img_size=True,
            patch_size=m["patch_size"], img_size=m["patch_size"] * m["pos_grid"],
            embed_dim=m["width"], depth=m["depth"], num_heads=m["heads"],
        )  # fmt: skip
        prefix = "weights.vit."
        weights = {
            name.removeprefix(prefix): torch.from_numpy(array)
            for name, array in self.values.items()
            if name.startswith(prefix)
        }
        backbone.load_state_dict(weights)
        return TimmTower(backbone.eval(), "enlarged")

    def preprocessed(self, number: int) -> np.ndarray:
        """A frame at the network's size, normalised, float32 [3, H, W]."""
        p, frame = self.facts["parameters"], self.values[f"in.frame{number}"]
        height, width = frame.shape[:2]
        short, multiple = p["short_side"], p["other_side_multiple"]
        ratio = max(height, width) / min(height, width)
        other = int(short * ratio) // multiple * multiple
        rows, columns = (short, other) if height <= width else (other, short)
        pixels = cv2.resize(frame, (columns, rows), interpolation=cv2.INTER_LINEAR)
        mean, std = (np.array(p[name], np.float32) for name in ("mean", "std"))
        return ((pixels.astype(np.float32) / 255 - mean) / std).transpose(2, 0, 1)


def compare(prefix: Path) -> Iterator[Row]:
    """A row for every stored quantity."""
    fixture = Fixture.read(prefix)
    found = results(fixture)
    for name in fixture.outputs:
        expected, ours = fixture.values[f"out.{name}"], found[name]
        if expected.size != ours.size:
            yield Row(name, "float32", math.inf, EXACT)
            continue
        if "labels" in name:
            yield Row(name, "float32", float((expected != ours).sum()), LABELS)
            continue
        tolerance = FEATURES if name.endswith(("features", "preprocessed")) else EXACT
        gap = np.abs(expected.astype(np.float64) - ours.reshape(expected.shape)).max()
        yield Row(name, "float32", float(gap), tolerance)


def results(fixture: Fixture) -> dict[str, np.ndarray]:
    """What the fixture stores, by its names, as we compute it."""
    settings, patch = fixture.settings, fixture.facts["model"]["patch_size"]
    found: dict[str, np.ndarray] = {}
    context: list[Remembered] = []
    for number in range(fixture.frames):
        pixels = fixture.preprocessed(number)
        grid = (pixels.shape[1] // patch, pixels.shape[2] // patch)
        with torch.inference_mode():
            seen = fixture.tower(torch.from_numpy(pixels)[None]).patches[0].numpy()
        name = f"frame{number}"
        found |= {f"{name}.preprocessed": pixels, f"{name}.features": seen}
        features = unit_rows(seen)
        if not context:
            first = _first(fixture, grid)
            found["first_onehot"] = first.T.reshape(-1, *grid)
            found["neighbourhood_mask"] = near(grid, settings.radius).astype(np.uint8)
            context = [Remembered(features, first)]
            continue
        if number == 1:
            freely = Correspondence(0, 0, settings.top, settings.temperature)
            maps = freely.carry(features, context, grid)
            found[f"{name}.propagated_no_neighbourhood"] = maps.T.reshape(-1, *grid)
        chosen, shares = settings.affinity(features, context, grid)
        found[f"{name}.affinity"] = _dense(chosen, shares, len(context))
        maps = settings.carry(features, context, grid)
        context = [context[0], *[*context[1:], Remembered(features, maps)][-settings.last :]]
        found[f"{name}.propagated"] = maps.T.reshape(-1, *grid)
        found |= {f"{name}.{key}": value for key, value in _read(fixture, maps, grid).items()}
    return found


def _first(fixture: Fixture, grid: tuple[int, int]) -> np.ndarray:
    """The first mask at the grid, nearest, a column an object, float [h*w, L]."""
    mask = Image.fromarray(fixture.values["in.first_labels"])
    small = np.asarray(mask.resize((grid[1], grid[0]), Image.Resampling.NEAREST)).ravel()
    return (small[:, None] == np.arange(small.max() + 1)).astype(np.float32)


def _dense(chosen: list[Any], shares: list[Any], frames: int) -> np.ndarray:
    """Shares as the fixture has them, [frame, source, query]."""
    queries = len(chosen[0])
    table = np.zeros((queries, frames * queries), np.float32)
    for places, share in zip(chosen, shares, strict=True):
        table[np.arange(queries), places] += share
    return table.reshape(queries, frames, queries).transpose(1, 2, 0)


def _read(fixture: Fixture, maps: np.ndarray, grid: tuple[int, int]) -> dict[str, np.ndarray]:
    """Labels by the released rule: each object stretched to 0..1 at the network's size."""
    patch = fixture.facts["model"]["patch_size"]
    size = (grid[0] * patch, grid[1] * patch)
    large = resize_bilinear(np.ascontiguousarray(maps.T).reshape(-1, *grid), size)
    for number, each in enumerate(large):
        if each.max() > 0:
            each = each - each.min()
            large[number] = each / each.max()
    labels = large.argmax(axis=0).astype(np.uint8)
    height, width = fixture.facts["parameters"]["original"]
    original = Image.fromarray(labels).resize((width, height), Image.Resampling.NEAREST)
    return {
        "upsampled_normalised": large,
        "labels_network_size": labels,
        "labels": np.asarray(original),
    }


def main(arguments: list[str] | None = None) -> int:
    """Print the rows of one fixture."""
    return run_check(sys.argv[1:] if arguments is None else arguments, __doc__, compare)


if __name__ == "__main__":
    sys.exit(main())
