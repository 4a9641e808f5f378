"""What is trained: projections, offsets, grouping."""

import pytest
import torch
from torch.nn import functional

from ovseg.errors import ModelError
from ovseg.models.projection import Projection
from tests.models.aligned.tiny import small_aligned, tiny_aligned


def test_talk2dinos_projection() -> None:
    projection = Projection(5, 7, "mlp", activation="tanh")
    x = torch.randn(3, 5)
    first, second = projection.hidden, projection.out
    wanted = torch.tanh(x @ first.weight.T + first.bias) @ second.weight.T + second.bias
    torch.testing.assert_close(projection(x), wanted)
    assert set(projection.state_dict()) == {
        "hidden.weight", "hidden.bias", "out.weight", "out.bias",
    }  # fmt: skip


def test_the_forms() -> None:
    x = torch.randn(2, 4, 5)
    assert Projection(5, 5, "none")(x) is x
    linear = Projection(5, 3, "linear")
    torch.testing.assert_close(linear(x), linear.linear(x))
    residual = Projection(5, 3, "residual", hidden=9)
    y = residual.linear(x)
    more = residual.out(functional.gelu(residual.hidden(residual.norm_hidden(y))))
    torch.testing.assert_close(residual(x), y + more)
    gated = Projection(5, 3, "gated", hidden=9)
    wanted = gated.out((x @ gated.gate.weight.T + gated.gate.bias).clamp(0, 6) * gated.hidden(x))
    torch.testing.assert_close(gated(x), wanted)
    parallel = Projection(5, 3, "parallel", hidden=9, unit=True)
    unit = functional.normalize(x, dim=-1)
    torch.testing.assert_close(parallel(x), parallel.linear(unit))  # the MLP starts at zero
    torch.nn.init.normal_(parallel.out.weight)
    more = parallel.out(functional.gelu(parallel.hidden(unit)))
    torch.testing.assert_close(parallel(x), parallel.linear(unit) + more)
    normed = Projection(5, 3, "linear", normalise=True)
    torch.testing.assert_close(normed(7 * x + 2), normed(x), atol=1e-4, rtol=1e-4)


def test_offsets_are_in_what_is_compared() -> None:
    head = tiny_aligned(small_aligned(logits={"scale": 20.0, "offset": True, "bias": -3.0})).head
    torch.nn.init.normal_(head.offset)
    positions = head.embed_positions(torch.randn(2, 6, 24))
    words = functional.normalize(head.embed_text_features(torch.randn(5, 24)), dim=-1)
    cosines = functional.normalize(positions, dim=-1) @ words.T
    wanted = 20 * cosines + head.word_offsets(words)
    torch.testing.assert_close(head.scale * (head.comparable(positions) @ words.T), wanted)
    assert float(head.bias.detach()) == -3
    plain = tiny_aligned().head
    assert torch.equal(plain.word_offsets(words), torch.zeros(5))
    assert plain.offset is None


def test_scale_and_bias_are_learned_where_asked_for() -> None:
    for learned in (False, True):
        head = tiny_aligned(small_aligned(logits={"learned": learned})).head
        assert head.scale_log.requires_grad == head.bias.requires_grad == learned
        assert float(head.scale.detach()) == pytest.approx(1 / 0.07)


@pytest.mark.parametrize("binding", ["released", "slot"])
def test_grouping_on_frozen_features(binding: str) -> None:
    config = small_aligned(grouping=True)
    image = config.image.model_copy(update={"binding": binding})
    model = tiny_aligned(config.model_copy(update={"image": image})).train()
    features = model.features(torch.randn(3, 3, 64, 64))
    image = model.head.group(features.tokens, features.grid)
    assert image.groups.shape == (3, 3, 32)
    assert image.binding.soft.shape == (3, 3, 64)
    text = model.encode_text(torch.randint(5, 40, (3, 7)), torch.ones(3, 7))
    answer = model.head.embed_answer(model.head.complete_entities(text, image))
    groups = model.head.embed_groups(image.groups)
    assert groups.shape == (3, 3, 16) and answer.shape == (3, 16)
    (groups.square().mean() + answer.square().mean()).backward()
    assert model.head.grouping.encoder.adapt.weight.grad is not None


def test_without_grouping_it_says_so() -> None:
    with pytest.raises(ModelError, match=r"set model\.aligned\.grouping"):
        tiny_aligned().head.embed_groups(torch.randn(1, 3, 32))


def test_positions_are_standardised_by_what_training_saw() -> None:
    head = tiny_aligned(small_aligned(standardise=True)).head
    mean, deviation = torch.randn(24), torch.rand(24) + 0.5
    head.set_statistics(mean, deviation)
    tokens = torch.randn(2, 6, 24)
    wanted = head.position_projection(((tokens - mean) / deviation).clamp(-5, 5))
    torch.testing.assert_close(head.embed_positions(tokens), wanted)
    assert {"token_mean", "token_deviation"} <= set(head.state_dict())
    with pytest.raises(ModelError, match="set standardise"):
        tiny_aligned().head.set_statistics(mean, deviation)


def test_an_image_has_a_projection_of_its_own_where_asked_for() -> None:
    tokens = torch.randn(2, 6, 24)
    plain = tiny_aligned().head
    unit = functional.normalize(plain.embed_positions(tokens), dim=-1)
    torch.testing.assert_close(plain.embed_image(tokens), unit.mean(dim=1))
    own = tiny_aligned(small_aligned(image_projection={"form": "linear"})).head
    torch.testing.assert_close(own.embed_image(tokens), own.image_projection(tokens.mean(dim=1)))


def test_images_and_captions_may_have_scales_of_their_own() -> None:
    one, several = (
        tiny_aligned(small_aligned(logits={"learned": True, "separate": separate})).head
        for separate in (False, True)
    )
    assert one.image_scale == one.caption_scale == one.scale
    several.image_scale.backward()
    assert several.scale_logs.grad is not None and several.scale_logs.grad[1] == 0
    assert float(several.caption_scale.detach()) == pytest.approx(1 / 0.07)


def test_noise_is_a_share_of_a_features_length() -> None:
    torch.manual_seed(0)
    projection = Projection(200, 200, "none")
    x = 7 * torch.randn(50, 200)
    share = (projection(x, noise=0.3) - x).norm(dim=-1) / x.norm(dim=-1)
    assert share.mean() == pytest.approx(0.3, abs=0.02)
    assert torch.equal(projection(x), x)
