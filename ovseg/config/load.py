"""Recipes from files, names and overrides, with every mistake reported at once, as a sentence."""

import difflib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError

from ovseg.config.schema import Recipe
from ovseg.config.section import Section
from ovseg.documents import Bounds, parse_toml, read_toml
from ovseg.errors import RecipeError

S = TypeVar("S", bound=Section)
Origin = Callable[[tuple[str, ...]], str]

_BOUNDS = Bounds(size=1 << 20)  # a recipe is a page of text; more than this is some other file
_MOST_PARTS = 16  # of a key
_KINDS = ("source",)  # sections that no training run has: a data set's recipe
_EXPECTED = {
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "string_type": "must be a string",
    "tuple_type": "must be an array",
    "model_type": "is a section of keys, not a value",
    "missing": "is missing from the array",
}


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
    return load(Recipe, name_or_path, overrides)


def recipe_from_values(
    values: Mapping[str, Any], where: str, overrides: Sequence[str] = ()
) -> Recipe:
    """Check the values of a recipe that were read before, such as a checkpoint's; see `check`."""
    return check(Recipe, values, where, overrides)


def load(
    schema: type[S], name_or_path: str | Path, overrides: Sequence[str] = (), kind: str = ""
) -> S:
    """Read a TOML file of any schema, apply `section.key=value` overrides and check the result.

    Args:
        schema: the section that the file as a whole is.
        name_or_path: the name of a file that ships with ovseg, or a path.
        overrides: values in TOML syntax; what is no TOML value counts as a string.
        kind: section that tells the shipped files of this schema from those of training runs.

    Raises:
        RecipeError: with one problem per mistake in the file and the overrides together.
    """
    path = find_recipe(name_or_path, kind)
    try:
        values = read_toml(path, _BOUNDS, RecipeError)
    except RecipeError as error:
        _, problems = _parse_overrides(overrides)
        raise RecipeError(*error.problems, *problems) from None
    return check(schema, values, str(path), overrides)


def check(
    schema: type[S], values: Mapping[str, Any], where: str, overrides: Sequence[str] = ()
) -> S:
    """Apply overrides to values that were read before and check them.

    Args:
        where: what to call their origin in messages.
        overrides: as for `load`.

    Raises:
        RecipeError: with one problem per mistake.
    """
    changes, problems = _parse_overrides(overrides)
    changed = deepcopy(values)
    for change in changes:
        _apply(changed, change, problems)
    try:
        checked = schema.model_validate(_tuples(changed))
    except ValidationError as error:
        origin = _origin_of(where, {change.path for change in changes})
        problems += _describe(schema, error, origin)
    if problems:
        raise RecipeError(*problems)
    return checked


def find_recipe(name_or_path: str | Path, kind: str = "") -> Path:
    """The file that a recipe's name or path stands for; `kind` as for `load`.

    Raises:
        RecipeError: if there is none, with the nearest name.
    """
    path = Path(name_or_path)
    named = recipe_names(kind)
    if path.suffix == "" and path.parent == Path() and path.name in named:
        return recipes_folder() / f"{path.name}.toml"
    if path.is_file():
        return path
    if path.is_dir():
        raise RecipeError(f"{path}: a folder, not a recipe")
    close = nearest(path.stem, named)
    hint = f"did you mean {close}?" if close else f"recipes by name: {', '.join(named)}"
    raise RecipeError(f"{path}: no such recipe; {hint}")


def recipe_names(kind: str = "") -> list[str]:
    """Names of the recipes that ship with ovseg; of training runs, where no kind is given."""
    return sorted(path.stem for path in recipes_folder().glob("*.toml") if _kind(path) == kind)


def _kind(path: Path) -> str:
    lines = {line.strip() for line in path.read_text(encoding="utf-8").splitlines()}
    return next((kind for kind in _KINDS if f"[{kind}]" in lines), "")


def recipes_folder() -> Path:
    """Folder of the shipped recipes: inside the installed package, or the working copy's own."""
    packaged = Path(__file__).parent / "recipes"
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "recipes"


def _parse_overrides(overrides: Sequence[str]) -> tuple[list[_Override], list[str]]:
    """The overrides that can be read, and a problem for each of the others."""
    changes, problems = [], []
    for override in overrides:
        key, equals, text = override.partition("=")
        path = tuple(part.strip() for part in key.split("."))
        if equals and all(path) and len(path) <= _MOST_PARTS:
            changes.append(_Override(path, _toml_value(text.strip())))
        else:
            problems.append(f"--set {override}: write section.key=value")
    return changes, problems


