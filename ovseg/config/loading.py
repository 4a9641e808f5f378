"""Recipes from files, names and overrides, with every mistake reported at once."""

import sys
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ovseg.config.problems import Origin, describe, nearest
from ovseg.config.schema import Recipe
from ovseg.errors import RecipeError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_MAX_BYTES = 1 << 20  # a recipe is a page of text; more than this is some other file


@dataclass(frozen=True)
class _Override:
    """One `--set`: the path to a key, and its value."""

    path: tuple[str, ...]
    value: Any


def load_recipe(name_or_path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe, apply `section.key=value` overrides and check the result.

    Args:
        name_or_path: a recipe that ships with ovseg, such as `cc4m`, or a TOML file.
        overrides: values in TOML syntax; what is no TOML value counts as a string.

    Raises:
        RecipeError: with one problem per mistake in the file and the overrides together.
    """
    path = find_recipe(name_or_path)
    try:
        values = _read_toml(path)
    except RecipeError as error:
        _, problems = _parse_overrides(overrides)
        raise RecipeError(*error.problems, *problems) from None
    return recipe_from_values(values, str(path), overrides)


def recipe_from_values(
    values: Mapping[str, Any], where: str, overrides: Sequence[str] = ()
) -> Recipe:
    """Apply overrides to values that were read before, such as a checkpoint's, and check them.

    Args:
        where: what to call their origin in messages.
        overrides: as for `load_recipe`.

    Raises:
        RecipeError: with one problem per mistake.
    """
    changes, problems = _parse_overrides(overrides)
    changed = deepcopy(values)
    for change in changes:
        _apply(changed, change, problems)
    try:
        recipe = Recipe.model_validate(_tuples(changed))
    except ValidationError as error:
        problems += describe(error, _origin_of(where, {change.path for change in changes}))
    if problems:
        raise RecipeError(*problems)
    return recipe


def find_recipe(name_or_path: str | Path) -> Path:
    """The file that a recipe's name or path stands for.

    Raises:
        RecipeError: if there is none, with the nearest name.
    """
    path = Path(name_or_path)
    named = recipe_names()
    if path.suffix == "" and path.parent == Path() and path.name in named:
        return recipes_folder() / f"{path.name}.toml"
    if path.is_file():
        return path
    if path.is_dir():
        raise RecipeError(f"{path}: a folder, not a recipe")
    close = nearest(path.stem, named)
    hint = f"did you mean {close}?" if close else f"recipes by name: {', '.join(named)}"
    raise RecipeError(f"{path}: no such recipe; {hint}")


def recipe_names() -> list[str]:
    """Names of the recipes that ship with ovseg."""
    return sorted(path.stem for path in recipes_folder().glob("*.toml"))


def recipes_folder() -> Path:
    """Folder of the shipped recipes: inside the installed package, or the working copy's own."""
    packaged = Path(__file__).parent / "recipes"
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "recipes"


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise RecipeError(f"{path}: larger than a recipe can be ({_MAX_BYTES >> 20} MiB)")
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{path}: not valid TOML: {error}") from None
    except UnicodeDecodeError:
        raise RecipeError(f"{path}: not a text file in UTF-8") from None
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read: {error.strerror or error}") from None


def _parse_overrides(overrides: Sequence[str]) -> tuple[list[_Override], list[str]]:
    """The overrides that can be read, and a problem for each of the others."""
    changes, problems = [], []
    for override in overrides:
        key, equals, text = override.partition("=")
        path = tuple(part.strip() for part in key.split("."))
        if equals and all(path):
            changes.append(_Override(path, _toml_value(text.strip())))
        else:
            problems.append(f"--set {override}: write section.key=value")
    return changes, problems


def _toml_value(text: str) -> Any:
    """The TOML value of `text`, or `text` itself: shells eat the quotes of strings."""
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    return parsed["value"] if len(parsed) == 1 else text


def _apply(values: Any, change: _Override, problems: list[str]) -> None:
    table: Any = values if isinstance(values, dict) else {}
    for depth, part in enumerate(change.path[:-1], start=1):
        inner = table.setdefault(part, {})
        if not isinstance(inner, dict):
            dotted = ".".join(change.path)
            problems.append(
                f"--set {dotted}: {'.'.join(change.path[:depth])} is a value, no section"
            )
            return
        table = inner
    _merge(table, change.path[-1], change.value)


def _merge(table: dict[str, Any], key: str, value: Any) -> None:
    """Set a key; a table given for a table changes only the keys it names."""
    if isinstance(value, dict) and isinstance(table.get(key), dict):
        for inner, inner_value in value.items():
            _merge(table[key], inner, inner_value)
    else:
        table[key] = value


def _origin_of(file: str, overridden: set[tuple[str, ...]]) -> Origin:
    """A function that says where the value at a path came from."""

    def origin(path: tuple[str, ...]) -> str:
        if any(path[: len(key)] == key for key in overridden):
            return "--set"
        shared = any(key[: len(path)] == path for key in overridden)
        return f"{file} with --set" if shared else file

    return origin


def _tuples(value: Any) -> Any:
    """Arrays as tuples, which is what the frozen schema holds."""
    if isinstance(value, Mapping):
        return {key: _tuples(inner) for key, inner in value.items()}
    return tuple(_tuples(inner) for inner in value) if isinstance(value, list) else value
