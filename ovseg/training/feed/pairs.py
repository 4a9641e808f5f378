"""What a pair is before it becomes part of a batch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Mention:
    """An entity and the characters that name it in the caption, `caption[start:end]`."""

    entity: str
    start: int
    end: int


@dataclass(frozen=True)
class Pair:
    """A caption with its mentions, in the order of the text."""

    key: str
    caption: str
    mentions: tuple[Mention, ...] = ()


@dataclass(frozen=True)
class RawPair:
    """A pair together with its encoded image, as a stream delivers it."""

    pair: Pair
    image: bytes


@dataclass(frozen=True)
class Draw:
    """One pair of a batch, as the order says: everything its sample depends on.

    Attributes:
        row: of the index.
        seed: of every random choice for this sample.
        shared: what it shares with its neighbour in the batch (rows 2k and 2k + 1), by number of
            the index's entities; -1 if nothing.
        raw: the pair itself, where it comes from a stream.
    """

    row: int
    seed: int
    shared: int = -1
    raw: RawPair | None = None
