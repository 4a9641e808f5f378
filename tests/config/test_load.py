"""Recipes by name and path, overrides, and one sentence per mistake."""

from pathlib import Path
from typing import Literal

import pytest

from ovseg.config.load import find_recipe, load, load_recipe, recipe_from_values, recipe_names
from ovseg.config.schema import Recipe, Section
from ovseg.errors import RecipeError


def problems(recipe: str | Path, *overrides: str) -> tuple[str, ...]:
    with pytest.raises(RecipeError) as caught:
        load_recipe(recipe, overrides)
    assert caught.value.exit_code == 2
    return caught.value.problems


def write(folder: Path, text: str) -> Path:
    path = folder / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_an_empty_file_is_the_defaults(tmp_path: Path) -> None:
    assert load_recipe(write(tmp_path, "")) == Recipe()


def test_overrides_win_over_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, "[train]\nseed = 3\nkeep_last = 5\n")
    recipe = load_recipe(path, ["train.seed=4", "model.image.depths=[2, 3]"])
    assert (recipe.train.seed, recipe.train.keep_last) == (4, 5)
    assert recipe.model.image.depths == (2, 3)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('"roberta-base"', "roberta-base"),
        ("roberta-base", "roberta-base"),  # a shell has eaten the quotes
        ("clip:ViT-B-32/openai", "clip:ViT-B-32/openai"),
        ("a=b", "a=b"),
        ('"x"\n[train]\nseed=1', '"x"\n[train]\nseed=1'),  # no way to smuggle in another key
        ('"x"\nother=1', '"x"\nother=1'),
    ],
)
def test_strings_need_no_quotes(text: str, value: str) -> None:
    assert load_recipe("cc4m", [f"model.text.encoder={text}"]).model.text.encoder == value


def test_a_table_override_changes_only_what_it_names() -> None:
    recipe = load_recipe("smoke", ["model.image={groups = 2}"])
    assert recipe.model.image.groups == 2
    assert recipe.model.image.width == load_recipe("smoke").model.image.width


def test_every_mistake_is_reported_with_its_origin(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        '[model.image]\nwidht = 768\nbinding = "slto"\n[loss.mask]\nthreshold = 2.0\n'
        '[data]\nbatch_size = "8"\n[trian]\nseed = 1\n',
    )
    found = problems(path, "data.workers=true", "schedule.epoch=3", "nonsense")
    assert sorted(found) == sorted(
        [
            f"{path}: model.image.widht = 768: unknown key; did you mean model.image.width?",
            f'{path}: model.image.binding = "slto": must be one of released, slot; '
            'did you mean "slot"?',
            f"{path}: loss.mask.threshold = 2.0: must be less than 1",
            f'{path}: data.batch_size = "8": must be a whole number',
            f"{path}: trian: unknown key; did you mean train?",
            "--set: data.workers = true: must be a whole number",
            "--set: schedule.epoch = 3: unknown key; did you mean schedule.epochs?",
            "--set nonsense: write section.key=value",
        ]
    )


def test_a_key_in_the_wrong_section_is_found() -> None:
    (problem,) = problems("cc4m", "optimizer.min_learning_rate=1e-5")
    assert problem.endswith("unknown key; did you mean schedule.min_learning_rate?")


def test_a_key_of_no_section_lists_the_known_ones() -> None:
    (problem,) = problems("cc4m", "model.entity.zzzz=1")
    assert problem == "--set: model.entity.zzzz = 1: unknown key; known here: heads, mask_padding"


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("model.image.width=true", "must be a whole number"),
        ("model.image.width=1.5", "must be a whole number"),
        ("model.image.width=0", "must be greater than or equal to 1"),
        ("model.image.width=1000000000", "must be less than or equal to 16384"),
        ("model.image.drop_path=nan", "must be a finite number"),
        ("schedule.learning_rate=inf", "must be a finite number"),
        ("schedule.learning_rate=fast", "must be a number"),
        ("model.image.slot_gru=1", "must be true or false"),
        ("model.text.encoder=3", "must be a string"),
        ("model.image.depths=6", "must be an array"),
        ("model.image.depths=[6]", "is missing from the array"),
        ("model.image=6", "is a section of keys, not a value"),
        ("model.image.heads=7", "width 768 is no multiple of heads 7"),
        ("model.image.image_size=225", "image_size 225 is no multiple of patch 16"),
        ("schedule.min_learning_rate=1.0", "min_learning_rate is above learning_rate"),
        ("augmentation.crop_scale=[0.9, 0.1]", "crop_scale must hold 0 < low <= high"),
        ("loss.mask.enabled=true", "loss.mask needs cross images"),
        ("model.text.encoder=''", 'encoder "" (random weights) needs sizes'),
        ("model.text.width=32", "sizes are given all or none: architecture, depth"),
    ],
)
def test_types_ranges_and_rules(override: str, sentence: str) -> None:
    (problem,) = problems("cc4m", override)
    assert sentence in problem
    assert "--set" in problem


