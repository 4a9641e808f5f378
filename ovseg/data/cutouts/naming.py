"""What a description names: "A small brown owl on a branch." -> owl.

A table of words decides (`names.toml` beside this file, or the user's own), so that every choice
can be looked up and changed. No language model and no tagger: stamp descriptions are one noun
phrase long.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from ovseg.documents import parse_toml, read_toml
from ovseg.errors import DataError

_ARTICLES = ("a", "an", "the", "some", "our")
# A noun phrase ends where one of these begins to say something about it.
_PHRASE_END = re.compile(
    r"[.!?;:,(—–]| (?:of|with|in|on|at|for|from|used|worn|lets|playing|dancing|making|that|which|"
    r"called|like|resembles|to|is|are|stands|carries|carry|has|by|eating|holding|and) "
)
_SEVERAL = ("some", "two", "three", "four", "several", "many")


class Rejected(Exception):
    """A cut-out that cannot be used; the message is the reason it is counted under."""


@dataclass(frozen=True)
class Description:
    """The words found beside or inside a cut-out.

    Attributes:
        text: title or first line, as written.
        keywords: further words, lower case; empty where the source has none.
    """

    text: str
    keywords: tuple[str, ...] = ()


@dataclass(frozen=True)
class Named:
    """What a cut-out shows.

    Attributes:
        name: the entity, as in the class list.
        several: whether the picture shows more than one ("some cherries").
    """

    name: str
    several: bool = False


class NameTable:
    """The words that decide, read from TOML.

    Raises:
        DataError: the file cannot be read, or a key has the wrong type.
    """

    def __init__(self, path: Path | None = None) -> None:
        source = "the built-in name table" if path is None else str(path)
        table = _read_table(path, source)
        self.deny = _words(table, "deny", source)
        self.deny_keywords = _words(table, "deny_keywords", source)
        self.measures = _words(table, "measures", source)
        self.plural_only = _words(table, "plural_only", source)
        self.mass = _words(table, "mass", source)
        self.unique = _words(table, "unique", source)
        self.singular_s = _words(table, "singular_s", source)
        self.colourless = _words(table, "colourless", source)
        self.plurals = {str(k): str(v) for k, v in _section(table, "plurals", source).items()}
        self.names = _section(table, "names", source)
        self._name_of: dict[str, str] = {}
        for name in self.names:
            self._name_of[name] = name
        for name in self.names:
            for word in _words(self.names, name, source):
                self._name_of.setdefault(word, name)
        self._singular_of = {plural: single for single, plural in self.plurals.items()}

    def look_up(self, phrase: str) -> str | None:
        """The entity that a word or phrase, singular or plural, names in the table."""
        return self._name_of.get(phrase) or self._name_of.get(self.singular(phrase))

    def singular(self, phrase: str) -> str:
        """The singular of a phrase's last word: "tin cups" -> "tin cup"."""
        head, _, word = phrase.rpartition(" ")
        single = self._singular_word(word)
        return f"{head} {single}" if head else single

    def _singular_word(self, word: str) -> str:
        if word in self._singular_of:
            return self._singular_of[word]
        fixed = (*self.singular_s, *self.plural_only, *self.names)
        if word in fixed or not word.endswith("s") or word.endswith("ss"):
            return word
        if word.endswith("es") and word[:-2] in fixed:
            return word[:-2]
        if word.endswith("ies") and len(word) > 4:
            return word[:-3] + "y"
        if word.endswith(("shes", "ches", "xes", "sses", "oes")):
            return word[:-2]
        return word[:-1]

    def plural(self, phrase: str) -> str:
        """The plural of a phrase's last word: "tin cup" -> "tin cups"."""
        head, _, word = phrase.rpartition(" ")
        many = self._plural_word(word)
        return f"{head} {many}" if head else many

    def _plural_word(self, word: str) -> str:
        if word in self.plurals:
            return self.plurals[word]
        if word in self.plural_only or (word.endswith("s") and self.singular(word) != word):
            return word
        if word.endswith("y") and word[-2:-1] not in ("a", "e", "i", "o", "u"):
            return word[:-1] + "ies"
        if word.endswith(("s", "sh", "ch", "x", "z")):
            return word + "es"
        return word + "s"


def name_of(description: Description, table: NameTable) -> Named:
    """The entity that a description names.

    Keywords, where there are any, must agree with the title: a title is often the name of a
    series or of a person, a keyword often only a category.

    Raises:
        Rejected: nothing that could be pointed at is named.
    """
    if any(table.singular(word) in table.deny_keywords for word in description.keywords):
        raise Rejected("a sign or symbol")
    words, article, several = noun_phrase(description.text, table)
    if not words:
        raise Rejected("no usable words")
    for length in (3, 2, 1):
        found = table.look_up(" ".join(words[-length:])) if len(words) >= length else None
        if found is not None:
            return Named(found, several and found not in table.plural_only)
    head = table.singular(words[-1])
    if head in table.deny or len(head) < 2 or not head.isalpha():
        raise Rejected("words name nothing visible")
    keywords = {table.singular(word) for word in description.keywords}
    if article or head in table.mass | table.plural_only | keywords:
        return Named(head, several and head not in table.plural_only)
    raise Rejected("words not understood")


def noun_phrase(text: str, table: NameTable) -> tuple[list[str], bool, bool]:
    """The words of the first noun phrase, whether an article led it, and whether it is plural."""
    text = re.sub(r"[\"“”‘`]", "", text.replace("’", "'")).strip().casefold()
    words = text.replace("_", " ").split()
    article = bool(words) and words[0] in _ARTICLES
    several = bool(words) and words[0] in _SEVERAL
    if article or several:
        words = words[1:]
    if len(words) > 2 and words[1] == "of" and table.singular(words[0]) in table.measures:
        several = several or words[0] in ("bunch", "cluster", "pair", "couple", "string")
        words = words[2:]
    phrase = _PHRASE_END.split(" ".join(words) + " ", maxsplit=1)[0]
    words = [word.strip("'-") for word in re.sub(r"\b\d+\b|\d+$", " ", phrase).split()]
    words = [word for word in words if word]
    if several and words and table.singular(words[-1]) == words[-1]:
        several = words[-1] in table.plurals.values()
    return words, article or several, several


def _read_table(path: Path | None, source: str) -> dict[str, Any]:
    if path is None:
        return parse_toml(files(__package__).joinpath("names.toml").read_bytes(), source)
    try:
        return read_toml(path)
    except DataError as error:
        raise DataError(f"the name table {error}") from error


def _section(table: Mapping[str, Any], key: str, source: str) -> dict[str, Any]:
    value = table.get(key, {})
    if not isinstance(value, dict):
        raise DataError(f"{source}: [{key}] must be a table of name = words")
    return value


def _words(table: Mapping[str, Any], key: str, source: str) -> frozenset[str]:
    value = table.get(key, [])
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        raise DataError(f"{source}: {key} must be a list of words")
    return frozenset(word.casefold() for word in value)
