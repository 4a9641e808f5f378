"""Each caption-trained family against its bare tower, at 448 pixels on random weights.

python -m pytest tests/benchmarks/test_towers_benchmark.py --benchmark-only -s

Both sides alternate in one run, and the ratio of the least times is printed; a batch of windows is
compared with the same windows one by one. The bare tower is what its library makes of the image:
patches, or for GroupViT groups.
"""

from functools import partial
from typing import Any, NamedTuple

import pytest
import timm
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import nn

from ovseg.models.timm_tower import TimmTower
from tests.benchmarks.sizes import full
from tests.benchmarks.test_dense_benchmark import compare

pytest.importorskip("transformers.models.tipsv2")

from transformers import (
    GroupViTVisionConfig,
    GroupViTVisionModel,
    Tipsv2VisionConfig,
    Tipsv2VisionModel,
)

from ovseg.models.aligned.vision import TimmVision
from ovseg.models.towers.dinotxt import DinoTxtVision, VisionHead
from ovseg.models.towers.groupvit import GroupVitVision
from ovseg.models.towers.tips import TipsVision

SIDE = full(448, 56)


class Size(NamedTuple):
    """Of a ViT: timm's letter, width, depth and heads."""

    letter: str
    width: int
    depth: int
    heads: int


BASE, LARGE = Size("base", 768, full(12, 2), 12), Size("large", 1024, full(24, 2), 16)


def frozen(model: nn.Module) -> nn.Module:
    return model.eval().requires_grad_(False)


def dino(size: Size, patch: int = 14) -> Any:
    name = f"vit_{size.letter}_patch{patch}_reg4_dinov2"
    return timm.create_model(name, num_classes=0, dynamic_img_size=True, depth=size.depth)


def tips(size: Size) -> tuple[nn.Module, nn.Module]:
    config = Tipsv2VisionConfig(
        hidden_size=size.width, num_hidden_layers=size.depth, num_attention_heads=size.heads
    )
    bare = frozen(Tipsv2VisionModel(config))
    return bare, TipsVision(bare)


def dinotxt(size: Size) -> tuple[nn.Module, nn.Module]:
    backbone = dino(size)
    # 2 blocks behind 24; of the smaller tower, 1 behind 12.
    head = frozen(VisionHead(size.width, size.heads, blocks=full(size.depth // 12, 1)))
    return frozen(TimmTower(backbone)), DinoTxtVision(backbone, head).eval()


def talk2dino(size: Size) -> tuple[nn.Module, nn.Module]:
    tower = frozen(TimmTower(dino(size)))
    return tower, TimmVision(tower)


def groupvit(_: Size) -> tuple[nn.Module, nn.Module]:
    config = GroupViTVisionConfig() if full(True, False) else GroupViTVisionConfig(depths=[1, 1, 1])
    inner = frozen(GroupViTVisionModel(config)).vision_model

    def bare(pixels: torch.Tensor) -> Any:
        return inner.encoder(inner.embeddings(pixels, interpolate_pos_encoding=True))

    return bare, GroupVitVision(inner, nn.Identity()).eval()  # type: ignore[return-value]


FAMILIES = {
    "tipsv2-b14": (tips, BASE),
    "tipsv2-l14": (tips, LARGE),
    "dinotxt-b": (dinotxt, BASE),
    "dinotxt-dinov2-l": (dinotxt, LARGE),
    "talk2dino-b": (talk2dino, BASE),
    "groupvit": (groupvit, BASE),
}


def towers(family: str) -> tuple[Any, Any]:
    """A bare tower, and the same as the family reads it."""
    torch.manual_seed(0)
    make, size = FAMILIES[family]
    return make(size)


def side_of(family: str, side: int) -> int:
    return -(-side // 16) * 16 if family == "groupvit" else side


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_against_its_bare_tower(benchmark: BenchmarkFixture, family: str) -> None:
    bare, read = towers(family)
    side = side_of(family, SIDE)
    pixels = torch.rand(1, 3, side, side)
    compare(benchmark, rounds=5, bare=partial(bare, pixels), **{family: partial(read, pixels)})


@pytest.mark.parametrize("family", ["tipsv2-b14", "dinotxt-b", "talk2dino-b", "groupvit"])
def test_windows_in_batches_against_one_by_one(benchmark: BenchmarkFixture, family: str) -> None:
    _, read = towers(family)
    side = side_of(family, SIDE // 2)
    windows = torch.rand(4, 3, side, side)
    compare(
        benchmark,
        rounds=3,
        one_by_one=lambda: [read(window[None]) for window in windows],
        batched=lambda: read(windows),
    )
