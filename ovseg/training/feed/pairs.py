"""What is drawn for a batch, before anything is read."""

from dataclasses import dataclass

from ovseg.data.dataset.pairs import RawPair


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
