"""Which words of a phrase say what it is: its head, by a few rules of English.

`a cat sitting on a couch` is a cat, `a piece of pizza` a pizza, and `red sports car` a sports car,
or whatever of its last words is known.
"""

from collections.abc import Sequence

ARTICLES = frozenset(("a", "an", "the"))
# fmt: off
ENDS = frozenset((
    "above", "against", "along", "around", "at", "behind", "below", "beneath", "beside",
    "between", "by", "during", "for", "from", "in", "inside", "into", "near", "next", "of", "off",
    "on", "onto", "over", "that", "through", "to", "toward", "towards", "under", "underneath",
    "upon", "where", "which", "while", "who", "whose", "with", "without", "is", "are", "was",
    "were",
))
MEASURES = frozenset((
    "bit", "bunch", "couple", "crowd", "dozen", "flock", "group", "herd", "kind", "lot", "lots",
    "number", "pack", "pair", "piece", "pieces", "row", "slice", "slices", "sort", "type",
))
# fmt: on
"""What ends a head; words whose `of` names what there is."""
_SHORTEST = 5  # of words that may be participles: `sitting`, but not `king`


def heads_of(words: Sequence[str]) -> list[list[str]]:
    """The words of a phrase up to what says where it is, then without what says what it does."""
    words = list(words)
    for place, word in enumerate(words[1:], 1):
        behind = words[place + 1 :]
        if word == "of" and words[place - 1] in MEASURES and behind:
            return heads_of(behind)
        if word in ENDS:
            head = words[:place]
            return [head, head[:-1]] if len(head) > 1 and _is_participle(head[-1]) else [head]
        if _is_participle(word) and behind and behind[0] in ARTICLES:
            return [words[:place]]
    return [words]


def _is_participle(word: str) -> bool:
    return len(word) >= _SHORTEST and word.endswith("ing")
