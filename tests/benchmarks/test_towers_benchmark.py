"""Each caption-trained family against its bare tower, at 448 pixels on random weights.

python -m pytest tests/benchmarks/test_towers_benchmark.py --benchmark-only -s

Both sides alternate in one run, and the ratio of the least times is printed; a batch of windows is
compared with the same windows one by one.
"""

from functools import partial

import pytest
import timm
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch import nn

from ovseg.models.timm_tower import TimmTower
from tests.benchmarks.sizes import full
from tests.benchmarks.test_dense_benchmark import compare

pytest.importorskip("transformers.models.tipsv2")

from transformers import Tipsv2VisionConfig, Tipsv2VisionModel

from ovseg.models.towers.dinotxt import DinoTxtVision, VisionHead
from ovseg.models.towers.tips import TipsVision

SIDE = full(448, 56)
DEPTH = full(12, 2)


def frozen(model: nn.Module) -> nn.Module:
    return model.eval().requires_grad_(False)


def towers(family: str) -> tuple[nn.Module, nn.Module]:
    """A bare tower, and the same as the family reads it."""
    torch.manual_seed(0)
    if family == "tipsv2":
        bare = frozen(Tipsv2VisionModel(Tipsv2VisionConfig(num_hidden_layers=DEPTH)))
        return bare, TipsVision(bare)
    backbone = timm.create_model(
        "vit_base_patch14_reg4_dinov2", num_classes=0, dynamic_img_size=True, depth=DEPTH
    )
    bare = frozen(TimmTower(backbone))
    head = frozen(VisionHead(768, 12, blocks=full(1, 1)))  # 2 blocks of 24 are 1 of 12
    return bare, DinoTxtVision(backbone, head).eval()


@pytest.mark.parametrize("family", ["tipsv2", "dinotxt"])
def test_a_family_against_its_bare_tower(benchmark: BenchmarkFixture, family: str) -> None:
    bare, read = towers(family)
    pixels = torch.rand(1, 3, SIDE, SIDE)
    compare(benchmark, rounds=5, bare=partial(bare, pixels), **{family: partial(read, pixels)})


@pytest.mark.parametrize("family", ["tipsv2", "dinotxt"])
def test_windows_in_batches_against_one_by_one(benchmark: BenchmarkFixture, family: str) -> None:
    _, read = towers(family)
    windows = torch.rand(4, 3, SIDE // 2, SIDE // 2)
    compare(
        benchmark,
        rounds=3,
        one_by_one=lambda: [read(window[None]) for window in windows],
        batched=lambda: read(windows),
    )
