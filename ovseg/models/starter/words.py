"""From words to ImageNet classes, by WordNet, and to what captions say of them.

Letters: Q phrase, C class (1,000 of ImageNet, and learned ones behind them), E width of captions'
embeddings, W known word.

A word means what `groundings.toml` says, written by hand (`cow` the ox and the water buffalo), and
otherwise the ImageNet classes at or below its senses in WordNet: `cat` the five domestic cats,
`vehicle` everything from ambulance to yawl. `tools/make_starter_words.py` makes the tables of both.
"""

import difflib
import gzip
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from importlib.abc import Traversable
from importlib.resources import as_file, files
from typing import Any

import numpy as np
import numpy.typing as npt

from ovseg.documents import Bounds, TooLongError, parse_object, read_stream
from ovseg.errors import ModelError
from ovseg.models.interface import PartlyKnown, UnknownPhrase
from ovseg.models.tensor_files import read_arrays

SUGGESTIONS = 3
_STRANGERS = 10
"""Phrases at once that get suggestions: words spelled alike take 20 ms each to find."""
_REMEMBERED = 10_000

_BOUNDS = Bounds(size=32 << 20, depth=8)  # unpacked; ours take less than one

_ARTICLES = frozenset(("a", "an", "the"))

VECTORS = "vectors.safetensors"
TABLES = ("words.json.gz", "neighbours.json.gz", VECTORS)
"""Files of a word table."""


class WordTable:
    """Grounds English nouns in ImageNet classes.

    Args:
        folder: where the tables are; ovseg's own by default.
    """

    def __init__(self, folder: Traversable | None = None) -> None:
        self._folder = folder or files("ovseg.models.starter")
        self._is_foreign = folder is not None
        self._suggested: dict[str, tuple[str, ...]] = {}

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
    def _vectors(self) -> npt.NDArray[np.float32] | None:
        """Embedding of each of `words`, [W, E]; None for tables of older exports."""
        path = self._folder.joinpath(VECTORS)
        if not path.is_file():
            return None
        with as_file(path) as place:
            arrays, _ = read_arrays(place)
        vectors = arrays.get("vectors")
        if vectors is None or vectors.ndim != 2 or not np.isfinite(vectors).all():
            raise ModelError(f"{path}: holds no vectors of words: export the model again")
        return vectors.astype(np.float32)

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
        return len(self.classes) + (2 * self.captions + 1 if self.captions else 0)

    def embedding(self, phrase: str) -> npt.NDArray[np.float32]:
        """What positions are multiplied by for a phrase, float32 [C + 2 * (E + 1) + 1].

        Its shares in the classes; what captions say of its word, and 1, twice; whether the word is
        one for surroundings. All zero if the phrase cannot be grounded.
        """
        shares, word = self.weights(phrase), self.resolve(phrase)
        if self._vectors is None:
            return shares
        if word is None:
            return np.zeros(self.width, np.float32)
        vector = [*self._vectors[self._places[word]], 1.0]
        around = [float(word in self.surroundings)]
        return np.concatenate([shares, vector, vector, around]).astype(np.float32)

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
        """The table's word for a phrase: as it is, in the singular, or its last words (its head).

        `dining tables` -> `dining table`; `red sports car` -> `sports car`; None if nothing fits,
        or if it is known by hand that ImageNet has nothing of the kind (`fire hydrant`).
        """
        word, _ = self._found(phrase)
        return word

    def _found(self, phrase: str) -> tuple[str | None, list[str]]:
        """What `resolve` finds, and the words before it that it leaves out."""
        groundings = self._groundings
        spelled = phrase.lower().replace("_", " ")
        for words in (spelled.split(), spelled.replace("-", " ").split()):
            for start in range(len(words)):
                for form in self._singulars(" ".join(words[start:])):
                    if groundings.get(form) or form in self._words["words"]:
                        return form, words[:start]
                    if form in self.surroundings and self._vectors is not None:
                        return form, words[:start]
                    if form in groundings:
                        return None, words[:start]
        return None, []

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
        """The phrases that cannot be grounded, the first of them with the nearest that can."""
        strange = [phrase for phrase in phrases if self.resolve(phrase) is None]
        if len(self._suggested) > _REMEMBERED:
            self._suggested.clear()
        for phrase in strange[:_STRANGERS]:
            if phrase not in self._suggested:
                self._suggested[phrase] = self._nearest(phrase)
        return [UnknownPhrase(phrase, self._suggested.get(phrase, ())) for phrase in strange]

    def partly_known(self, phrases: Sequence[str]) -> list[PartlyKnown]:
        """The phrases of which only the last words can be grounded; articles do not count."""
        found = ((phrase, *self._found(phrase)) for phrase in phrases)
        return [
            PartlyKnown(phrase, word)
            for phrase, word, left_out in found
            if word is not None and set(left_out) - _ARTICLES
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
