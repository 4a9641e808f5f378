"""The image encoder: sizes, precisions, positions, checkpointing, compilation."""

import pytest
import torch
from torch.nn import functional

from ovseg.errors import ModelError
from ovseg.models.ovsegmentor.build import build_image_encoder
from ovseg.models.ovsegmentor.image_encoder import ImageEncoder
from tests.models.sizes import small_image


def encoder(**changes: object) -> ImageEncoder:
    torch.manual_seed(0)
    return build_image_encoder(small_image(**changes))


def pixels(height: int = 64, width: int = 64, batch: int = 2) -> torch.Tensor:
    torch.manual_seed(1)
    return torch.randn(batch, 3, height, width)


@pytest.mark.parametrize("size", [(64, 64), (32, 96), (16, 16), (80, 48)])
@pytest.mark.parametrize("binding", ["released", "slot"])
def test_any_size_that_is_a_multiple_of_the_patch(size: tuple[int, int], binding: str) -> None:
    found = encoder(binding=binding).eval()(pixels(*size))
    positions = size[0] * size[1] // 256
    assert found.grid == (size[0] // 16, size[1] // 16)
    assert found.groups.shape == (2, 3, 32)
    assert found.mean.shape == (2, 32)
    for assignment in (found.binding.soft, found.binding.hard):
        assert assignment.shape == (2, 3, positions)
        torch.testing.assert_close(assignment.sum(dim=1), torch.ones(2, positions))
    assert found.binding.key.shape == (2, positions, 32)


def test_another_size_says_what_to_do() -> None:
    with pytest.raises(ModelError, match=r"64x65 pixels.*multiples of 16"):
        encoder()(pixels(64, 65))


def test_images_of_a_batch_do_not_influence_each_other() -> None:
    model, images = encoder().double().eval(), pixels().double()
    together = model(images)
    for index in range(2):
        alone = model(images[index : index + 1])
        torch.testing.assert_close(alone.groups[0], together.groups[index])


def test_positions_are_resized_bicubically_without_antialiasing() -> None:
    model = encoder().double()
    grid = model.position.T.reshape(1, 32, 4, 4)
    for size in ((2, 3), (8, 8)):
        expected = functional.interpolate(
            grid, size=size, mode="bicubic", align_corners=False, antialias=False
        )
        torch.testing.assert_close(model.position_at(size), expected[0].flatten(1).T)
    assert model.position_at((4, 4)) is model.position


@pytest.mark.parametrize("binding", ["released", "slot"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_near_single(dtype: torch.dtype, binding: str) -> None:
    model, images = encoder(binding=binding).eval(), pixels(32, 48)
    with torch.no_grad():
        exact = model(images)
        half = model.to(dtype)(images.to(dtype))
    assert half.groups.dtype == dtype
    assert float((half.groups.float() - exact.groups).abs().max()) < 0.1
    assert float((half.binding.soft.float() - exact.binding.soft).abs().max()) < 0.02


@pytest.mark.parametrize("binding", ["released", "slot"])
def test_mixed_precision_trains(binding: str) -> None:
    model = encoder(binding=binding)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = model(pixels(32, 48))
    found.groups.float().square().sum().backward()
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in model.parameters())


def test_checkpointing_changes_neither_values_nor_gradients() -> None:
    found = []
    for checkpointing in (False, True):
        model = encoder(checkpointing=checkpointing, drop_path=0.0).double()
        model.binding.gumbel_noise = False
        groups = model(pixels().double()).groups
        groups.square().sum().backward()
        found.append((groups, model.group_tokens.grad, model.patch_embed.proj.weight.grad))
    for plain, checkpointed in zip(*found, strict=True):
        torch.testing.assert_close(plain, checkpointed)


def test_drop_path_rises_from_zero_to_its_highest() -> None:
    model = encoder(depths=(2, 2), drop_path=0.3)
    rates = [getattr(block.drop_path1, "drop_prob", 0.0) for block in model.stage1]
    rates += [getattr(block.drop_path1, "drop_prob", 0.0) for block in model.stage2]
    assert rates == pytest.approx([0, 0.1, 0.2, 0.3])


def test_stage_two_sees_the_groups_alone() -> None:
    model, lengths = encoder().eval(), []
    for block in [*model.stage1, *model.stage2]:
        block.register_forward_hook(lambda _m, inputs, _o: lengths.append(inputs[0].shape[1]))
    model(pixels())
    assert lengths == [16 + 6, 3, 3]


def test_compiles_as_one_graph() -> None:
    model, images = encoder().eval(), pixels(32, 48)
    with torch.no_grad():
        plain = model(images)
        # Without the code generator behind it, which takes a minute and is not ours.
        compiled = torch.compile(model, fullgraph=True, backend="aot_eager")(images)
    assert compiled.grid == plain.grid
    torch.testing.assert_close(compiled.groups, plain.groups)
    torch.testing.assert_close(compiled.binding.soft, plain.binding.soft)
