"""Every shipped recipe describes a model that can be built."""

import pytest

torch = pytest.importorskip("torch")

from ovseg.config.loading import load_recipe, recipe_names  # noqa: E402
from ovseg.models.build import build_ovsegmentor  # noqa: E402

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


@pytest.mark.parametrize("binding", ["released", "slot"])
@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_builds_its_model_small(name: str, binding: str) -> None:
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
