"""Recipes written out and compared."""

from pathlib import Path

import pytest

from ovseg.config.dump import Difference, content_hash, differences, to_json, to_toml, to_values
from ovseg.config.load import load_recipe, recipe_from_values, recipe_names
from ovseg.config.schema import Recipe


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_survives_toml_and_json(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name)
    path = tmp_path / "again.toml"
    path.write_text(to_toml(recipe), encoding="utf-8")
    assert load_recipe(path) == recipe
    assert recipe_from_values(to_values(recipe), "here") == recipe


def test_strings_survive_toml(tmp_path: Path) -> None:
    odd = 'quote " backslash \\ newline \n tab \t bell \x07 delete \x7f é 🦓'
    recipe = Recipe.model_validate({"data": {"shards": (odd, "")}})
    path = tmp_path / "again.toml"
    path.write_text(to_toml(recipe), encoding="utf-8")
    assert load_recipe(path).data.shards == (odd, "")


def test_the_hash_is_that_of_the_values() -> None:
    assert content_hash(load_recipe("cc4m", ["train.seed=7"])) == content_hash(
        load_recipe("cc4m", ["train.seed=6", "train.seed=7"])
    )
    assert content_hash(load_recipe("cc4m", ["train.seed=7"])) != content_hash(load_recipe("cc4m"))
    assert len(content_hash(Recipe())) == 64


def test_json_is_one_sorted_line() -> None:
    text = to_json(Recipe())
    assert "\n" not in text
    assert text.index('"augmentation"') < text.index('"data"') < text.index('"train"')


def test_differences_name_the_keys() -> None:
    old, new = load_recipe("smoke"), load_recipe("smoke", ["train.seed=1", "model.image.groups=2"])
    found = differences(old, new)
    assert found == [Difference("model.image.groups", 4, 2), Difference("train.seed", 0, 1)]
    assert str(found[0]) == "model.image.groups: 4 -> 2"
    assert differences(old, old) == []


def test_an_optional_key_may_appear_and_vanish() -> None:
    keys = {item.key for item in differences(load_recipe("smoke"), load_recipe("cc4m"))}
    assert "model.text.vocab_size" in keys
    shown = [str(item) for item in differences(load_recipe("cc4m"), load_recipe("smoke"))]
    assert "model.text.vocab_size: not set -> 261" in shown