def _toml_value(text: str) -> Any:
    """The TOML value of `text`, or `text` itself: shells eat the quotes of strings."""
    try:
        parsed = parse_toml(f"value = {text}", "--set", _BOUNDS, RecipeError)
    except RecipeError:
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


def _describe(schema: type[Section], error: ValidationError, origin: Origin) -> list[str]:
    """One sentence per mistake; `origin` names the file, or option, that set a key's path."""
    sentences = []
    for mistake in error.errors(include_url=False):
        path = tuple(str(part) for part in mistake["loc"])
        what = _what(schema, path, mistake)
        sentences.append(f"{origin(path)}: {_key(path, mistake)}{what}")
    return sentences


def nearest(name: str, choices: Iterable[str]) -> str | None:
    """The choice that `name` is most likely a misspelling of, if any is close."""
    by_lower = {choice.lower(): choice for choice in choices}
    close = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.6)
    return by_lower[close[0]] if close else None


def show_value(value: Any) -> str:
    """A value as the recipe would write it, shortened."""
    if isinstance(value, Mapping):
        return "a section"
    listed = list(value) if isinstance(value, tuple) else value
    text = json.dumps(listed, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _key(path: tuple[str, ...], mistake: Any) -> str:
    if mistake["type"] == "value_error":  # a rule over several keys: the message holds the values
        return f"[{'.'.join(path)}]: " if path else ""
    dotted = "".join(f"[{part}]" if part.isdigit() else f".{part}" for part in path).lstrip(".")
    if isinstance(mistake["input"], Mapping) or mistake["type"] == "missing":
        return f"{dotted}: "
    return f"{dotted} = {show_value(mistake['input'])}: "


def _what(schema: type[Section], path: tuple[str, ...], mistake: Any) -> str:
    kind, message = mistake["type"], mistake["msg"]
    if kind == "extra_forbidden":
        return _unknown_key(schema, path)
    if kind == "value_error":
        return message.removeprefix("Value error, ")
    if kind == "literal_error":
        return _unknown_choice(schema, path, mistake["input"])
    if kind in _EXPECTED:
        return _EXPECTED[kind]
    return message.replace("Input should", "must", 1)


def _unknown_key(schema: type[Section], path: tuple[str, ...]) -> str:
    *parents, name = path
    siblings = _section(schema, tuple(parents)).model_fields
    close = nearest(name, siblings)
    if close:
        return f"unknown key; did you mean {'.'.join([*parents, close])}?"
    known = list(_all_keys(schema))
    close = nearest(name, {key.rsplit(".", 1)[-1] for key in known})
    if close:
        keys = [key for key in known if key.rsplit(".", 1)[-1] == close]
        return f"unknown key; did you mean {' or '.join(keys)}?"
    return f"unknown key; known here: {', '.join(siblings)}"


def _unknown_choice(schema: type[Section], path: tuple[str, ...], value: Any) -> str:
    annotation = _section(schema, path[:-1]).model_fields[path[-1]].annotation
    choices = [str(choice) for choice in _literals(annotation)]
    close = nearest(str(value), choices)
    hint = f'; did you mean "{close}"?' if close else ""
    return f"must be one of {', '.join(choices)}{hint}"


def _literals(annotation: Any) -> Iterator[Any]:
    for argument in get_args(annotation):
        if isinstance(argument, str):
            yield argument
        else:
            yield from _literals(argument)


def _all_keys(section: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Every key of a schema with its sections, such as `model.image.width`, sections included."""
    for name, field in section.model_fields.items():
        yield f"{prefix}{name}"
        inner = inner_section(field.annotation)
        if inner is not None:
            yield from _all_keys(inner, f"{prefix}{name}.")


def _section(section: type[BaseModel], path: tuple[str, ...]) -> type[BaseModel]:
    """The section of a schema at a path."""
    for part in path:
        inner = inner_section(section.model_fields[part].annotation)
        assert inner is not None
        section = inner
    return section


def inner_section(annotation: Any) -> type[BaseModel] | None:
    """The section that an annotation means, also where it may be left out; None for values."""
    for kind in (annotation, *get_args(annotation)):
        # Python 3.10 takes tuple[int, int] for a type, but for no class.
        if get_origin(kind) is None and isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None
