"""How far matching by form alone agrees with a tagger."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import polars as pl

from ovseg.data.corpus.entities import EntityList
from ovseg.data.corpus.matching import Matcher
from ovseg.data.corpus.tagging import Tagger


@dataclass(frozen=True)
class FormAgreement:
    """One form: how often it was found, and how often the tagger called it a noun."""

    form: str
    found: int
    nouns: int
    ambiguous: bool

    @property
    def share(self) -> float:
        """Share of the finds that are nouns, 0 to 1."""
        return self.nouns / self.found


@dataclass(frozen=True)
class Agreement:
    """Matches of all forms, and how many are nouns by the tagger.

    `lexical` is the share of matches that a tagger of every caption confirms; `pos` is the same
    share among what `--match pos` keeps, which asks the tagger about ambiguous forms only.
    `captions_kept` is the share of captions with a match that keep one under the tagger.
    """

    captions: int
    captions_matched: int
    matches: int
    lexical: float
    pos: float
    captions_kept: float
    forms: list[FormAgreement]


def measure_agreement(
    chunks: Iterable[pl.DataFrame],
    entities: EntityList,
    tagger: Tagger,
    advance: Callable[[int], None] | None = None,
) -> Agreement:
    """Match every caption by form, ask the tagger about every match, and count."""
    matcher = Matcher(entities)
    found = np.zeros(len(matcher.forms), np.int64)
    nouns = np.zeros(len(matcher.forms), np.int64)
    captions = matched = kept = 0
    for chunk in chunks:
        matches = matcher.match(chunk["caption"])
        everything = np.ones(len(matches), bool)
        confirmed = tagger.confirm(chunk["caption"], matches, everything, advance)
        found += np.bincount(matches.form, minlength=len(found))
        nouns += np.bincount(matches.form[confirmed], minlength=len(found))
        captions += len(chunk)
        matched += len(np.unique(matches.row))
        kept += len(np.unique(matches.row[confirmed]))
    asked = matcher.ambiguous
    still = found.sum() - (found - nouns)[asked].sum()  # what asking about `asked` leaves
    rows = [
        FormAgreement(form, int(found[n]), int(nouns[n]), bool(asked[n]))
        for n, form in enumerate(matcher.forms)
        if found[n]
    ]
    return Agreement(
        captions,
        matched,
        int(found.sum()),
        float(nouns.sum() / max(found.sum(), 1)),
        float(nouns.sum() / max(still, 1)),
        kept / max(matched, 1),
        sorted(rows, key=lambda row: row.nouns - row.found),
    )
