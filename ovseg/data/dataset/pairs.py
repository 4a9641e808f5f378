"""What a pair of a data set is: a caption, the entities it mentions, an image."""

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
