"""Which classes to look for, by which words."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from ovseg.documents import read_text
from ovseg.errors import DataError, UsageError

BACKGROUND = "background"
_LONGEST_FILE = 16 << 20  # bytes
Entries = Iterable[str | Sequence[str]] | Mapping[str, str | Iterable[str] | None]
VOCABULARIES = ("voc", "context", "coco", "ade20k")


@dataclass(frozen=True)
class ClassList:
    """Classes in order, each with the phrases that name it; the first phrase is its name.

    Label 0 is always background; class i of the list (from 0) has label i + 1.
    """

    synonyms: tuple[tuple[str, ...], ...]

    @property
    def names(self) -> tuple[str, ...]:
        """One name per class."""
        return tuple(phrases[0] for phrases in self.synonyms)

    @property
    def phrases(self) -> tuple[str, ...]:
        """All phrases of all classes, class by class."""
        return tuple(phrase for phrases in self.synonyms for phrase in phrases)

    @property
    def phrase_labels(self) -> tuple[int, ...]:
        """The label of each of `phrases`, never decreasing."""
        return tuple(label for label, phrases in enumerate(self.synonyms, start=1) for _ in phrases)

    @classmethod
    def of(cls, entries: "Entries") -> "ClassList":
        """From one entry per class: a phrase with its synonyms after `;`, or a list of phrases.

        Of a dict the keys name the classes; what stands under a key are its synonyms.

        Raises:
            UsageError: no class, a class or phrase twice, one called background, or another type.
        """
        synonyms = tuple(phrases for entry in _in_order(entries) if (phrases := _phrases(entry)))
        if not synonyms:
            raise UsageError("the class list is empty: name at least one, as in 'cat,dog'")
        counts = Counter(phrase.casefold() for phrases in synonyms for phrase in phrases)
        if twice := [phrase for phrase, count in counts.items() if count > 1]:
            raise UsageError(f"named more than once among the classes: {', '.join(twice)}")
        if BACKGROUND in counts:
            raise UsageError(
                "background is not a class to name: it is label 0, unless it is switched off"
            )
        return cls(synonyms)

    @classmethod
    def parse(cls, text: str) -> "ClassList":
        """From `cat,dog`, or from `@FILE` with one class a line; synonyms after `;` in both.

        In a file, empty lines and what follows `#` are passed over.

        Raises:
            UsageError: as `of`.
            DataError: the file cannot be read as UTF-8 text.
        """
        if not text.startswith("@"):
            return cls.of(_split(text, ","))
        path = Path(text[1:])
        try:
            lines = read_text(path, _LONGEST_FILE).splitlines()
        except DataError as error:
            raise DataError(f"the class file cannot be read: {error}") from error
        return cls.of(line.split("#")[0] for line in lines)

    @classmethod
    def vocabulary(cls, name: str) -> "ClassList":
        """The classes of a benchmark: voc (20), context (59), coco (80 things) or ade20k (150).

        Raises:
            UsageError: the name is none of these.
        """
        if name not in VOCABULARIES:
            raise UsageError(f"unknown vocabulary {name}: choose {', '.join(VOCABULARIES)}")
        text = files("ovseg.data.vocabularies").joinpath(f"{name}.txt").read_text(encoding="utf-8")
        return cls.of(text.splitlines())


def _in_order(entries: "Entries") -> Iterable[object]:
    """One entry per class, for each way to give them."""
    if isinstance(entries, Mapping):
        return [[name, *_listed(name, more)] for name, more in entries.items()]
    if isinstance(entries, str | bytes | set | frozenset) or not isinstance(entries, Iterable):
        raise UsageError(
            f"classes cannot be of type {type(entries).__name__}: labels are numbered in their "
            "order, so give a list of names, a list of lists for synonyms, or a dict"
        )
    return entries


def _listed(name: str, more: "str | Iterable[str] | None") -> list[str]:
    """The synonyms under a name, which may be repeated there."""
    if more is None:
        return []
    if not isinstance(more, str | Iterable):
        raise UsageError(f"synonyms of {name} are strings, not {type(more).__name__}")
    phrases = _split(more, ";") if isinstance(more, str) else list(more)
    return [phrase for phrase in phrases if phrase != name]


def _phrases(entry: object) -> tuple[str, ...]:
    """The phrases of one class, its name first."""
    if isinstance(entry, str):
        return tuple(_split(entry, ";"))
    parts: Sequence[Any] = entry if isinstance(entry, list | tuple) else [entry]
    for part in parts:
        if not isinstance(part, str):
            raise UsageError(f"a class is named by strings, not by {type(part).__name__}: {part!r}")
    return tuple(phrase for part in parts for phrase in _split(part, ";"))


def _split(text: str, separator: str) -> list[str]:
    """The parts, stripped, without empty ones."""
    return [" ".join(part.split()) for part in text.split(separator) if part.strip()]
