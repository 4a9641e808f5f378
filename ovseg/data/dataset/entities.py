"""The entities a data set is built around, and the file that lists them, `entities.toml`."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from ovseg.data.dataset.forms import fold, surface_forms
from ovseg.documents import Bounds, decode_text, parse_toml, read_bytes
from ovseg.errors import DataError, UsageError

ENTITIES = "entities.toml"
PAPER = "paper100"
_BOUNDS = Bounds(size=32 << 20)  # room for all entities that can be numbered


@dataclass(frozen=True)
class Entity:
    """One thing that can be pointed at, under all its names.

    `forms` are what is searched for; those of them in `ambiguous` are often no noun, so that a
    tagger decides. `count` is the number of captions of the sample it was chosen from.
    """

    name: str
    synonyms: tuple[str, ...] = ()
    forms: tuple[str, ...] = ()
    ambiguous: tuple[str, ...] = ()
    count: int = 0
    kept: bool = True
    reason: str = ""


@dataclass(frozen=True)
class EntityList:
    """The entities in the order of their identifiers; those not kept come with their reasons.

    `tagger` is the spaCy pipeline, with its version, that found them; empty for given ones.
    """

    kept: tuple[Entity, ...]
    dropped: tuple[Entity, ...] = ()
    tagger: str = ""

    def __iter__(self) -> Iterator[Entity]:
        return iter(self.kept)

    def __len__(self) -> int:
        return len(self.kept)


def entity(name: str, synonyms: Iterable[str] = (), ambiguous: Iterable[str] = ()) -> Entity:
    """An entity with its surface forms filled in."""
    others = tuple(synonyms)
    forms = {form for word in (name, *others) for form in surface_forms(word)}
    return Entity(name, others, tuple(sorted(forms)), tuple(sorted(map(fold, ambiguous))))


def load_entities(source: str) -> EntityList:
    """`paper100`, or a file: TOML as `entities_toml` writes it, or text with one entity a line.

    A line of text is a name and, after commas, its synonyms. In TOML, `forms` may be left out.
    """
    if source == PAPER:
        text = files("ovseg.data.dataset").joinpath("paper100.toml").read_text(encoding="utf-8")
        return _parse_toml(text, source)
    try:
        content = read_bytes(Path(source), _BOUNDS.size)
    except DataError as error:
        raise DataError(f"the entities {error}; give a file or {PAPER}") from error
    return parse_entities(content, source)


def parse_entities(content: bytes, source: str) -> EntityList:
    """The entities of a file's bytes; `source` names the file, and tells TOML by its ending."""
    text = decode_text(content, source)
    return _parse_toml(text, source) if source.endswith(".toml") else _parse_lines(text, source)


def kept_names(content: bytes, source: str) -> tuple[str, ...]:
    """The names that the entities' numbers stand for, from the bytes of an `entities.toml`."""
    listed = parse_toml(content, f"{source} is no list of entities", _BOUNDS)
    try:
        return tuple(str(row["name"]) for row in listed["entity"] if row.get("kept", True))
    except (TypeError, KeyError, AttributeError) as error:
        raise DataError(f"{source} is no list of entities: {error!r}") from error


def _parse_lines(text: str, source: str) -> EntityList:
    rows = [line.split("#")[0] for line in text.splitlines()]
    words = [[word.strip() for word in row.split(",") if word.strip()] for row in rows]
    return _checked([entity(first, others) for first, *others in filter(None, words)], source)


def _parse_toml(text: str, source: str) -> EntityList:
    content = parse_toml(text, f"{source} is no list of entities", _BOUNDS)
    try:
        found = _checked([_from_row(row) for row in content.get("entity", [])], source)
        return replace(found, tagger=str(content.get("tagger", "")))
    except (TypeError, KeyError, ValueError, OverflowError, AttributeError) as error:
        raise DataError(f"{source} is no list of entities: {error}") from error


def _from_row(row: dict[str, Any]) -> Entity:
    known = {"name", "synonyms", "forms", "ambiguous", "count", "kept", "reason"}
    if unknown := set(row) - known:
        raise KeyError(f"unknown key {min(unknown)!r}; known are {', '.join(sorted(known))}")
    names = (str(row["name"]), *map(str, row.get("synonyms", ())))
    ambiguous = map(str, row.get("ambiguous", ()))
    if "forms" in row:
        forms = tuple(sorted({fold(form) for form in row["forms"]}))
        made = Entity(names[0], names[1:], forms, tuple(sorted(map(fold, ambiguous))))
    else:
        made = entity(names[0], names[1:], ambiguous)
    return replace(
        made,
        count=int(row.get("count", 0)),
        kept=bool(row.get("kept", True)),
        reason=str(row.get("reason", "")),
    )


def _checked(entities: list[Entity], source: str) -> EntityList:
    kept = tuple(item for item in entities if item.kept)
    if not kept:
        raise UsageError(f"{source} keeps no entity: nothing could be matched")
    if len(kept) > 65_535:
        raise UsageError(f"{source} keeps {len(kept)} entities; at most 65,535 can be numbered")
    owner: dict[str, str] = {}
    for item in kept:
        for form in item.forms:
            if (other := owner.setdefault(form, item.name)) != item.name:
                raise UsageError(
                    f"{source}: the form {form!r} belongs to both {other!r} and {item.name!r}; "
                    "merge them or remove it from one"
                )
    return EntityList(kept, tuple(item for item in entities if not item.kept))


def entities_toml(entities: EntityList) -> str:
    """The list as TOML text; `load_entities` reads it back unchanged."""
    blocks = [
        "# Entities in the order of their numbers. Edit and pass with --entities FILE: set kept,\n"
        "# add synonyms, remove forms; forms named in ambiguous are confirmed by a tagger.\n"
    ]
    if entities.tagger:
        blocks.append(
            f"# The spaCy pipeline that found the nouns.\ntagger = {_toml(entities.tagger)}\n"
        )
    for item in (*entities.kept, *entities.dropped):
        blocks.append(
            "[[entity]]\n"
            f"name = {_toml(item.name)}\n"
            f"synonyms = {_toml(item.synonyms)}\n"
            f"forms = {_toml(item.forms)}\n"
            f"ambiguous = {_toml(item.ambiguous)}\n"
            f"count = {item.count}\n"
            f"kept = {_toml(item.kept)}\n"
            f"reason = {_toml(item.reason)}\n"
        )
    return "\n".join(blocks)


def _toml(value: str | bool | tuple[str, ...]) -> str:
    # JSON's strings, lists and booleans are TOML's, but for DEL, which TOML wants escaped.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
