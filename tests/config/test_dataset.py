"""The recipe of a data set: shipped ones, every mistake at once, and options that still agree."""

import sys
from dataclasses import fields

import pytest

from ovseg.config.dataset import KIND, DatasetRecipe, FetchConfig, ImageConfig, SourceConfig
from ovseg.config.dump import to_toml, to_values
from ovseg.config.load import check, find_recipe, load, recipe_names
from ovseg.data.build.request import load_request
from ovseg.data.dataset.folder import ImageOptions
from ovseg.data.guard import FetchOptions
from ovseg.errors import RecipeError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@pytest.mark.parametrize("name", recipe_names(KIND))
def test_a_shipped_recipe_loads_and_comes_back(name: str) -> None:
    recipe = load(DatasetRecipe, name, kind=KIND)
    assert check(DatasetRecipe, tomllib.loads(to_toml(recipe)), "again") == recipe
    written = tomllib.loads(find_recipe(name, KIND).read_text(encoding="utf-8"))
    defaults = to_values(DatasetRecipe(source=SourceConfig(name="x")))
    same = {(s, k) for s in written for k, v in written[s].items() if defaults[s].get(k) == v}
    assert not same


def test_recipes_of_data_sets_and_of_runs_are_told_apart() -> None:
    assert {"align-flickr8k-data", "cc12m-data", "flickr8k"} == set(recipe_names(KIND))
    assert not set(recipe_names(KIND)) & set(recipe_names())


def test_all_mistakes_come_at_once() -> None:
    changes = ["entities.tops=3", "build.partners=0", "engine.kind=rays", "image.quality=high"]
    with pytest.raises(RecipeError) as raised:
        load_request("flickr8k", changes)
    text = "\n".join(raised.value.problems)
    assert len(raised.value.problems) == 4
    for part in ("did you mean entities.top?", 'did you mean "ray"?', "must be a whole number"):
        assert part in text


def test_a_source_needs_no_recipe_and_columns_may_be_numbers() -> None:
    recipe = load_request("captions.tsv", ["source.url_column=0", "source.caption_columns=[1, 2]"])
    assert recipe.source.name == "captions.tsv"
    assert (recipe.source.url_column, recipe.source.caption_columns) == ("0", ("1", "2"))
    with pytest.raises(RecipeError, match=r"\[source\]: give name"):
        check(DatasetRecipe, {"source": {}}, "here")


@pytest.mark.parametrize(
    ("section", "options"), [(ImageConfig(), ImageOptions()), (FetchConfig(), FetchOptions())]
)
def test_defaults_are_those_of_the_library(section: object, options: object) -> None:
    names = [field.name for field in fields(options)]
    assert {n: getattr(section, n) for n in names} == {n: getattr(options, n) for n in names}
