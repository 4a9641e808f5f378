"""Which nouns name something that can be pointed at.

The shipped list decides by a noun's most frequent sense in WordNet (an animal, artifact, part of
the body, food, natural object, person or plant); `visual_edits.txt` corrects it, and a file of the
user's corrects both. All persons count as one entity, `people`, as in the published list.
"""

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from ovseg.data.corpus.forms import fold
from ovseg.errors import DataError, UsageError

PEOPLE = "people"


@dataclass(frozen=True)
class VisualNouns:
    """`shared` maps each visible noun to the noun it counts as; `removed` are struck by hand."""

    shared: dict[str, str]
    removed: frozenset[str]

    def why_not(self, noun: str) -> str:
        """Why a noun is dropped, for people to read; empty where it is kept."""
        if noun in self.shared:
            return ""
        if noun in self.removed:
            return "struck from the visible nouns by an edit"
        return "not among the visible nouns"


def load_visual_nouns(edits: Path | None = None) -> VisualNouns:
    """The shipped list with its corrections and then those of the file `edits`."""
    folder = files("ovseg.data.corpus")
    shared = _parse_list(folder.joinpath("visual_nouns.tsv").read_text(encoding="utf-8"))
    removed: set[str] = set()
    shipped = folder.joinpath("visual_edits.txt").read_text(encoding="utf-8")
    _apply(shipped, "visual_edits.txt", shared, removed)
    if edits is not None:
        try:
            text = edits.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"cannot read the visual nouns {edits}: {error}") from error
        _apply(text, str(edits), shared, removed)
    return VisualNouns(shared, frozenset(removed))


def _parse_list(text: str) -> dict[str, str]:
    rows = [line.split("\t") for line in text.splitlines() if not line.startswith("#")]
    return {
        noun: PEOPLE if group == "person" else (same[0] if same else noun)
        for noun, group, *same in rows
    }


def _apply(text: str, source: str, shared: dict[str, str], removed: set[str]) -> None:
    """Change `shared` and `removed` line by line."""
    for number, line in enumerate(text.splitlines(), 1):
        edit = line.split("#")[0].strip()
        if not edit:
            continue
        noun, _, same = (fold(part.strip()) for part in edit[1:].partition("="))
        if edit[0] == "+" and noun:
            shared[noun] = same or noun
            removed.discard(noun)
        elif edit[0] == "-" and noun and not same:
            shared.pop(noun, None)
            removed.add(noun)
        else:
            raise UsageError(
                f"{source}, line {number}: {edit!r} is not +noun, +noun=other or -noun"
            )
