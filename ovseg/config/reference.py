"""Every key of a recipe, with its type, its range, its default and what it means."""

import ast
import inspect
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic_core import PydanticUndefined

from ovseg.config.dataset import KIND, DatasetRecipe
from ovseg.config.load import find_recipe, inner_section, recipe_names, show_value
from ovseg.config.schema import Recipe
from ovseg.config.section import Section
from ovseg.errors import UsageError
from ovseg.files import replacing

SCHEMAS: dict[str, type[Section]] = {"pretrain": Recipe, "build-dataset": DatasetRecipe}
"""What recipes there are, by the command that takes them."""

_KINDS = {"pretrain": "", "build-dataset": KIND}
_NAMES = {int: "whole number", float: "number", bool: "true or false", str: "text"}
_BOUNDS = (("ge", "from"), ("gt", "above"), ("le", "to"), ("lt", "below"))


@dataclass(frozen=True)
class Key:
    """A key of a recipe.

    Attributes:
        name: with its sections, such as `model.image.width`.
        kind: what values it takes, in words.
        default: as a recipe would write it; empty where there is none, or it is not set.
        meaning: what the schema says of it.
    """

    name: str
    kind: str
    default: str
    meaning: str


@dataclass(frozen=True)
class ShippedRecipe:
    """A recipe that comes with ovseg: its name, the command that takes it, its first comment."""

    name: str
    command: str
    about: str


def keys_of(command: str) -> list[Key]:
    """All keys of the recipes that a command takes.

    Raises:
        UsageError: no command of this name takes recipes.
    """
    if command not in SCHEMAS:
        raise UsageError(f"{command} takes no recipes: choose {' or '.join(SCHEMAS)}")
    return list(_keys(SCHEMAS[command], None, ""))


def shipped_recipes() -> list[ShippedRecipe]:
    """The recipes that come with ovseg."""
    return [
        ShippedRecipe(name, command, _about(find_recipe(name, kind)))
        for command, kind in _KINDS.items()
        for name in recipe_names(kind)
    ]


def recipe_text(name: str) -> str:
    """A recipe as it is written, by its name or path.

    Raises:
        UsageError: there is no such one.
    """
    return _path_of(name).read_text(encoding="utf-8")


def copy_recipe(name: str, target: Path) -> Path:
    """Copy a recipe, to be changed; returns where it is.

    Args:
        name: of a shipped recipe, or a path.
        target: a file, or a folder that is there.

    Raises:
        UsageError: there is no such recipe, or a file is already there.
    """
    source = _path_of(name)
    path = target / source.name if target.is_dir() else target
    if path.exists():
        raise UsageError(f"{path}: is there already; name another file")
    with replacing(path) as temporary:
        temporary.write_bytes(source.read_bytes())
    return path


def _path_of(name: str) -> Path:
    kinds = [kind for kind in _KINDS.values() if name in recipe_names(kind)]
    return find_recipe(name, kinds[0] if kinds else "")


def _about(path: Path) -> str:
    """The first paragraph of a recipe's comment."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        words = line.removeprefix("#").strip()
        if not line.startswith("#") or not words or line.startswith("#  "):
            break
        lines.append(words)
    return " ".join(lines)


def _keys(section: type[Section], values: Section | None, prefix: str) -> Iterator[Key]:
    """The keys of a section; `values` are its defaults where it stands, which may be others."""
    meanings = _meanings(section)
    for name, field in section.model_fields.items():
        default = field.default if values is None else getattr(values, name)
        inner = inner_section(field.annotation)
        if inner is not None and issubclass(inner, Section):
            given = default if isinstance(default, Section) else None
            yield from _keys(inner, given, f"{prefix}{name}.")
        else:
            kind = _range(_kind(field.annotation), field.metadata)
            shown = "" if default is PydanticUndefined or default is None else show_value(default)
            yield Key(f"{prefix}{name}", kind, shown, meanings.get(name, ""))


@lru_cache
def _meanings(section: type[Section]) -> dict[str, str]:
    """The text below each key in the source of a section."""
    (body,) = ast.parse(textwrap.dedent(inspect.getsource(section))).body
    assert isinstance(body, ast.ClassDef)
    found = {}
    for key, text in zip(body.body, body.body[1:], strict=False):
        if isinstance(key, ast.AnnAssign) and isinstance(key.target, ast.Name):
            value = text.value if isinstance(text, ast.Expr) else None
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                found[key.target.id] = " ".join(value.value.split())
    return found


def _kind(annotation: Any) -> str:
    """The values that an annotation allows, in words."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " or ".join(show_value(choice) for choice in arguments)
    if origin is tuple and arguments[-1] is Ellipsis:
        return f"array of {_kind(arguments[0])}"
    if origin is tuple:
        return f"array of {len(arguments)}: {', '.join(dict.fromkeys(map(_kind, arguments)))}"
    if hasattr(annotation, "__metadata__"):
        return _range(_kind(arguments[0]), annotation.__metadata__)
    if arguments:  # it may be left out
        return " or ".join(_kind(each) for each in arguments if each is not type(None))
    return _NAMES.get(annotation, "text")


def _range(kind: str, metadata: Any) -> str:
    """A kind of number with its bounds."""
    bounds = [
        f"{word} {limit:g}" if isinstance(limit, float) else f"{word} {limit:,}"
        for each in metadata
        for source in [each, *getattr(each, "metadata", ())]
        for name, word in _BOUNDS
        if (limit := getattr(source, name, None)) is not None
    ]
    return " ".join([kind, *bounds])
