"""The entity decoder and its padding mask."""

import pytest
import torch

from ovseg.models.ovsegmentor.entity_decoder import EntityDecoder

B, L, G = 2, 7, 3


def decoder(mask_padding: bool = True, image: int = 32, text: int = 24) -> EntityDecoder:
    torch.manual_seed(0)
    return EntityDecoder(image, text, heads=4, mask_padding=mask_padding).double().eval()


def inputs(image: int = 32, text: int = 24) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    mask = torch.tensor([[True] * 7, [True] * 4 + [False] * 3])
    return torch.randn(B, L, text).double(), mask, torch.randn(B, G, image).double()


def test_padding_does_not_change_the_answer() -> None:
    tokens, mask, groups = inputs()
    model = decoder()
    answer = model(tokens, mask, groups)
    tokens[1, 4:] += 100
    torch.testing.assert_close(model(tokens, mask, groups), answer)
    torch.testing.assert_close(model(tokens[1:, :4], mask[1:, :4], groups[1:]), answer[1:])


def test_the_reference_lets_padding_in() -> None:
    tokens, mask, groups = inputs()
    model = decoder(mask_padding=False)
    answer = model(tokens, mask, groups)
    # A shift along all features would be taken off by the LayerNorm.
    tokens[1, 4:, ::2] += 100
    changed = model(tokens, mask, groups)
    torch.testing.assert_close(changed[0], answer[0])
    assert not torch.allclose(changed[1], answer[1])


@pytest.mark.parametrize(("image", "text"), [(32, 24), (24, 32), (24, 24)])
def test_works_at_the_smaller_of_both_widths(image: int, text: int) -> None:
    model = decoder(image=image, text=text)
    assert model.width == 24
    assert model(*inputs(image, text)).shape == (B, 24)


def test_the_answer_depends_on_every_group_and_token() -> None:
    tokens, mask, groups = (x.requires_grad_(x.is_floating_point()) for x in inputs())
    decoder()(tokens, mask, groups)[:, ::2].sum().backward()
    assert bool((groups.grad.abs().amax(dim=-1) > 0).all())
    assert torch.equal(tokens.grad.abs().amax(dim=-1) > 0, mask)
