"""Heads against naive loops over heads and tokens; the released results are in tests/parity."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ovseg.models.clip.heads import (
    HEADS,
    Guide,
    LastBlock,
    neighbourhood,
    proxyclip,
)
from ovseg.models.clip.names import ClipName
from ovseg.models.clip.tower import image_tower
from tests.models.clip.tiny import tiny_clip

GRID = (3, 5)


@pytest.fixture(scope="module")
def block() -> LastBlock:
    tower = image_tower(tiny_clip().visual)
    pixels = torch.randn(2, 3, 48, 80, generator=torch.Generator().manual_seed(1))
    return LastBlock(tower, tower.tokens(pixels), GRID)


def attended(a: Tensor, b: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
    """softmax(a b' / sqrt(d) + bias) v, one row at a time, [B, H, T, d]."""
    out = torch.empty_like(v)
    for image in range(v.shape[0]):
        for head in range(v.shape[1]):
            for row in range(v.shape[2]):
                logits = b[image, head] @ a[image, head, row] / math.sqrt(v.shape[-1])
                weights = (logits if bias is None else logits + bias[row]).softmax(dim=0)
                out[image, head, row] = weights @ v[image, head]
    return out


def gaussian() -> Tensor:
    """NACLIP's bias by its definition, class token first, [T, T]."""
    places = [(r, c) for r in range(GRID[0]) for c in range(GRID[1])]
    bias = torch.zeros(1 + len(places), 1 + len(places))
    for i, (r, c) in enumerate(places):
        for j, (s, d) in enumerate(places):
            bias[1 + i, 1 + j] = math.exp(-((r - s) ** 2 + (c - d) ** 2) / 50)
    return bias


def test_the_default_comes_first() -> None:
    assert next(iter(HEADS)) == ClipName().head == "naclip"


def test_heads_without_residual(block: LastBlock) -> None:
    q, k, v = block.project()
    expected = {
        "maskclip-reduced": v,
        "clearclip": attended(q, q, v),
        "sclip-reduced": attended(q, q, v) + attended(k, k, v),
        "naclip": attended(k, k, v, gaussian()),
        "naclip-similarity-only": attended(k, k, v),
    }
    for name, values in expected.items():
        joined = block.tower.join(values)[:, 1:]
        torch.testing.assert_close(HEADS[name](block), joined, msg=name)


def test_heads_with_residual(block: LastBlock) -> None:
    q, k, v = block.project()
    expected = {
        "clip": attended(q, k, v),
        "maskclip": v,
        "sclip": attended(q, q, v) + attended(k, k, v),
        "naclip-full-block": attended(k, k, v, gaussian()),
    }
    for name, values in expected.items():
        z = block.x + block.tower.join(values)
        whole = z + block.tower.feed_forward(z)
        torch.testing.assert_close(HEADS[name](block), whole[:, 1:], msg=name)


def test_the_plain_head_is_the_tower_itself(block: LastBlock) -> None:
    tower = block.tower
    last = tower.visual.transformer.resblocks[-1]
    torch.testing.assert_close(HEADS["clip"](block), last(block.x)[:, 1:])


def test_neighbourhood_matches_its_definition(block: LastBlock) -> None:
    found = neighbourhood(GRID, 5.0, 1, block.x)
    torch.testing.assert_close(found, gaussian()[1:])


def test_proxyclip_by_hand(block: LastBlock) -> None:
    features = torch.randn(2, 7, 4, 6, generator=torch.Generator().manual_seed(2))
    guided = LastBlock(block.tower, block.x, GRID, Guide(features))
    _, _, v = block.project()
    for image in range(2):
        unit = F.normalize(features[image].flatten(1).T, dim=1)  # [N', C']
        s = unit @ unit.T
        logits = 3.0 * (s - 1.2 * s.mean())
        a = logits.masked_fill(logits < 0, -math.inf).softmax(dim=1)
        maps = v[image, :, 1:].transpose(1, 2).reshape(-1, *GRID)
        on_guide = F.interpolate(maps[None], size=(4, 6), mode="bilinear")[0]
        on_guide = on_guide.reshape(v.shape[1], v.shape[3], 24).transpose(1, 2)
        expected = block.tower.join((a @ on_guide)[None])[0]
        torch.testing.assert_close(proxyclip(guided)[image], expected)


def test_proxyclip_keeps_a_patch_that_nothing_is_like(block: LastBlock) -> None:
    """Where every similarity falls below the cut, the released code has NaN."""
    same = torch.ones(2, 4, 3, 5)
    guided = LastBlock(block.tower, block.x, GRID, Guide(same))
    found = proxyclip(guided)
    assert torch.isfinite(found).all()
    torch.testing.assert_close(found, HEADS["maskclip-reduced"](block))


def test_proxyclip_without_a_guide_is_an_error_of_the_caller(block: LastBlock) -> None:
    with pytest.raises(TypeError, match="guiding features"):
        proxyclip(block)


@pytest.mark.parametrize("head", [name for name in HEADS if name != "proxyclip"])
def test_batches_are_images_one_by_one(block: LastBlock, head: str) -> None:
    together = HEADS[head](block)
    for image in range(2):
        alone = HEADS[head](LastBlock(block.tower, block.x[image : image + 1], GRID))
        torch.testing.assert_close(together[image : image + 1], alone, atol=1e-5, rtol=1e-5)
