"""Captions in training: exact masking of the entities that a data set's index names."""

from collections.abc import Sequence


def mask_spans(caption: str, starts: Sequence[int], ends: Sequence[int], mask: str) -> str:
    """`caption` with every span [start, end) of code points replaced by `mask`.

    Spans are those of the index: in order and without overlap. The question of masked entity
    completion, for which `mask` is the tokenizer's mask token.
    """
    pieces, place = [], 0
    for start, end in zip(starts, ends, strict=True):
        if start < place or end < start or end > len(caption):
            raise ValueError(f"span {start}:{end} overlaps another or leaves the caption")
        pieces += [caption[place:start], mask]
        place = end
    return "".join([*pieces, caption[place:]])
