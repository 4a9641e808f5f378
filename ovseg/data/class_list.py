"""Which classes to look for, by which words."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from ovseg.errors import DataError, UsageError

BACKGROUND = "background"
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
    def of(cls, entries: Iterable[str]) -> "ClassList":
        """From one entry per class, synonyms separated by `;`.

        Raises:
            UsageError: no class, a class or phrase twice, or one called background.
        """
        synonyms = tuple(phrases for entry in entries if (phrases := tuple(_split(entry, ";"))))
        if not synonyms:
            raise UsageError("the class list is empty: name at least one, as in --classes cat,dog")
        counts = Counter(phrase.casefold() for phrases in synonyms for phrase in phrases)
        if twice := [phrase for phrase, count in counts.items() if count > 1]:
            raise UsageError(f"named more than once among the classes: {', '.join(twice)}")
        if BACKGROUND in counts:
            raise UsageError(
                "background is not a class to name: it is label 0 unless --no-background is given"
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
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{path}: the class file cannot be read ({error})") from error
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


def _split(text: str, separator: str) -> list[str]:
    """The parts, stripped, without empty ones."""
    return [" ".join(part.split()) for part in text.split(separator) if part.strip()]
