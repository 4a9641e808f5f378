"""OVSegmentor's grouping on the built-in network: it starts from its weights, trains and saves."""

import pytest
import torch

from ovseg.config.schema import ImageEncoderConfig
from ovseg.errors import RecipeError
from ovseg.models.normalisation import IMAGENET
from ovseg.models.ovsegmentor.build import build_image_encoder
from ovseg.models.ovsegmentor.tower_encoder import STAGES, StarterGroupEncoder
from ovseg.models.starter.model import StarterModel

SIZES = {"backbone": "", "width": 32, "depths": (1, 1), "heads": 2, "image_size": 64, "patch": 16}
GROUPS = {"group_tokens": 8, "groups": 4, "drop_path": 0.0, "init": "starter"}


def encoder(pretrained: bool = True, **changes: object) -> StarterGroupEncoder:
    values = {**SIZES, **GROUPS, **changes}
    built = build_image_encoder(ImageEncoderConfig(**values), pretrained)
    assert isinstance(built, StarterGroupEncoder)
    return built


def test_patches_start_from_the_features_of_the_built_in_network() -> None:
    """Its blocks one after the other on pixels from -1 to 1, projected, each with its position."""
    colours = torch.rand(2, 3, 48, 80)  # 0..1
    mean, std = torch.tensor(IMAGENET).view(2, 3, 1, 1)
    pixels = (colours - mean) / std
    model, network = encoder().eval(), StarterModel().network
    with torch.inference_mode():
        x = network.stem(2 * colours - 1).clamp(0, 6)
        for block in network.blocks[: sum(stage.blocks for stage in STAGES)]:
            x = block(x)
        expected = model.adapt(x.permute(0, 2, 3, 1)).flatten(1, 2) + model.position_at((3, 5))
        found = model.embed_patches(pixels, (3, 5))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_the_finer_stride_sees_the_same_from_more_places() -> None:
    pixels = torch.randn(1, 3, 64, 64)
    coarse, fine = encoder().eval(), encoder(patch=8).eval()
    assert coarse(pixels).grid == (4, 4) and fine(pixels).grid == (8, 8)
    for name, tensor in coarse.tower.state_dict().items():
        assert torch.equal(tensor, fine.tower.state_dict()[name])


@pytest.mark.parametrize("frozen", [True, False])
def test_the_tower_is_trained_unless_it_is_frozen(frozen: bool) -> None:
    model = encoder(init_frozen=frozen).train()
    model(torch.randn(2, 3, 64, 64)).groups.square().mean().backward()
    gradients = [parameter.grad for parameter in model.tower.parameters()]
    assert all((gradient is None) == frozen for gradient in gradients)
    assert model.adapt.weight.grad is not None


def test_start_weights_only_when_asked_for() -> None:
    started, random = encoder(), encoder(pretrained=False)
    name = "stem.weight"
    assert not torch.equal(started.tower.state_dict()[name], random.tower.state_dict()[name])
    random.load_state_dict(started.state_dict())  # as a checkpoint fills it
    assert torch.equal(started.tower.state_dict()[name], random.tower.state_dict()[name])


def test_a_stride_that_the_network_does_not_have() -> None:
    with pytest.raises(RecipeError, match="8 or 16"):
        encoder(patch=32)
