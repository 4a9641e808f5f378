"""Choosing the entities: the most frequent nouns of a sample that can be pointed at.

Which nouns can be, the shipped list decides by a noun's most frequent sense in WordNet (an animal,
artifact, part of the body, food, natural object, person or plant); `visual_edits.txt` corrects it,
and a file of the user's corrects both. All persons count as one entity, `people`, as in the
published list, and synonyms as one, unless every noun is to be apart.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path

import polars as pl

from ovseg.data.build.tagging import Tagger
from ovseg.data.dataset.entities import Entity, EntityList, entity
from ovseg.data.dataset.forms import fold
from ovseg.errors import DataError, UsageError

PEOPLE = "people"
OFTEN_NO_NOUN = 0.1  # a form that is no noun this often is left to the tagger
SELDOM_NOUN = 0.3  # a word that is a noun less often ("modern", "official") is no entity
DROPPED_LISTED = 500  # of the nouns left out, how many the file lists with their reasons


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

    def apart(self) -> "VisualNouns":
        """The same nouns, each of which counts as itself."""
        return replace(self, shared={noun: noun for noun in self.shared})


def load_visual_nouns(edits: Path | None = None) -> VisualNouns:
    """The shipped list with its corrections and then those of the file `edits`."""
    folder = files("ovseg.data.build")
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


@dataclass
class NounCounts:
    """In how many captions a lemma is a noun, and how often each form is one or is not."""

    captions: Counter[str] = field(default_factory=Counter)
    as_noun: Counter[str] = field(default_factory=Counter)
    otherwise: Counter[str] = field(default_factory=Counter)


def sample_captions(chunks: Iterable[pl.DataFrame], size: int, seed: int) -> list[str]:
    """A uniform sample of the captions, in reading order (reservoir sampling, Vitter's L)."""
    chance = random.Random(seed)
    kept: list[tuple[int, str]] = []
    seen, threshold, upcoming = 0, 1.0, size
    for chunk in chunks:
        captions = chunk["caption"]
        end = seen + len(captions)
        if len(kept) < size:
            fill = captions[: size - len(kept)].to_list()
            kept.extend(enumerate(fill, len(kept)))
            if len(kept) == size:
                threshold, upcoming = _next(chance, size, threshold, size - 1)
        while len(kept) == size and upcoming < end:
            kept[chance.randrange(size)] = (upcoming, captions[upcoming - seen])
            threshold, upcoming = _next(chance, size, threshold, upcoming)
        seen = end
    return [caption for _, caption in sorted(kept)]


def _next(chance: random.Random, size: int, threshold: float, place: int) -> tuple[float, int]:
    """The next caption that replaces one of the sample, and the state after it."""
    import math

    threshold *= math.exp(math.log(1.0 - chance.random()) / size)
    skip = math.floor(math.log(1.0 - chance.random()) / math.log1p(-threshold))
    return threshold, place + skip + 1


def count_nouns(
    captions: list[str], tagger: Tagger, advance: Callable[[int], None] | None = None
) -> NounCounts:
    """Tag captions and count; `advance` hears of every caption done."""
    counts = NounCounts()
    for nouns, others in tagger.nouns(captions):
        counts.captions.update({noun.lemma for noun in nouns})
        counts.as_noun.update(noun.form for noun in nouns)
        counts.otherwise.update(others)
        if advance is not None:
            advance(1)
    return counts


def choose_entities(
    counts: NounCounts, visual: VisualNouns, top: int, tagger: str = ""
) -> EntityList:
    """The `top` most frequent visible nouns with synonyms merged, and what was dropped and why."""
    groups: dict[str, list[str]] = {}
    dropped: list[Entity] = []
    for noun, count in sorted(counts.captions.items(), key=lambda item: (-item[1], item[0])):
        reason = visual.why_not(noun) or _why_seldom(noun, counts)
        if reason:
            dropped.append(Entity(noun, count=count, kept=False, reason=reason))
        else:
            groups.setdefault(visual.shared[noun], []).append(noun)
    totals = {name: sum(counts.captions[word] for word in words) for name, words in groups.items()}
    ranked = sorted(groups, key=lambda name: (-totals[name], name))
    if not ranked:
        raise DataError("no visible noun was found in the sample: are these English captions?")
    claimed: set[str] = set()
    made = [_entity(name, groups[name], totals[name], counts, claimed) for name in ranked]
    late = [
        replace(item, kept=False, reason=f"not among the {top} most frequent")
        for item in made[top:]
    ]
    others = sorted((*late, *dropped), key=lambda item: (-item.count, item.name))
    return EntityList(tuple(made[:top]), tuple(others[:DROPPED_LISTED]), tagger)


def _entity(
    name: str, words: list[str], count: int, counts: NounCounts, claimed: set[str]
) -> Entity:
    """One entity with its forms; a form that a more frequent entity claimed stays with that."""
    made = entity(name, [word for word in words if word != name])
    forms = tuple(form for form in made.forms if form not in claimed)
    claimed.update(forms)
    ambiguous = tuple(form for form in forms if _often_no_noun(form, counts))
    return replace(made, forms=forms, ambiguous=ambiguous, count=count, reason="visible noun")


def _why_seldom(word: str, counts: NounCounts) -> str:
    """Why a word is dropped for being another part of speech; empty where it is kept."""
    noun, other = counts.as_noun[word], counts.otherwise[word]
    if noun >= SELDOM_NOUN * (noun + other):
        return ""
    return f"a noun in {noun} of {noun + other} places only"


def _often_no_noun(form: str, counts: NounCounts) -> bool:
    noun, other = counts.as_noun[form], counts.otherwise[form]
    return other > OFTEN_NO_NOUN * (noun + other)
