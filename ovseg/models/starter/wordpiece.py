"""Texts to the tokens of BERT's uncased vocabulary, without the package that usually makes them.

Devlin et al., BERT, NAACL 2019; the cut into the longest known pieces is that of Wu et al., 2016.
Here because the built-in model must segment with the core alone; a test compares it with
`tokenizers`.
"""

import re
import unicodedata
from collections.abc import Sequence

LONGEST_WORD = 100
MOST_TOKENS = 64
_UNKNOWN, _FIRST, _LAST = "[UNK]", "[CLS]", "[SEP]"
_CHINESE = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002fa1f]")


class WordPieces:
    """Cuts texts by a vocabulary; pieces inside of a word begin with ##.

    Raises:
        ValueError: tokens for the beginning, the end or the unknown are missing.
    """

    def __init__(self, tokens: Sequence[str]) -> None:
        self._places = {token: place for place, token in enumerate(tokens)}
        if missing := {_UNKNOWN, _FIRST, _LAST} - set(tokens):
            raise ValueError(f"there is no {' and no '.join(sorted(missing))}")

    def __call__(self, text: str) -> list[int]:
        """Token ids of a text between those for its beginning and its end, at most 64."""
        pieces = [piece for word in split(text) for piece in self.pieces(word)]
        wanted = [_FIRST, *pieces[: MOST_TOKENS - 2], _LAST]
        return [self._places[token] for token in wanted]

    def pieces(self, word: str) -> list[str]:
        """The longest pieces from the left; one unknown token where the rest has none."""
        found: list[str] = []
        while word and len(word) <= LONGEST_WORD:
            mark = "##" if found else ""
            ends = range(len(word), 0, -1)
            end = next((end for end in ends if mark + word[:end] in self._places), 0)
            if not end:
                return [_UNKNOWN]
            found.append(mark + word[:end])
            word = word[end:]
        return [_UNKNOWN] if word else found

    def is_whole(self, word: str) -> bool:
        """Whether a word is a token of its own."""
        return word in self._places


def split(text: str) -> list[str]:
    """Words, marks and Chinese characters of a text, in lower case and without accents."""
    plain = unicodedata.normalize("NFD", text.lower())
    return "".join(map(_apart, plain)).split()


def _apart(character: str) -> str:
    """A character as it is, between spaces, or not at all."""
    kind = unicodedata.category(character)
    if character.isspace():
        return " "
    if kind in ("Mn", "Cc", "Cf", "Co", "Cn") or character == "\ufffd":
        return ""
    symbol = character.isascii() and not character.isalnum()
    if symbol or kind.startswith("P") or _CHINESE.match(character):
        return f" {character} "
    return character
