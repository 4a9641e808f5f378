"""Sentences for what is wrong in a recipe: where, key, value, and the nearest right name."""

import difflib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

from ovseg.config.schema import Recipe

Origin = Callable[[tuple[str, ...]], str]

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


def describe(error: ValidationError, origin: Origin) -> list[str]:
    """One sentence per mistake; `origin` names the file, or option, that set a key's path."""
    sentences = []
    for mistake in error.errors(include_url=False):
        path = tuple(str(part) for part in mistake["loc"])
        what = _what(path, mistake["type"], mistake["msg"], mistake["input"])
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


def _what(path: tuple[str, ...], kind: str, message: str, value: Any) -> str:
    if kind == "extra_forbidden":
        return _unknown_key(path)
    if kind == "value_error":
        return message.removeprefix("Value error, ")
    if kind == "literal_error":
        return _unknown_choice(path, value)
    if kind in _EXPECTED:
        return _EXPECTED[kind]
    return message.replace("Input should", "must", 1)


def _unknown_key(path: tuple[str, ...]) -> str:
    *parents, name = path
    siblings = _section(tuple(parents)).model_fields
    close = nearest(name, siblings)
    if close:
        return f"unknown key; did you mean {'.'.join([*parents, close])}?"
    leaves = {key.rsplit(".", 1)[-1] for key in all_keys()}
    close = nearest(name, leaves)
    if close:
        keys = [key for key in all_keys() if key.rsplit(".", 1)[-1] == close]
        return f"unknown key; did you mean {' or '.join(keys)}?"
    return f"unknown key; known here: {', '.join(siblings)}"


def _unknown_choice(path: tuple[str, ...], value: Any) -> str:
    annotation = _section(path[:-1]).model_fields[path[-1]].annotation
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


def all_keys(section: type[BaseModel] = Recipe, prefix: str = "") -> Iterator[str]:
    """Every key of the schema with its sections, such as `model.image.width`, sections included."""
    for name, field in section.model_fields.items():
        yield f"{prefix}{name}"
        inner = field.annotation
        # Python 3.10 takes tuple[int, int] for a type, but for no class.
        if get_origin(inner) is None and isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from all_keys(inner, f"{prefix}{name}.")


def _section(path: tuple[str, ...]) -> type[BaseModel]:
    section: type[BaseModel] = Recipe
    for part in path:
        annotation = section.model_fields[part].annotation
        assert isinstance(annotation, type)
        section = annotation
    return section
