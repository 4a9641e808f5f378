"""The shipped recipes hold the paper's values, and only what differs from the defaults."""

import sys

import pytest

from ovseg.config.dump import to_values
from ovseg.config.load import find_recipe, load_recipe, recipe_names
from ovseg.config.schema import Recipe

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def leaves(values: dict, prefix: str = "") -> dict[str, object]:
    found: dict[str, object] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            found |= leaves(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_holds_only_what_differs(name: str) -> None:
    written = leaves(tomllib.loads(find_recipe(name).read_text(encoding="utf-8")))
    defaults = leaves(to_values(Recipe()))
    assert [key for key, value in written.items() if defaults.get(key) == value] == []


def test_stage_one_is_the_papers() -> None:
    recipe = load_recipe("cc4m")
    schedule, optimizer, loss = recipe.schedule, recipe.optimizer, recipe.loss
    assert (schedule.epochs, recipe.data.batch_size, schedule.warmup_epochs) == (30, 256, 2)
    assert schedule.learning_rate == 6.4e-4
    assert (schedule.min_learning_rate, schedule.warmup_learning_rate) == (1.6e-4, 1.6e-5)
    assert schedule.reference_batch == 4096
    assert (optimizer.betas, optimizer.eps) == ((0.9, 0.999), 1e-8)
    assert (optimizer.weight_decay, optimizer.clip_norm) == (0.05, 5)
    assert loss.contrastive.enabled and loss.entity.enabled and not loss.mask.enabled
    assert (loss.contrastive.weight, loss.entity.weight) == (1, 1)
    assert recipe.augmentation.crop_scale == (0.08, 1)
    assert recipe.augmentation.rand_augment == "rand-m9-mstd0.5-inc1"
    assert (recipe.augmentation.erasing, recipe.augmentation.color_jitter) == (0.25, 0.4)
    assert not recipe.train.freeze_text


def test_stage_two_is_the_papers() -> None:
    recipe = load_recipe("cc4m-stage2")
    schedule, mask = recipe.schedule, recipe.loss.mask
    assert (schedule.epochs, recipe.data.batch_size, schedule.warmup_epochs) == (10, 128, 0)
    assert (schedule.learning_rate, schedule.min_learning_rate) == (1e-5, 1e-6)
    assert (mask.enabled, mask.weight, mask.threshold, mask.momentum) == (True, 0.1, 0.6, 0.99)
    assert recipe.augmentation.crop_scale == (0.4, 1)
    assert recipe.augmentation.erasing == recipe.augmentation.color_jitter == 0
    assert recipe.augmentation.rand_augment == ""
    assert recipe.train.freeze_text
    assert recipe.model == load_recipe("cc4m").model


def test_the_small_model_is_the_published_one() -> None:
    model = load_recipe("vits16-roberta").model
    assert (model.image.width, model.image.groups, model.text.encoder) == (384, 8, "roberta-base")


def test_smoke_needs_no_network() -> None:
    recipe = load_recipe("smoke")
    assert recipe.model.image.backbone == recipe.model.text.encoder == ""
    assert recipe.model.text.has_sizes and recipe.model.text.tokenizer == "bytes"


@pytest.mark.parametrize("binding", ["released", "slot"])
@pytest.mark.parametrize(
    "losses",
    [
        ["loss.entity.enabled=false", "loss.mask.enabled=false"],
        ["loss.mask.enabled=false"],
        ["loss.entity.enabled=false"],
        [],
    ],
)
def test_the_papers_ablations_fit_the_schema(binding: str, losses: list[str]) -> None:
    recipe = load_recipe("smoke", [f"model.image.binding={binding}", *losses])
    assert recipe.model.image.binding == binding
