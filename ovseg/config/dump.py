"""Recipes out again: as TOML for people, as JSON for checkpoints, as a hash, as a difference."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ovseg.config.load import show_value
from ovseg.config.section import Section


@dataclass(frozen=True)
class Difference:
    """A key that two recipes set differently; None stands for a key that is not set."""

    key: str
    old: Any
    new: Any

    def __str__(self) -> str:
        return f"{self.key}: {_shown(self.old)} -> {_shown(self.new)}"


def to_values(section: Section) -> dict[str, Any]:
    """Every key with its value, defaults included, in plain JSON types; unset keys are left out."""
    return section.model_dump(mode="json", exclude_none=True)


def to_json(section: Section) -> str:
    """The whole recipe, or a section, as one line of JSON with sorted keys."""
    return json.dumps(to_values(section), sort_keys=True, separators=(",", ":"), allow_nan=False)


def to_toml(section: Section) -> str:
    """Every key as TOML, defaults included; `load_recipe` reads it back to an equal recipe."""
    return "\n".join(_toml_lines(to_values(section), ())).lstrip("\n") + "\n"


def content_hash(section: Section) -> str:
    """SHA-256 over every value: equal for equal recipes, however they were written down."""
    return hashlib.sha256(to_json(section).encode()).hexdigest()


def differences(old: Section, new: Section) -> list[Difference]:
    """The keys whose values differ, in the schema's order."""
    before, after = dict(_leaves(to_values(old))), dict(_leaves(to_values(new)))
    keys = [*before, *(key for key in after if key not in before)]
    pairs = ((key, before.get(key), after.get(key)) for key in keys)
    return [Difference(*pair) for pair in pairs if pair[1] != pair[2]]


def _shown(value: Any) -> str:
    return "not set" if value is None else show_value(value)


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _toml_lines(values: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[str]:
    plain = {key: value for key, value in values.items() if not isinstance(value, Mapping)}
    if path and plain:
        yield f"\n[{'.'.join(path)}]"
    for key, value in plain.items():
        yield f"{key} = {_toml_value(value)}"
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _toml_lines(value, (*path, key))


def _toml_value(value: Any) -> str:
    """JSON and TOML agree on numbers, booleans, arrays and, but for DEL, on strings."""
    if isinstance(value, list):
        return f"[{', '.join(_toml_value(item) for item in value)}]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
