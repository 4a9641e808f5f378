"""What a step costs, against a count that was made in another way."""

import pytest
import torch
from torch import Tensor, nn

from ovseg.config.schema import ImageEncoderConfig, ModelConfig
from ovseg.models.ovsegmentor.build import build_image_encoder
from ovseg.training.flops import image_forward, pair_cost

CONFIG = ImageEncoderConfig(backbone="", width=16, depths=(1, 1), heads=2, patch=8, image_size=64)
TOWER = CONFIG.model_copy(update={"init": "starter", "init_frozen": False})


def test_a_patch_embedding() -> None:
    assert image_forward(CONFIG)[0] == 2 * (64 * 64 * 3) * 16  # each value with each filter, once


def test_a_tower_counts_as_it_runs() -> None:
    """Each output of a convolution takes as many products as a filter has weights."""
    encoder, products = build_image_encoder(TOWER), []

    def count(module: nn.Module, _: object, out: Tensor) -> None:
        filters = module.weight
        width = out.shape[1] if isinstance(module, nn.Conv2d) else out.shape[-1]
        products.append(out.numel() * filters.numel() // width)

    for module in (*encoder.tower.modules(), encoder.adapt):
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(count)
    encoder.embed_patches(torch.zeros(1, 3, 64, 64), (8, 8))
    assert image_forward(TOWER)[0] == 2 * sum(products)


@pytest.mark.parametrize(("frozen", "passes"), [(True, 1), (False, 3)])
def test_a_frozen_tower_has_no_backward_pass(frozen: bool, passes: int) -> None:
    image = TOWER.model_copy(update={"init_frozen": frozen})
    plain = pair_cost(ModelConfig(image=CONFIG), [4]).image - 3 * image_forward(CONFIG)[0]
    found = pair_cost(ModelConfig(image=image), [4]).image
    assert found == pytest.approx(plain + passes * image_forward(image)[0])
