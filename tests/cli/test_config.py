"""`ovseg config`: recipes and keys."""

import json
from pathlib import Path

import pytest

from ovseg.config.load import load_recipe, recipes_folder
from ovseg.config.reference import SCHEMAS, keys_of
from ovseg_cli.__main__ import run

Captured = pytest.CaptureFixture[str]


@pytest.mark.parametrize("command", SCHEMAS)
def test_every_key_has_a_meaning(command: str) -> None:
    keys = keys_of(command)
    assert len({key.name for key in keys}) == len(keys) > 30
    assert [key.name for key in keys if not key.meaning] == []


def test_keys_are_as_the_schema_has_them() -> None:
    keys = {key.name: key for key in keys_of("pretrain")}
    assert keys["model.image.heads"].default == "8"
    assert keys["model.image.heads"].kind == "whole number from 1 to 256"
    assert keys["data.partners"].kind == '"none" or "exact" or "in-batch"'
    assert keys["model.text.width"].default == ""
    changed = keys["model.aligned.position_projection.form"]
    assert changed.default == '"residual"', "as it stands there, not as its section has it"
    assert keys_of("build-dataset")[0].name == "source.name"


def test_all_recipes_are_listed_and_can_be_shown(capsys: Captured) -> None:
    assert run(["config", "list", "--json"]) == 0
    recipes = json.loads(capsys.readouterr().out)
    names = {path.stem for path in recipes_folder().glob("*.toml")}
    assert {recipe["name"] for recipe in recipes} == names
    assert all(recipe["about"] for recipe in recipes)
    assert run(["config", "list"]) == 0
    assert "flickr8k  (ovseg build-dataset)" in capsys.readouterr().out
    assert run(["config", "show", "smoke"]) == 0
    assert capsys.readouterr().out == (recipes_folder() / "smoke.toml").read_text()


def test_keys_are_filtered(capsys: Captured) -> None:
    assert run(["config", "keys", "warmup", "--json"]) == 0
    found = [key["name"] for key in json.loads(capsys.readouterr().out)]
    assert {"schedule.warmup_epochs", "schedule.warmup_learning_rate"} <= set(found)
    assert run(["config", "keys", "--of", "build-dataset", "quality"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "image.quality = 90  (whole number from 1 to 100)",
        "    Of the JPEG files.",
    ]
    assert run(["config", "keys", "xyzzy"]) == 2
    assert run(["config", "keys", "--of", "segment"]) == 2
    assert "segment takes no recipes" in capsys.readouterr().err


def test_a_copy_is_a_recipe_and_replaces_nothing(tmp_path: Path, capsys: Captured) -> None:
    assert run(["config", "copy", "smoke", str(tmp_path / "mine.toml")]) == 0
    assert load_recipe(tmp_path / "mine.toml") == load_recipe("smoke")
    assert run(["config", "copy", "flickr8k", str(tmp_path)]) == 0
    assert (tmp_path / "flickr8k.toml").is_file()
    assert run(["config", "copy", "smoke", str(tmp_path / "mine.toml")]) == 2
    assert run(["config", "copy", "smokey", str(tmp_path)]) == 2
    errors = capsys.readouterr().err
    assert "is there already" in errors and "did you mean smoke?" in errors
