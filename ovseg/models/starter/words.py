"""From words to ImageNet classes, by WordNet, and to what captions say of them.

Letters: Q phrase, C class (1,000 of ImageNet, and learned ones behind them), E width of captions'
embeddings, W known word.

A word means what `groundings.toml` says, written by hand (`cow` the ox and the water buffalo), and
otherwise the ImageNet classes at or below its senses in WordNet: `cat` the five domestic cats,
`vehicle` everything from ambulance to yawl. `tools/make_starter_words.py` makes the tables of both.
What captions say of a longer phrase, and of a word that is in no table, a text encoder tells.
"""

import difflib
import gzip
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from importlib.abc import Traversable
from importlib.resources import as_file, files
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ovseg.documents import Bounds, TooLongError, parse_object, read_stream
from ovseg.errors import ModelError
from ovseg.models.interface import PartlyKnown, UnknownPhrase
from ovseg.models.starter.heads import ARTICLES, heads_of
from ovseg.models.starter.phrases import GRAPH, VOCABULARY, PhraseEncoder
from ovseg.models.starter.wordpiece import split
from ovseg.models.tensor_files import read_arrays

SUGGESTIONS = 3
_STRANGERS = 10
"""Phrases at once that get suggestions: words spelled alike take 20 ms each to find."""
_REMEMBERED = 10_000

_BOUNDS = Bounds(size=32 << 20, depth=8)  # unpacked; ours take less than one

VECTORS = "vectors.safetensors"
TABLES = ("words.json.gz", "neighbours.json.gz", VECTORS, GRAPH, VOCABULARY)
"""Files of a word table."""


class Found(NamedTuple):
    """What the tables say of a phrase.

    Attributes:
        word: of the tables; None if there is none, or ImageNet has nothing of the kind.
        left_out: the other words of the phrase, but for articles.
        denied: whether it is known by hand that there is nothing of the kind.
    """

    word: str | None
    left_out: list[str]
    denied: bool = False


class Captioned(NamedTuple):
    """What captions taught of words.

    Attributes:
        vectors: their embeddings, float32 [W, E].
        trust: how far what captions say is believed beside a word's classes, float32 [W], 0..1: it
            grows with the photos whose captions have the word. 1 for tables of older exports.
    """

    vectors: npt.NDArray[np.float32]
    trust: npt.NDArray[np.float32]


