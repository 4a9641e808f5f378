"""The surface forms under which a word appears in captions: plurals, hyphens, spacing, unicode."""

import re
import unicodedata
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import inflect

# What inflect does not know: words that exist in the plural only, whose singular is a form too,
# and "person", whose usual plural is another word.
_IRREGULAR = {
    "skis": ("ski",),
    "people": ("person", "persons"),
    "person": ("people", "persons"),
    "glasses": (),
    "scissors": (),
    "sunglasses": (),
    "jeans": (),
    "pants": (),
    "trousers": (),
    "shorts": (),
    "men": ("man",),
    "women": ("woman",),
    "children": ("child",),
    "gentleman": ("gentlemen",),
    "police": (),
}


@lru_cache(maxsize=1)
def _engine() -> "inflect.engine":
    import inflect  # takes seconds to import, and workers never need it

    return inflect.engine()


def surface_forms(word: str) -> tuple[str, ...]:
    """All forms of one word or compound, folded as captions are, sorted.

    `T-shirt` gives `t-shirt`, `t shirt`, `tshirt` and their plurals. Letters with accents come
    composed and decomposed, since captions have both.
    """
    folded = fold(unicodedata.normalize("NFC", word.strip()))
    spellings = {folded}
    if re.search(r"[- ]", folded):
        spellings |= {re.sub(r"[- ]+", joint, folded) for joint in ("-", " ", "")}
    both = spellings | {plural for spelling in spellings for plural in _plurals(spelling)}
    return tuple(sorted(both | {unicodedata.normalize("NFD", form) for form in both}))


def _plurals(word: str) -> tuple[str, ...]:
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    plural = _engine().plural_noun(word)
    return (fold(plural),) if plural else ()


def fold(text: str) -> str:
    """Lower case and plain hyphens, apostrophes and spaces; code points stay where they are.

    One code point in, one out: an offset into the result is an offset into `text`.
    """
    if text.isascii():
        return text.lower()
    for look_alikes, plain in _PLAIN.items():
        for character in look_alikes:
            text = text.replace(character, plain)
    return text.lower()


_PLAIN = {
    "\N{HYPHEN}\N{NON-BREAKING HYPHEN}\N{SMALL HYPHEN-MINUS}\N{FULLWIDTH HYPHEN-MINUS}": "-",
    "\N{RIGHT SINGLE QUOTATION MARK}\N{MODIFIER LETTER APOSTROPHE}": "'",
    "\N{NO-BREAK SPACE}\N{NARROW NO-BREAK SPACE}\N{FIGURE SPACE}": " ",
    # The one letter whose lower case has two code points.
    "\N{LATIN CAPITAL LETTER I WITH DOT ABOVE}": "i",
}
