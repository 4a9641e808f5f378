"""Which towers can be read at their patches, and how."""

import open_clip
import pytest
import timm
import torch

from ovseg.errors import ModelError
from ovseg.models.clip.guide import GuideNetwork
from ovseg.models.clip.heads import HEADS, LastBlock
from ovseg.models.clip.model import DenseImageEncoder
from ovseg.models.clip.tower import OpenClipTower, SiglipTower, image_tower
from ovseg.models.normalisation import Normalisation
from tests.models.clip.tiny import tiny_clip

QUARTERS = Normalisation((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
TINY_VISION = {"image_size": 64, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16}


def siglip_visual() -> torch.nn.Module:
    """The form of a SigLIP tower: no class token, pooled by attention."""
    torch.manual_seed(0)
    visual = open_clip.timm_model.TimmModel.__new__(open_clip.timm_model.TimmModel)
    torch.nn.Module.__init__(visual)
    visual.image_size = (64, 64)
    visual.trunk = timm.models.vision_transformer.VisionTransformer(
        img_size=64, patch_size=16, embed_dim=32, depth=2, num_heads=4,
        class_token=False, global_pool="map", num_classes=0,
    )  # fmt: skip
    visual.head = torch.nn.Sequential()
    return visual.eval().requires_grad_(False)


def test_tokens_at_the_trained_size_are_the_towers_own() -> None:
    visual = tiny_clip().visual
    tower = OpenClipTower(visual)
    pixels = torch.randn(2, 3, 64, 64)
    x = tower.tokens(pixels)
    assert x.shape == (2, 17, 32)
    last = visual.transformer.resblocks[-1](x)
    torch.testing.assert_close(tower.embed(last)[:, 0], visual(pixels))


def test_siglip_plain_head_pools_what_the_tower_pools() -> None:
    """With one patch, pooling by attention and the dense reading are the same computation."""
    visual = siglip_visual()
    tower = image_tower(visual)
    assert isinstance(tower, SiglipTower)
    pixels = torch.randn(1, 3, 64, 64)
    x = visual.trunk.blocks[-1](tower.tokens(pixels))  # [1, 16, D]
    trunk = visual.trunk
    for patch in range(3):
        alone = trunk.attn_pool(trunk.norm(x)[:, patch : patch + 1])
        torch.testing.assert_close(tower.embed(x)[:, patch], trunk.head(trunk.fc_norm(alone)))
    torch.testing.assert_close(HEADS["clip"](LastBlock(tower, tower.tokens(pixels), (4, 4))), x)


@pytest.mark.parametrize("head", ["naclip", "sclip", "clearclip", "maskclip"])
def test_siglip_heads_at_another_size(head: str) -> None:
    network = DenseImageEncoder(image_tower(siglip_visual()), head)
    found = network(torch.randn(2, 3, 48, 112))
    assert found.shape == (2, 21, 32)
    torch.testing.assert_close(found.norm(dim=-1), torch.ones(2, 21))


@pytest.mark.parametrize(
    ("visual", "reason"),
    [
        ("RN50", "has no patch tokens"),
        ("coca", "pool by attention"),
        ("EVA02-B-16", "of timm's towers only SigLIP"),
        ("convnext_tiny", "of timm's towers only SigLIP"),
    ],
)
def test_other_towers_are_refused_with_the_reason(visual: str, reason: str) -> None:
    if visual == "coca":
        tower = tiny_clip(vision_cfg={**TINY_VISION, "attentional_pool": True}).visual
    else:
        with torch.device("meta"):
            config = open_clip.get_model_config(visual)
            tower = open_clip.CLIP(**{k: v for k, v in config.items() if k != "custom_text"}).visual
    with pytest.raises(ModelError, match=reason):
        image_tower(tower)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [(64, 64), (48, 80), (72, 90)])
def test_every_precision_and_size(dtype: torch.dtype, shape: tuple[int, int]) -> None:
    network = DenseImageEncoder(image_tower(tiny_clip().visual.to(dtype)), "naclip")
    reference = DenseImageEncoder(image_tower(tiny_clip().visual), "naclip")
    pixels = torch.randn(2, 3, *shape)
    found = network(pixels.to(dtype))
    assert found.dtype == torch.float32
    assert found.shape[1] == shape[0] // 16 * (shape[1] // 16)
    cosine = (found * reference(pixels)).sum(dim=-1)
    assert cosine.min() > 0.995


def test_guide_reads_the_patches_after_the_last_norm() -> None:
    backbone = timm.create_model("vit_tiny_patch16_224", num_classes=0, dynamic_img_size=True)
    guide = GuideNetwork(backbone.eval(), QUARTERS)
    pixels = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        found = guide(pixels)
        own = backbone.forward_features(guide.renormalise(pixels))[:, 1:]
    torch.testing.assert_close(found.flatten(2).transpose(1, 2), own, atol=1e-4, rtol=1e-4)
    # (p * 0.25 + 0.5 - mean) / std of ImageNet, red channel
    red = (pixels[0, 0] * 0.25 + 0.5 - 0.485) / 0.229
    torch.testing.assert_close(guide.renormalise(pixels)[0, 0], red)


@pytest.mark.parametrize("name", ["vit_small_patch14_reg4_dinov2", "vit_small_patch16_dinov3"])
def test_proxyclip_with_other_backbones(name: str) -> None:
    backbone = timm.create_model(
        name, num_classes=0, dynamic_img_size=True, depth=1, embed_dim=48, num_heads=2
    )
    guide = GuideNetwork(backbone.eval(), QUARTERS)
    network = DenseImageEncoder(image_tower(tiny_clip().visual), "proxyclip", guide)
    with torch.no_grad():
        found = network(torch.randn(2, 3, 112, 224))
    rows, columns = network.grid(112, 224)
    assert found.shape == (2, rows * columns, 16)
    assert (rows, columns) == (112 // guide.patch, 224 // guide.patch)
    assert torch.isfinite(found).all()


def test_a_guide_without_patches_is_refused() -> None:
    with pytest.raises(ModelError, match="no patch tokens"):
        GuideNetwork(timm.create_model("resnet18", num_classes=0), QUARTERS)


def test_the_image_path_exports_for_any_batch_and_size() -> None:
    """No Python decision in it depends on a tensor's values.

    One depends on a shape: at the trained grid positions are not resized, so an export made at
    another size holds for every size but that.
    """
    network = DenseImageEncoder(image_tower(tiny_clip().visual), "naclip")
    batch, rows, columns = (torch.export.Dim(name, min=2, max=64) for name in "bhw")
    exported = torch.export.export(
        network,
        (torch.randn(2, 3, 48, 80),),
        dynamic_shapes=({0: batch, 2: 16 * rows, 3: 16 * columns},),
    ).module()
    for shape in ((3, 3, 112, 96), (2, 3, 128, 64)):
        pixels = torch.randn(*shape)
        torch.testing.assert_close(exported(pixels), network(pixels), atol=1e-5, rtol=1e-4)
