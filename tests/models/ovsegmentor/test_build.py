"""From a recipe's section to modules."""

import pytest
import torch

from ovseg.config.load import load_recipe, recipe_names
from ovseg.config.losses import ContrastiveLossConfig
from ovseg.config.schema import EntityDecoderConfig
from ovseg.errors import RecipeError
from ovseg.models.ovsegmentor.binding import ReleasedBinding, SlotBinding
from ovseg.models.ovsegmentor.build import build_ovsegmentor
from ovseg.models.ovsegmentor.text_encoder import sized_transformer
from tests.models.sizes import small_image, small_model, small_text

# Small enough to build at once and without a network; all else stays as the recipe has it.
SMALL = [
    "model.embedding_width=16",
    "model.projector_width=32",
    'model.image.backbone=""',
    "model.image.width=48",
    "model.image.depths=[1, 1]",
    'model.text.encoder=""',
    'model.text.architecture="bert"',
    "model.text.width=32",
    "model.text.depth=1",
    "model.text.heads=4",
    "model.text.mlp_width=64",
    "model.text.vocab_size=100",
    "model.text.max_positions=77",
]


def test_every_value_of_the_section_reaches_its_module() -> None:
    image = small_image(binding="slot", slot_iterations=2, slot_gru=False, checkpointing=True)
    config = small_model(image, small_text(pooling="mean"))
    model = build_ovsegmentor(config, contrastive=ContrastiveLossConfig(max_scale=50.0))
    encoder = model.image_encoder
    assert isinstance(encoder.binding, SlotBinding)
    assert (encoder.binding.iterations, encoder.binding.gru) == (2, None)
    assert encoder.checkpointing and encoder.group_tokens.shape == (6, 32)
    assert (len(encoder.stage1), len(encoder.stage2)) == (1, 2)
    assert encoder.stage1[0].attn.num_heads == 4 and encoder.norm.eps == 1e-5
    assert model.text_encoder.pooling == "mean"
    assert model.image_projector.hidden.weight.shape == (40, 32)
    assert model.bridge_projector.out.weight.shape == (16, 40)
    assert model.entity_decoder.mask_padding
    assert float(model.scale.detach()) == pytest.approx(1 / 0.07, rel=1e-6)
    with torch.no_grad():
        model.logit_scale.fill_(10)
    assert float(model.scale.detach()) == 50


def test_released_is_the_default_binding() -> None:
    assert isinstance(build_ovsegmentor(small_model()).image_encoder.binding, ReleasedBinding)


def test_a_decoder_that_its_heads_do_not_divide_is_named(tmp_path) -> None:
    # The width of a text encoder read from a folder is known only once it is built.
    sized_transformer("bert", 20, 1, 4, 40, 40, 20).save_pretrained(tmp_path)
    sizes = dict.fromkeys(
        ("architecture", "width", "depth", "heads", "mlp_width", "vocab_size", "max_positions")
    )
    text = small_text(encoder=str(tmp_path), **sizes)
    config = small_model(text=text, entity=EntityDecoderConfig(heads=8))
    with pytest.raises(RecipeError, match=r"model.entity.heads 8.*width 20"):
        build_ovsegmentor(config, pretrained=True)


def test_all_trained_parameters_receive_a_gradient() -> None:
    from ovseg.losses.contrastive import contrastive_loss
    from ovseg.losses.mask import mask_consistency_loss, relevance_of

    torch.manual_seed(0)
    model = build_ovsegmentor(small_model()).train()
    ids = torch.randint(1, 40, (4, 9))
    image = model.encode_image(torch.randn(4, 3, 64, 64))
    text = model.encode_text(ids, ids > 0)
    embedded = model.embed_text(text.sentence)
    answer = model.embed_answer(model.complete_entities(text, image))
    loss = contrastive_loss(model.embed_image(image.groups), embedded, model.scale)
    loss = loss + contrastive_loss(answer, embedded, model.scale)
    binding = image.binding
    loss = loss + mask_consistency_loss(
        binding.query,
        binding.query.detach(),
        binding.key.detach(),
        relevance_of(model.embed_groups(image.groups), embedded),
        image.grid,
    )
    loss.backward()
    idle = [name for name, p in model.named_parameters() if p.grad is None]
    assert idle == []


@pytest.mark.parametrize("binding", ["released", "slot"])
@pytest.mark.parametrize("name", recipe_names())
def test_a_shipped_recipe_builds_its_model_small(name: str, binding: str) -> None:
    changes = [*SMALL, f"model.image.binding={binding}"]
    if load_recipe(name).model.image.init:  # the tower's width is not the recipe's to choose
        changes.remove("model.image.width=48")
    recipe = load_recipe(name, changes)
    model = build_ovsegmentor(recipe.model, contrastive=recipe.loss.contrastive).eval()
    side = recipe.model.image.image_size
    with torch.no_grad():
        encoded = model.encode_image(torch.zeros(2, 3, side, side))
        embedding = model.embed_groups(encoded.groups)
    assert embedding.shape == (2, recipe.model.image.groups, 16)
