"""The protocols of the benchmarks by name, each with what it changes for single sets."""

from dataclasses import asdict, fields, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from ovseg.data.class_list import BACKGROUND
from ovseg.documents import Bounds, parse_toml, read_toml
from ovseg.errors import RecipeError, UsageError
from ovseg.evaluation.sets.base import EvaluationSet
from ovseg.inference.protocol import OWN, Protocol, check_templates

_BOUNDS = Bounds(size=1 << 20)
NAMES = (
    *("own", "groupvit", "tcl", "sclip", "naclip", "clearclip", "proxyclip"),
    *("talk2dino", "tips", "dinotxt", "lposs"),
)
# Models of a kind are published under a protocol: that one is taken unless another is asked for.
_BY_KIND = {
    "ovsegmentor": "groupvit",
    "groupvit": "groupvit",
    "dense-clip": "sclip",
    "tipsv2": "tips",
    "dinotxt": "dinotxt",
}


def protocol_for_model(kind: str) -> str:
    """The protocol under which models of a kind are published; `own` for others."""
    return _BY_KIND.get(kind, "own")


def load_protocol(
    name_or_path: str, evaluated: EvaluationSet, changes: dict[str, Any] | None = None
) -> Protocol:
    """A protocol as it applies to one set.

    Args:
        name_or_path: a shipped name, or a TOML file of the same form.
        evaluated: the set; its words fill in where the protocol has none for it.
        changes: single values to use instead, such as `{"refine": "pamr"}`.

    Raises:
        UsageError: there is no such protocol or file.
        RecipeError: the file has a key or value that makes no sense; all of them are named.
    """
    where, document = _read(name_or_path)
    of_set = _for_set(document.pop("sets", {}), evaluated, where)
    values = {**document, **of_set, **(changes or {})}
    try:
        protocol = TypeAdapter(Protocol).validate_python(values)
    except ValidationError as error:
        faults = "; ".join(f"{_place(fault['loc'])}: {fault['msg']}" for fault in error.errors())
        raise RecipeError(f"{where}: {faults}") from error
    except UsageError as error:
        raise RecipeError(f"{where}: {error}") from error
    _check_texts(protocol, where)
    words = protocol.words or tuple("; ".join(phrases) for phrases in evaluated.words.synonyms)
    protocol = replace(protocol, words=words, background_words=_background(protocol, evaluated))
    if len(protocol.class_list.names) != len(evaluated.words.names):
        raise RecipeError(
            f"{where}: names {len(words)} classes for {evaluated.name}, which has "
            f"{len(evaluated.words.names)}"
        )
    return protocol


def _read(name_or_path: str) -> tuple[str, dict[str, Any]]:
    if name_or_path == OWN.name:
        return name_or_path, asdict(OWN)
    if name_or_path in NAMES:
        text = (files("ovseg.evaluation") / "protocols" / f"{name_or_path}.toml").read_text("utf-8")
        return name_or_path, parse_toml(text, name_or_path)
    path = Path(name_or_path)
    if not path.is_file():
        raise UsageError(
            f"there is no protocol or file called {name_or_path}: choose {', '.join(NAMES)}, or "
            "give a TOML file"
        )
    return str(path), read_toml(path, _BOUNDS, RecipeError)


def _for_set(sets: Any, evaluated: EvaluationSet, where: str) -> dict[str, Any]:
    """What a protocol changes for one set."""
    changes = sets.get(evaluated.name, {}) if isinstance(sets, dict) else None
    if not isinstance(changes, dict):
        raise RecipeError(f"{where}: sets: must be sections [sets.NAME] of keys")
    return changes


def _place(location: tuple[int | str, ...]) -> str:
    known = {entry.name for entry in fields(Protocol)}
    key = str(location[0]) if location else "file"
    return key if key in known else f"{key} (no such key)"


def _check_texts(protocol: Protocol, where: str) -> None:
    given = () if isinstance(protocol.templates, str) else protocol.templates
    try:
        check_templates(given)
    except UsageError as error:
        raise RecipeError(f"{where}: {error}") from error


def _background(protocol: Protocol, evaluated: EvaluationSet) -> tuple[str, ...]:
    """Words of the background where the rule needs some and the set has one."""
    if not evaluated.background:
        return ()
    if protocol.rule != "probability" or protocol.background_rule:  # it knows its own words
        return protocol.background_words
    return protocol.background_words or (BACKGROUND,)