def test_no_loss_at_all_is_refused() -> None:
    (problem,) = problems("cc4m", "loss.contrastive.weight=0", "loss.entity.enabled=false")
    assert problem.endswith("[loss]: no loss is enabled with a weight above 0")


def test_a_value_is_no_section() -> None:
    (problem,) = problems("smoke", "model.image.width.x=1")
    assert problem == "--set model.image.width.x: model.image.width is a value, no section"


@pytest.mark.parametrize("content", [b"[model\n", b"\xff\xfe", b"a = 1\na = 2\n"])
def test_a_file_that_is_no_toml_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.toml"
    path.write_bytes(content)
    (problem,) = problems(path)
    assert problem.startswith(f"{path}: no")


def test_a_broken_file_does_not_hide_a_broken_override(tmp_path: Path) -> None:
    assert len(problems(write(tmp_path, "[model\n"), "nonsense")) == 2


def test_an_enormous_file_is_not_parsed(tmp_path: Path) -> None:
    (problem,) = problems(write(tmp_path, "#" * (2 << 20)))
    assert "above 1 MiB" in problem


def test_an_unknown_name_is_answered_with_the_nearest(tmp_path: Path) -> None:
    assert problems("cc4n") == ("cc4n: no such recipe; did you mean cc4m?",)
    assert problems("somewhere/smoke.toml")[0].endswith("did you mean smoke?")
    assert "recipes by name: " in problems("qqqqqq")[0] and " cc4m," in problems("qqqqqq")[0]
    assert problems(tmp_path)[0].endswith("a folder, not a recipe")


def test_a_name_is_found_wherever_we_stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cc4m").mkdir()
    assert find_recipe("cc4m").name == "cc4m.toml"
    assert {"cc4m", "cc4m-stage2", "smoke", "vits16-roberta"} <= set(recipe_names())


def test_values_of_a_checkpoint_are_checked_the_same_way() -> None:
    with pytest.raises(RecipeError, match=r"x\.safetensors: model\.wide = 1: unknown key"):
        recipe_from_values({"model": {"wide": 1}}, "x.safetensors")
    with pytest.raises(RecipeError, match="is a section of keys"):
        recipe_from_values([], "x.safetensors")  # type: ignore[arg-type]


class Shelf(Section):
    """A schema of another kind of file."""

    books: int = 1
    order: Literal["title", "author"] = "title"


def test_any_schema_has_the_same_machinery(tmp_path: Path) -> None:
    path = write(tmp_path, "books = 3\n")
    assert load(Shelf, path, ["order=author"]) == Shelf(books=3, order="author")
    with pytest.raises(RecipeError) as caught:
        load(Shelf, path, ["boks=2", "order=autor"])
    unknown, choice = sorted(caught.value.problems)
    assert "boks = 2: unknown key; did you mean books?" in unknown
    assert 'must be one of title, author; did you mean "author"?' in choice
    with pytest.raises(RecipeError, match="no such recipe"):
        load(Shelf, "smoke", kind="shelves")


@pytest.mark.parametrize(
    "content",
    [b"a = " + b"[" * 3000, b"a = " + b"9" * 5000, b".".join([b"a"] * 3000) + b" = 1", b"a = 1\0"],
)
def test_what_would_bring_a_parser_down_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "hostile.toml"
    path.write_bytes(content)
    (problem,) = problems(path)
    assert problem.startswith(f"{path}: ")


@pytest.mark.parametrize("value", ["[" * 3000, "9" * 5000, "{a=" * 3000])
def test_overrides_that_would_bring_a_parser_down(value: str) -> None:
    with pytest.raises(RecipeError, match=r"train\.seed = .*must be a whole number"):
        load_recipe("smoke", [f"train.seed={value}"])
    with pytest.raises(RecipeError, match=r"write section\.key=value"):
        load_recipe("smoke", [".".join(["a"] * 3000) + "=1"])
