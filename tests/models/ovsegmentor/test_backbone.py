"""Start weights from timm, offline: random ones of the right shapes, and a local folder."""

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch.nn import functional

from ovseg.errors import ModelError, RecipeError
from ovseg.models.ovsegmentor.backbone import backbone_weights, load_backbone
from ovseg.models.ovsegmentor.build import build_image_encoder
from ovseg.models.ovsegmentor.image_encoder import ImageEncoder
from tests.models.sizes import small_image

TINY = {"img_size": 64, "embed_dim": 32, "depth": 3, "num_heads": 4, "num_classes": 0}


def vit(**changes: object) -> torch.nn.Module:
    torch.manual_seed(0)
    return timm.models.VisionTransformer(**(TINY | changes))


def started(weights: dict[str, torch.Tensor], **changes: object) -> ImageEncoder:
    encoder = build_image_encoder(small_image(**changes))
    load_backbone(encoder, weights)
    return encoder


def test_every_block_and_the_patch_positions_come_over() -> None:
    weights = vit().state_dict()
    encoder = started(weights, depths=(1, 2))
    assert torch.equal(encoder.position, weights["pos_embed"][0, 1:])
    assert torch.equal(encoder.patch_embed.proj.weight, weights["patch_embed.proj.weight"])
    assert torch.equal(encoder.stage1[0].attn.qkv.weight, weights["blocks.0.attn.qkv.weight"])
    assert torch.equal(encoder.stage2[1].mlp.fc2.bias, weights["blocks.2.mlp.fc2.bias"])
    assert torch.equal(encoder.norm.weight, weights["norm.weight"])


def test_the_blocks_compute_what_timm_computes() -> None:
    source = vit(norm_layer=lambda width, **options: torch.nn.LayerNorm(width, eps=1e-5, **options))
    encoder = started(source.state_dict(), depths=(1, 2), heads=4).eval()
    x = torch.randn(2, 9, 32)
    torch.testing.assert_close(encoder.stage2[0](x), source.eval().blocks[1](x))


def test_positions_of_another_size_are_resized_without_antialiasing() -> None:
    weights = vit(img_size=128).state_dict()
    grid = weights["pos_embed"][0, 1:].T.reshape(1, 32, 8, 8)
    expected = functional.interpolate(grid, size=(4, 4), mode="bicubic", align_corners=False)
    torch.testing.assert_close(started(weights).position, expected[0].flatten(1).T)


def test_a_backbone_without_cls_token_starts_it_too() -> None:
    weights = vit(class_token=False, global_pool="avg", fc_norm=False).state_dict()
    assert torch.equal(started(weights).position, weights["pos_embed"][0])


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [({"embed_dim": 64}, "other shape"), ({"depth": 2}, "missing stage2.1")],
)
def test_a_backbone_of_another_size_is_named(changes: dict, complaint: str) -> None:
    with pytest.raises(ModelError, match=complaint):
        started(vit(**changes).state_dict())


def test_an_unknown_name_shows_near_ones() -> None:
    with pytest.raises(RecipeError, match="vit_base_patch16_224"):
        backbone_weights("vit_base_patch16.nope")
    with pytest.raises(RecipeError, match="none similar"):
        backbone_weights("no_such_model")


def test_known_names_give_shapes_without_a_network() -> None:
    weights = backbone_weights("vit_tiny_patch16_224.augreg_in21k", pretrained=False)
    encoder = build_image_encoder(
        small_image(width=192, depths=(6, 6), heads=3, image_size=224, group_tokens=8)
    )
    load_backbone(encoder, weights)


def test_a_local_folder_is_read(tmp_path: Path) -> None:
    name = "vit_tiny_patch16_224"
    torch.manual_seed(0)
    source = timm.create_model(name, num_classes=0)
    save_file(source.state_dict(), tmp_path / "model.safetensors")
    weights = backbone_weights(f"local-dir:{tmp_path}")
    assert torch.equal(weights["blocks.3.norm1.bias"], source.state_dict()["blocks.3.norm1.bias"])
    assert torch.equal(weights["pos_embed"], source.state_dict()["pos_embed"])


def test_weights_that_cannot_be_had_say_which_file_to_bring(tmp_path: Path) -> None:
    torch.save(vit().state_dict(), tmp_path / "pytorch_model.bin")  # a pickle is not looked at
    with pytest.raises(ModelError, match=r"put model\.safetensors"):
        backbone_weights(f"local-dir:{tmp_path}")
