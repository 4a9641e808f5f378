"""OVSegmentor's grouping on a tiny CLIP tower: it builds, trains, saves and segments."""

from pathlib import Path

import pytest
import torch

from ovseg.config.load import load_recipe
from ovseg.config.schema import ImageEncoderConfig
from ovseg.errors import RecipeError
from ovseg.models.clip.heads import HEADS, LastBlock
from ovseg.models.clip.tower import image_tower
from ovseg.models.ovsegmentor.build import build_image_encoder, build_ovsegmentor
from ovseg.models.ovsegmentor.tower_encoder import ClipGroupEncoder
from tests.models.clip.tiny import tiny_clip, write_folder

SIZES = {"backbone": "", "width": 32, "depths": (1, 1), "heads": 2, "image_size": 64}
GROUPS = {"group_tokens": 8, "groups": 4, "drop_path": 0.0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("clip") / "tiny")


def encoder(folder: Path, pretrained: bool = True, **changes: object) -> ClipGroupEncoder:
    values = {**SIZES, **GROUPS, "init": f"clip:{folder}", **changes}
    built = build_image_encoder(ImageEncoderConfig(**values), pretrained)
    assert isinstance(built, ClipGroupEncoder)
    return built


def test_patches_are_the_towers_dense_features(folder: Path) -> None:
    pixels = torch.randn(2, 3, 48, 80)
    tower = image_tower(tiny_clip().visual)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    seen = (pixels * std.view(3, 1, 1) + mean.view(3, 1, 1) - 0.5) / 0.25
    expected = HEADS["naclip"](LastBlock(tower, tower.tokens(seen), (3, 5)))
    found = encoder(folder).embed_patches(pixels, (3, 5))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("binding", ["released", "slot"])
def test_grouping_trains_and_the_tower_stays(folder: Path, binding: str) -> None:
    model = encoder(folder, binding=binding).train()
    assert not model.tower.training
    before = model.tower.visual.conv1.weight.clone()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-2, weight_decay=0.5)
    pixels = torch.randn(4, 3, 64, 64)
    losses = []
    for _ in range(8):
        encoded = model(pixels)
        loss = (encoded.mean - torch.eye(4, 32)).square().mean()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < losses[0]
    assert encoded.groups.shape == (4, 4, 32)
    assert encoded.grid == (4, 4)
    assert torch.equal(model.tower.visual.conv1.weight, before)
    assert model.group_tokens.grad is not None


def test_a_tower_that_is_trained_too(folder: Path) -> None:
    model = encoder(folder, init_frozen=False).train()
    model(torch.randn(2, 3, 64, 64)).groups.sum().backward()
    assert model.tower.visual.conv1.weight.grad.abs().sum() > 0


def test_start_weights_only_when_asked_for(folder: Path) -> None:
    state = tiny_clip().visual.state_dict()
    started = encoder(folder, pretrained=True).tower.visual.state_dict()
    assert all(torch.equal(started[key], state[key]) for key in state)
    random = encoder(folder, pretrained=False)
    assert not torch.equal(random.tower.visual.conv1.weight, state["conv1.weight"])
    random.load_state_dict(encoder(folder).state_dict())  # as a checkpoint fills it


def test_sizes_that_do_not_fit(folder: Path) -> None:
    with pytest.raises(RecipeError, match="set width = 32"):
        encoder(folder, width=64)
    with pytest.raises(RecipeError, match="proxyclip cannot be trained on"):
        encoder(folder, init=f"clip:{folder},head=proxyclip")


def test_the_shipped_recipe_builds_a_whole_model(folder: Path) -> None:
    """The recipe itself, on a tiny tower and a tiny text encoder."""
    recipe = load_recipe(
        "clip-groups",
        [
            f"model.image.init=clip:{folder}",
            "model.image.width=32",
            "model.image.heads=2",
            "model.image.depths=[1,1]",
            "model.image.image_size=64",
            "model.image.group_tokens=8",
            "model.text.encoder=",
            "model.text.architecture=bert",
            "model.text.width=32",
            "model.text.depth=1",
            "model.text.heads=2",
            "model.text.mlp_width=32",
            "model.text.vocab_size=64",
            "model.text.max_positions=32",
            "model.text.max_tokens=32",
            "model.entity.heads=2",
            "model.projector_width=16",
            "model.embedding_width=8",
        ],
    )
    model = build_ovsegmentor(recipe.model).eval()
    encoded = model.encode_image(torch.randn(2, 3, 64, 64))
    assert model.embed_groups(encoded.groups).shape == (2, 8, 8)


def test_the_recipe_names_the_tower_it_speaks_of() -> None:
    """Without its weights: built from open_clip's own table, random, no network."""
    image = load_recipe("clip-groups").model.image
    assert image.init == "clip:ViT-B-16-quickgelu/openai"
    assert (image.width, image.patch, image.init_frozen) == (768, 16, True)
