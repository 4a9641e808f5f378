"""Frozen towers: what they read, against timm's own forward and the built-in network's."""

from typing import Any

import pytest
import timm
import torch
from torch.nn import functional

from ovseg.errors import ModelError, UsageError
from ovseg.models.aligned.assembly import build_aligned
from ovseg.models.aligned.vision import StarterVision, TimmVision
from ovseg.models.starter.network import EfficientNetLite
from ovseg.models.timm_tower import TimmTower, head_vectors
from tests.models.aligned.tiny import REGISTERS, ROTARY, small_aligned, starter_vision, tiny_aligned


def backbone(name: str, **changes: Any) -> Any:
    torch.manual_seed(0)
    sizes = {"depth": 2, "embed_dim": 24, "num_heads": 3, "num_classes": 0, **changes}
    made = timm.create_model(name, dynamic_img_size=True, **sizes).eval()
    for parameter in made.parameters():  # DINO's layer scales start at 1e-5: nothing would show
        torch.nn.init.normal_(parameter, std=0.2)
    return made


@pytest.mark.parametrize("shape", [(56, 56), (42, 70), (112, 112)])
@pytest.mark.parametrize("name", [REGISTERS, ROTARY, "vit_small_patch16_224.augreg_in21k"])
def test_tokens_are_timms(name: str, shape: tuple[int, int]) -> None:
    model = backbone(name, img_size=112)
    tower = TimmTower(model)
    shape = (shape[0] // 14 * tower.patch, shape[1] // 14 * tower.patch)
    pixels = torch.randn(2, 3, *shape)
    with torch.no_grad():
        found, wanted = tower(pixels), model.forward_features(pixels)
    torch.testing.assert_close(
        torch.cat([found.leading, found.patches], 1), wanted, atol=1e-4, rtol=1e-4
    )


def test_positions_of_a_tower_without_registers_are_enlarged() -> None:
    model = backbone("vit_small_patch14_dinov2", img_size=70)
    pixels = torch.randn(1, 3, 42, 84)
    with torch.no_grad():
        enlarged, timms = TimmTower(model)(pixels).patches, TimmTower(model, "antialiased")(pixels)
        own = model.forward_features(pixels)[:, 1:]
    torch.testing.assert_close(timms.patches, own, atol=1e-4, rtol=1e-4)
    assert (enlarged - own).abs().max() > 1e-2


@pytest.mark.parametrize("name", [REGISTERS, ROTARY])
def test_attention_is_that_of_the_class_token_in_the_last_block(name: str) -> None:
    model = backbone(name)
    tower = TimmTower(model, attention_scale=0.5)
    seen = {}
    model.blocks[-1].attn.qkv.register_forward_hook(lambda *each: seen.update(qkv=each[2]))
    with torch.no_grad():
        found = tower(torch.randn(2, 3, 6 * tower.patch, 4 * tower.patch), attention=True)
    q, k, _ = seen["qkv"].unflatten(2, (3, 3, 8)).permute(2, 0, 3, 1, 4)
    wanted = 0.5 * (q[:, :, 0, None] * k[:, :, tower.prefix :]).sum(-1)
    torch.testing.assert_close(found.attention, wanted, atol=1e-5, rtol=1e-4)
    assert TimmTower(model)(torch.randn(1, 3, 64, 64)).attention is None


def test_head_vectors_are_means_by_attention() -> None:
    patches, attention = torch.randn(2, 5, 4), torch.randn(2, 3, 5)
    wanted = torch.stack(
        [
            torch.stack([(row.softmax(0)[:, None] * x).sum(0) for row in rows])
            for rows, x in zip(attention, patches, strict=True)
        ]
    )
    torch.testing.assert_close(head_vectors(patches, attention), wanted)


def test_a_tower_of_convolutions_is_refused() -> None:
    with pytest.raises(ModelError, match="no patch tokens"):
        TimmTower(timm.create_model("resnet18", num_classes=0))


def test_features_have_a_grid_and_heads() -> None:
    vision = tiny_aligned().vision
    found = vision.features(torch.randn(2, 3, 64, 48))
    assert found.tokens.shape == (2, 48, 24)
    assert found.grid == (8, 6)
    assert found.heads is not None and found.attention is not None
    assert found.heads.shape == (2, 3, 24)
    assert found.attention.shape == (2, 3, 48)
    assert vision.features(torch.randn(1, 3, 64, 64), heads=False).heads is None
    with pytest.raises(ModelError, match="multiples of 8"):
        vision.features(torch.randn(1, 3, 60, 64))


def test_towers_stay_as_they_are() -> None:
    model = tiny_aligned().train()
    assert not model.vision.training and not model.text.training and model.head.training
    assert not any(
        p.requires_grad for part in (model.vision, model.text) for p in part.parameters()
    )
    assert any(parameter.requires_grad for parameter in model.head.parameters())
    assert model.vision.digest == tiny_aligned().vision.digest
    assert model.vision.digest != tiny_aligned(seed=1).vision.digest


@pytest.mark.parametrize(
    ("stages", "stride", "width"),
    [((7,), 32, 352), ((7,), 16, 352), ((5, 7), 16, 472), ((4, 5, 8), 32, 1488), ((5,), 8, 120)],
)
def test_stages_of_the_built_in_network(stages: tuple[int, ...], stride: int, width: int) -> None:
    vision = StarterVision(stages, stride)
    vision.load_own_weights()
    found = vision.features(torch.randn(1, 3, 64, 96))
    assert vision.width == width
    assert found.tokens.shape == (1, 64 // stride * (96 // stride), width)
    assert found.grid == (64 // stride, 96 // stride)
    assert found.heads is None


def test_features_of_the_built_in_network_are_its_own() -> None:
    vision = StarterVision((5, 8), 32)
    vision.load_own_weights()
    network = EfficientNetLite(stride=32).eval()
    network.load_state_dict(vision.network.state_dict(), strict=False)
    pixels = torch.rand(1, 3, 64, 64)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    normalised = (pixels - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    with torch.no_grad():
        found = vision.features(normalised).tokens[0]  # [4, 120 + 1280]
        last = network.features((pixels - 0.5) / 0.5)[0].flatten(1).T
        fifth = network.stage_outputs((pixels - 0.5) / 0.5)[4]
    torch.testing.assert_close(found[:, 120:], last, atol=1e-4, rtol=1e-4)
    fifth = functional.avg_pool2d(fifth, 2)[0].flatten(1).T
    torch.testing.assert_close(found[:, :120], fifth, atol=1e-4, rtol=1e-4)


def test_another_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean vit_small_patch14_reg4_dinov2"):
        build_aligned(small_aligned({"tower": "vit_small_patch14_reg4_dinov3"}))
    with pytest.raises(UsageError, match=r"no such file \(model.aligned.vision.tower=NAME@FILE"):
        build_aligned(small_aligned(starter_vision(tower="vit_tiny@/no/file")), pretrained=True)


def test_other_weights_than_it_was_trained_on_are_refused() -> None:
    config = small_aligned(starter_vision(digest="0" * 64))
    with pytest.raises(ModelError, match="not those that the model was trained on"):
        build_aligned(config, pretrained=True)
    assert isinstance(build_aligned(config).vision, StarterVision)
    assert isinstance(build_aligned(small_aligned()).vision, TimmVision)
