"""Finding every entity in every caption, with its place.

All surface forms are searched at once (Aho-Corasick) over all captions of a chunk joined into one
text; word boundaries and overlaps are then decided on arrays. Offsets count code points, so that
`caption[start:end]` is the form as written.

Captions of ASCII alone, nearly all there are, are searched as bytes; one caption with another
letter among them would otherwise make Python widen, fold and index the text of all.
"""

import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any, TypeAlias

import ahocorasick_rs
import numpy as np
import polars as pl

from ovseg.data.dataset.entities import EntityList
from ovseg.data.dataset.forms import fold

# Beyond either end of a text there are line breaks: negative places wrap around into them.
_PADDING = b"\n" * 4
_Places: TypeAlias = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Matches:
    """Entities found in a chunk of captions, by caption, then by place; all arrays [M].

    `row` is the caption's number in the chunk, `form` an index into `Matcher.forms`, `start` and
    `end` code points.
    """

    row: np.ndarray  # int64
    entity: np.ndarray  # uint16
    form: np.ndarray  # int64
    start: np.ndarray  # uint32
    end: np.ndarray  # uint32

    def __len__(self) -> int:
        return len(self.row)

    def select(self, chosen: np.ndarray) -> "Matches":
        """The matches where `chosen` [M] holds."""
        return Matches(
            self.row[chosen],
            self.entity[chosen],
            self.form[chosen],
            self.start[chosen],
            self.end[chosen],
        )


class Matcher:
    """Finds the forms of an entity list in captions: whole words, longest first, any case.

    A form is not found where it is the first part of a hyphened compound (`tie-dye` shows no tie,
    `tow-truck` a truck), nor inside a contraction (`o'clock`); a possessive `'s` is fine.
    """

    def __init__(self, entities: EntityList) -> None:
        pairs = [(form, n) for n, entity in enumerate(entities) for form in entity.forms]
        self.forms = [form for form, _ in pairs]
        self.entity_of_form = np.array([number for _, number in pairs], np.uint16)
        ambiguous = {form for entity in entities for form in entity.ambiguous}
        self.ambiguous = np.array([form in ambiguous for form in self.forms], bool)
        self._in_text = _Automaton(self.forms, ahocorasick_rs.AhoCorasick)
        self._in_bytes = _Automaton(self.forms, ahocorasick_rs.BytesAhoCorasick, str.encode)

    def match(self, captions: pl.Series) -> Matches:
        """All matches in a chunk of captions (String, no nulls, no line breaks)."""
        plain = (captions.str.len_bytes() == captions.str.len_chars()).to_numpy()
        groups = []
        for rows in (np.flatnonzero(plain), np.flatnonzero(~plain)):
            if len(rows):
                group = captions if len(rows) == len(captions) else captions[rows]
                groups.append(self._match_group(group, rows, bool(plain[rows[0]])))
        columns = [np.concatenate(column) for column in zip(*groups, strict=True)]
        row, form, start, end = columns or np.empty((4, 0), np.int64)
        order = np.argsort(row, kind="stable")
        return Matches(
            row[order],
            self.entity_of_form[form[order]],
            form[order],
            start[order].astype(np.uint32),
            end[order].astype(np.uint32),
        )

    def _match_group(self, captions: pl.Series, rows: np.ndarray, plain: bool) -> _Places:
        """Row, form, start and end of every match; `rows` numbers the captions of this group."""
        joined = fold((captions + "\n").str.join("").item())
        if plain:
            data = joined.encode("ascii")
            characters = _Characters(np.frombuffer(data + _PADDING, np.uint8))
            form, start, end = self._in_bytes.find(data)
        else:
            codes = joined.encode("utf-32-le") + _PADDING.decode().encode("utf-32-le")
            characters = _Characters(np.frombuffer(codes, np.uint32))
            form, start, end = self._in_text.find(joined)
        chosen = np.flatnonzero(_is_whole(characters, start, end))
        chosen = chosen[_leftmost_longest(start[chosen], end[chosen])]
        form, start, end = form[chosen], start[chosen], end[chosen]
        line_ends = np.cumsum(captions.str.len_chars().to_numpy().astype(np.int64) + 1)
        line = np.searchsorted(line_ends, start, side="right")
        line_start = np.concatenate([[0], line_ends])[line]
        return rows[line], form, start - line_start, end - line_start


class _Automaton:
    """Searches for all forms at once, in text or in bytes."""

    def __init__(
        self,
        forms: list[str],
        kind: Callable[..., Any],
        convert: Callable[[str], str | bytes] = str,
    ) -> None:
        self._search = kind(
            [convert(form) for form in forms], implementation=ahocorasick_rs.Implementation.DFA
        )

    def find(self, text: str | bytes) -> np.ndarray:
        """Form, start and end of every occurrence, overlapping or not; int64 [3, M]."""
        found = self._search.find_matches_as_indexes(text, overlapping=True)
        return np.fromiter(chain.from_iterable(found), np.int64, 3 * len(found)).reshape(-1, 3).T


def _is_whole(kind: "_Characters", start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Which [start, end) are words of their own in folded text; bool [M]."""
    before, after = kind.at(start - 1), kind.at(end)
    beyond = kind.at(end + 1)
    open_left = ~before.word & ~(before.apostrophe & kind.at(start - 2).word)
    compound = after.hyphen & beyond.word
    possessive = beyond.letter_s & ~kind.at(end + 2).word
    contraction = after.apostrophe & beyond.word & ~possessive
    return open_left & ~after.word & ~compound & ~contraction


@dataclass(frozen=True)
class _Kinds:
    word: np.ndarray
    hyphen: np.ndarray
    apostrophe: np.ndarray
    letter_s: np.ndarray


class _Characters:
    """What kind of character stands at a place, given the code points of a text and `_PADDING`."""

    def __init__(self, codes: np.ndarray) -> None:
        self._codes = codes

    def at(self, places: np.ndarray) -> _Kinds:
        codes = self._codes[places]
        return _Kinds(_is_word(codes), codes == ord("-"), codes == ord("'"), codes == ord("s"))


_ASCII_WORD = np.array([chr(code).isalnum() for code in range(128)])


def _is_word(codes: np.ndarray) -> np.ndarray:
    """Letters, digits and the marks that combine with them."""
    word = _ASCII_WORD[np.minimum(codes, 127)]
    beyond = codes > 127
    if beyond.any():
        distinct, inverse = np.unique(codes[beyond], return_inverse=True)
        known = np.array([_is_word_character(chr(code)) for code in distinct])
        word[beyond] = known[inverse]
    return word


def _is_word_character(character: str) -> bool:
    return unicodedata.category(character)[0] in "LNM"


def _leftmost_longest(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Indices of the matches that remain when the leftmost, then the longest wins, in order."""
    order = np.lexsort((-end, start))
    start, end = start[order], end[order]
    if not len(order):
        return order
    furthest = np.maximum.accumulate(end)
    overlaps = np.concatenate([[False], start[1:] < furthest[:-1]])
    if not overlaps.any():
        return order
    # Only matches that touch an earlier one need a decision; the others begin a new cluster.
    keep = ~overlaps
    cluster_end = 0
    for index in _cluster_members(overlaps):
        if not overlaps[index] or start[index] >= cluster_end:
            keep[index] = True
            cluster_end = end[index]
    return order[keep]


def _cluster_members(overlaps: np.ndarray) -> Iterator[int]:
    """Every overlapping match together with the one its cluster begins with, in order."""
    leads = np.zeros_like(overlaps)
    leads[:-1] = overlaps[1:] & ~overlaps[:-1]
    yield from np.flatnonzero(overlaps | leads).tolist()