class WordTable:
    """Grounds English nouns in ImageNet classes.

    Args:
        folder: where the tables are; ovseg's own by default.
    """

    def __init__(self, folder: Traversable | None = None) -> None:
        self._folder = folder or files("ovseg.models.starter")
        self._is_foreign = folder is not None
        self._suggested: dict[str, tuple[str, ...]] = {}
        self._looked_up: dict[str, Found] = {}
        self._encoder = PhraseEncoder(self._folder)

    @cached_property
    def _words(self) -> dict[str, Any]:
        words = self._table("words.json.gz")
        if self._is_foreign:
            self._check(_are_words, words, words)
        return words

    @property
    def _groundings(self) -> dict[str, list[tuple[int, float]]]:
        """Classes and shares by word, written by hand; tables of older exports have none."""
        return self._words.get("groundings", {})

    @cached_property
    def _neighbours(self) -> dict[str, Any]:
        neighbours = self._table("neighbours.json.gz")
        if self._is_foreign:
            self._check(_are_neighbours, neighbours, self._words)
        return neighbours

    def _table(self, name: str) -> dict[str, Any]:
        """Errors: ModelError where it is missing, damaged or larger than any."""
        path = self._folder.joinpath(name)
        try:
            if not path.is_file():
                raise FileNotFoundError("no such file")
            with path.open("rb") as packed, gzip.GzipFile(fileobj=packed) as stream:
                content = read_stream(stream, _BOUNDS.size)
        except (OSError, EOFError, zlib.error, TooLongError) as error:
            raise ModelError(f"{path}: cannot be read ({error}): export the model again") from error
        return parse_object(content, str(path), _BOUNDS, ModelError)

    def _check(self, rule: Callable[..., bool], table: dict[str, Any], words: Any) -> None:
        try:
            fits = rule(table, len(words["classes"]))
        except (KeyError, TypeError, ValueError, AttributeError):
            fits = False
        if not fits:
            raise ModelError(f"{self._folder}: holds other tables than words: export it again")

    @property
    def classes(self) -> list[str]:
        """The first name of each class in the order of the classifier, then the surroundings."""
        return self._words["classes"]

    @cached_property
    def surroundings(self) -> frozenset[str]:
        """Words for what is no object; see surroundings.toml."""
        return frozenset(self._words.get("surroundings", ()))

    @property
    def irregular(self) -> dict[str, str]:
        """The singular of plurals that no rule makes, with `_` between words."""
        return self._words["singular"]

    @property
    def refused(self) -> list[str]:
        """Words of which it is known by hand that ImageNet has nothing of the kind."""
        return [word for word, shares in self._groundings.items() if not shares]

    @cached_property
    def words(self) -> list[str]:
        """Every word that can be grounded, in alphabetical order."""
        by_hand = (word for word, shares in self._groundings.items() if shares)
        around = self.surroundings if self._vectors is not None else ()
        return sorted({*self._words["words"], *by_hand, *around})

    @cached_property
    def _captioned(self) -> "Captioned | None":
        """What captions taught of `words`; None for tables of older exports."""
        path = self._folder.joinpath(VECTORS)
        if not path.is_file():
            return None
        with as_file(path) as place:
            arrays, _ = read_arrays(place)
        vectors = arrays.get("vectors")
        if vectors is None or vectors.ndim != 2 or not np.isfinite(vectors).all():
            raise ModelError(f"{path}: holds no vectors of words: export the model again")
        trust = arrays.get("trust", np.ones(len(vectors)))
        if trust.shape != vectors.shape[:1] or not ((trust >= 0) & (trust <= 1)).all():
            raise ModelError(f"{path}: trusts no word as a share: export the model again")
        return Captioned(vectors.astype(np.float32), trust.astype(np.float32))

    @property
    def _vectors(self) -> npt.NDArray[np.float32] | None:
        return None if self._captioned is None else self._captioned.vectors

    @cached_property
    def _places(self) -> dict[str, int]:
        """Where each word's embedding lies."""
        assert self._vectors is not None
        if len(self._vectors) != len(self.words):
            raise ModelError(f"{self._folder}: vectors of other words: export the model again")
        return {word: place for place, word in enumerate(self.words)}

    @property
    def captions(self) -> int:
        """E + 1, which `starter_scores` asks for; 0 for tables of older exports."""
        return 0 if self._vectors is None else self._vectors.shape[1] + 1

    @property
    def width(self) -> int:
        """Of class embeddings."""
        return len(self.classes) + (2 * self.captions + 2 if self.captions else 0)

    def embedding(self, phrase: str) -> npt.NDArray[np.float32]:
        """What positions are multiplied by for a phrase, float32 [C + 2 * (E + 1) + 2].

        Its shares in the classes; what captions say of it, and 1, twice, where its classes count
        too as far as captions are trusted about its word; whether captions alone know it; whether
        its word is one for surroundings. All zero if nothing is known of it.
        """
        shares, word = self.weights(phrase), self.resolve(phrase)
        if self._vectors is None:
            return shares
        if word is None and not self._is_read(phrase):
            return np.zeros(self.width, np.float32)
        vector = np.append(self._said(phrase, word), 1.0)
        kind = [float(word is None), float(word in self.surroundings)]
        return np.concatenate([shares, self.trust(word) * vector, vector, kind], dtype=np.float32)

    def trust(self, word: str | None) -> float:
        """How far captions are believed beside the classes of a word of the tables, 0..1."""
        assert self._captioned is not None
        return 1.0 if word is None else float(self._captioned.trust[self._places[word]])

    def _said(self, phrase: str, word: str | None) -> npt.NDArray[np.float32]:
        """What captions say of a phrase, float32 [E]; of its word, where nothing else is read."""
        assert self._vectors is not None
        if word is not None and not self._adds(phrase):
            return self._vectors[self._places[word]]
        return self._encoder(phrase)

    def _adds(self, phrase: str) -> bool:
        """Whether a phrase says more than its word, and the text encoder reads it."""
        return bool(self._found(phrase).left_out) and self._reads(phrase)

    def _is_read(self, phrase: str) -> bool:
        """Whether captions alone are asked of a phrase that is in no table."""
        return not self._found(phrase).denied and self._reads(phrase)

    def _reads(self, phrase: str) -> bool:
        """Whether there is a text encoder, and every word one that it has seen often in English.

        What it makes of rare words, and of those of other languages, is what their pieces recall:
        `chien` a chime.
        """
        if not self._encoder.is_there or self._vectors is None:
            return False
        words = split(phrase)
        return any(map(str.isalpha, words)) and all(map(self._encoder.pieces.is_whole, words))

    def weights(self, phrase: str) -> npt.NDArray[np.float32]:
        """Share with which each ImageNet class counts for a phrase, float32 [C], at most 1.

        By WordNet, a class counts as much as the most used of the phrase's senses above it,
        relative to the phrase's most used groundable sense. All zero if the phrase cannot be
        grounded.
        """
        result = np.zeros(len(self.classes), dtype=np.float32)
        word = self.resolve(phrase)
        if word is None:
            return result
        if word not in self._words["words"]:
            for index, share in self._groundings.get(word, ()):
                result[index] = share
            return result
        senses = self._words["words"][word]
        # Half a use for senses that WordNet's texts never use, so that a lone one still counts.
        most = max(count for _, count in senses) + 0.5
        for offset, count in senses:
            members = self._words["senses"][offset]
            result[members] = np.maximum(result[members], (count + 0.5) / most)
        return result

    def resolve(self, phrase: str) -> str | None:
        """The table's word for a phrase: as it is, in the singular, or the last words of its head.

        `dining tables` -> `dining table`; `red sports car` -> `sports car`; `a cat sitting on a
        couch` -> `cat`; None if nothing fits,
        or if it is known by hand that ImageNet has nothing of the kind (`fire hydrant`).
        """
        return self._found(phrase).word

    def _found(self, phrase: str) -> Found:
        """What the tables say of a phrase, which is asked several times for every image."""
        if len(self._looked_up) > _REMEMBERED:
            self._looked_up.clear()
        if phrase not in self._looked_up:
            self._looked_up[phrase] = self._look_up(phrase)
        return self._looked_up[phrase]

    def _look_up(self, phrase: str) -> Found:
        """The longest words of a phrase that a table has: all of it, or the last of its head."""
        spelled = phrase.lower().replace("_", " ")
        for words in (spelled.split(), spelled.replace("-", " ").split()):
            parts = [
                words,
                *(head[start:] for head in heads_of(words) for start in range(len(head))),
            ]
            for part in parts:
                for form in self._singulars(" ".join(part)):
                    grounded = self._is_grounded(form)
                    if grounded or form in self._groundings:
                        left = [each for each in words if each not in (*part, *ARTICLES)]
                        return Found(form if grounded else None, left, not grounded)
        return Found(None, [])

    def _is_grounded(self, word: str) -> bool:
        """Whether a word has classes, or is one for surroundings that captions know."""
        if self._groundings.get(word) or word in self._words["words"]:
            return True
        return word in self.surroundings and self._vectors is not None

    def _singulars(self, noun: str) -> list[str]:
        """The noun and what it may be the plural of, likeliest first."""
        forms = [noun]
        if irregular := self._words["singular"].get(noun.replace(" ", "_")):
            forms.append(irregular.replace("_", " "))
        for ending, replacement in (("ies", "y"), ("es", ""), ("s", ""), ("men", "man")):
            if noun.endswith(ending) and len(noun) > len(ending) + 1:
                forms.append(noun.removesuffix(ending) + replacement)
        return forms

    def unknown(self, phrases: Sequence[str]) -> list[UnknownPhrase]:
        """The phrases of which nothing is known, the first of them with the nearest words."""
        strange = [
            phrase
            for phrase in phrases
            if self.resolve(phrase) is None and not self._is_read(phrase)
        ]
        if len(self._suggested) > _REMEMBERED:
            self._suggested.clear()
        for phrase in strange[:_STRANGERS]:
            if phrase not in self._suggested:
                self._suggested[phrase] = self._nearest(phrase)
        return [UnknownPhrase(phrase, self._suggested.get(phrase, ())) for phrase in strange]

    def partly_known(self, phrases: Sequence[str]) -> list[PartlyKnown]:
        """The phrases of which only some words are known; articles do not count."""
        found = ((phrase, self._found(phrase)) for phrase in phrases)
        return [
            PartlyKnown(phrase, known.word)
            for phrase, known in found
            if known.word is not None and known.left_out and not self._reads(phrase)
        ]

    def _nearest(self, phrase: str) -> tuple[str, ...]:
        """Classes under the closest common ancestor in WordNet; else words spelled alike."""
        for form in self._singulars(phrase.lower()):
            if offset := self._neighbours["words"].get(form):
                members = self._neighbours["senses"][offset]
                return tuple(self.classes[index] for index in members[:SUGGESTIONS])
        return tuple(difflib.get_close_matches(phrase.lower(), self.words, SUGGESTIONS))


def _are_words(table: Mapping[str, Any], classes: int) -> bool:
    """Whether every entry of a foreign table is what `WordTable` takes it for."""
    shares = [pair for pairs in table.get("groundings", {}).values() for pair in pairs]
    senses = [pair for pairs in table["words"].values() for pair in pairs]
    return (
        _are_texts(table["classes"])
        and _are_texts(table["singular"].values())
        and all(table["words"].values())
        and all(offset in table["senses"] and 0 <= count <= 1e9 for offset, count in senses)
        and all(_are_members(members, classes) for members in table["senses"].values())
        and _are_members([index for index, _ in shares], classes)
        and all(0 <= share <= 1 for _, share in shares)
    )


def _are_neighbours(table: Mapping[str, Any], classes: int) -> bool:
    offsets = table["words"].values()
    members = table["senses"].values()
    return all(offset in table["senses"] for offset in offsets) and all(
        _are_members(each, classes) for each in members
    )


def _are_texts(values: Iterable[Any]) -> bool:
    return all(isinstance(value, str) for value in values)


def _are_members(values: Iterable[Any], classes: int) -> bool:
    """Whether they are numbers of classes."""
    return all(type(value) is int and 0 <= value < classes for value in values)
