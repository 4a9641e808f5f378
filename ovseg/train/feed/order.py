"""The order of an epoch: a function of the epoch, the seed and the list of pairs alone.

Letters: M pair, T mention.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ovseg.train.feed.index import PairIndex

Numbers = npt.NDArray[np.int64]
NOTHING = -1


@dataclass(frozen=True)
class Order:
    """Rows of an epoch.

    Attributes:
        rows: of the index, int64 [M].
        shared: entity that rows 2k and 2k + 1 share, -1 where they share none, int64 [M].
    """

    rows: Numbers
    shared: Numbers


def shuffled_order(count: int, epoch: int, seed: int) -> Order:
    """Every row once."""
    rows = np.random.default_rng([seed, epoch]).permutation(count)
    return Order(rows, np.full(count, NOTHING))


def paired_order(index: PairIndex, epoch: int, seed: int) -> Order:
    """Every row once (but for one of an odd number), in pairs that share an entity.

    Each row draws one of its entities, rare ones more often, as partners are drawn when a data set
    is built; rows that drew the same one are paired at random. What is left over, at most one row
    per entity and those without any, is paired with each other and shares nothing.
    """
    random = np.random.default_rng([seed, epoch])
    drawn = _draw_entities(index, random)  # [M]
    shuffled = random.permutation(len(index))
    # Of 16-bit numbers numpy's stable sort is a radix sort, which takes a tenth of the time.
    small = len(index.entity_names) < np.iinfo(np.uint16).max
    numbers = (drawn[shuffled] + 1).astype(np.uint16 if small else np.int64)
    by_entity = shuffled[np.argsort(numbers, kind="stable")]
    pairs, shared, alone = _neighbours(by_entity, drawn[by_entity])
    random.shuffle(alone)
    rest = alone[: len(alone) // 2 * 2].reshape(-1, 2)
    units = np.concatenate([pairs, rest])
    entity = np.concatenate([shared, np.full(len(rest), NOTHING)])
    order = random.permutation(len(units))
    return Order(units[order].reshape(-1), np.repeat(entity[order], 2))


def _draw_entities(index: PairIndex, random: np.random.Generator) -> Numbers:
    """One of each row's entities, with probability inverse to its count; -1 without any; [M]."""
    counts = np.bincount(index.entities, minlength=len(index.entity_names))
    # A race: of exponential times with these rates, the first comes with the wanted probability.
    times = random.standard_exponential(len(index.entities)) * counts[index.entities]  # [T]
    lengths = np.diff(index.offsets)
    some = np.flatnonzero(lengths)
    drawn = np.full(len(index), NOTHING)
    if len(some):
        first = np.minimum.reduceat(times, index.offsets[some])
        winners = np.flatnonzero(times == np.repeat(first, lengths[some]))
        drawn[np.repeat(some, lengths[some])[winners]] = index.entities[winners]
    return drawn


def _neighbours(rows: Numbers, entity: Numbers) -> tuple[Numbers, Numbers, Numbers]:
    """Pairs [P, 2] of neighbours with one entity, that entity [P], and the rows left over."""
    begins = np.flatnonzero(np.r_[True, entity[1:] != entity[:-1]])
    lengths = np.diff(np.r_[begins, len(rows)])
    place = np.arange(len(rows)) - np.repeat(begins, lengths)
    whole = place < np.repeat(lengths // 2 * 2, lengths)
    paired = whole & (entity != NOTHING)
    return rows[paired].reshape(-1, 2), entity[paired][::2], rows[~paired]


def sample_seed(seed: int, epoch: int, position: int) -> int:
    """Seed of the sample at a position of an epoch, 64 bits (splitmix64's finaliser)."""
    mask = (1 << 64) - 1
    word = (seed * 0x9E3779B97F4A7C15 + epoch * 0xD1342543DE82EF95 + position + 1) & mask
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        word = ((word ^ (word >> shift)) * factor) & mask
    return word ^ (word >> 31)
