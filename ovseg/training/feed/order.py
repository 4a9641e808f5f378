"""The order of an epoch: a function of the epoch, the seed and the list of pairs alone.

Letters: M pair, T mention.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from ovseg.data.dataset.index import PairIndex
from ovseg.data.splitmix import mix

Numbers = npt.NDArray[np.int64]
NOTHING = -1


@dataclass(frozen=True)
class Order:
    """Rows of an epoch.

    Attributes:
        rows: of the index, int32 or int64 [M].
        shared: entity that rows 2k and 2k + 1 share, -1 where they share none, likewise [M].
    """

    rows: Numbers | npt.NDArray[np.int32]
    shared: Numbers | npt.NDArray[np.int32]


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
    # Small numbers throughout: of 16-bit ones numpy's stable sort is a radix sort, which takes a
    # tenth of the time, and what is gathered at random places should fit the cache.
    small = np.uint16 if len(index.entity_names) < np.iinfo(np.uint16).max else np.int64
    drawn = (_draw_entities(index, random) + 1).astype(small)  # [M], 0 for none
    shuffled = random.permutation(len(index)).astype(np.int32)
    by_entity = shuffled[np.argsort(drawn[shuffled], kind="stable")]
    pairs, shared, alone = _neighbours(by_entity, np.bincount(drawn))
    random.shuffle(alone)
    rest = alone[: len(alone) // 2 * 2].reshape(-1, 2)
    units = np.concatenate([pairs, rest])
    entity = np.concatenate([shared, np.full(len(rest), NOTHING, np.int32)])
    order = random.permutation(len(units))
    return Order(units[order].reshape(-1), np.repeat(entity[order], 2))


def _draw_entities(index: PairIndex, random: np.random.Generator) -> Numbers:
    """One of each row's entities, with probability inverse to its count; -1 without any; [M]."""
    counts = np.bincount(index.entities, minlength=len(index.entity_names))
    begins, lengths = index.offsets[:-1], np.diff(index.offsets)
    # A race: of exponential times with these rates, the first comes with the wanted probability.
    times = random.standard_exponential(len(index.entities))  # [T]
    drawn = np.full(len(index), NOTHING)
    # Rows with as many mentions as each other at a time: a table, and for most rows no race at all.
    for length in np.flatnonzero(np.bincount(lengths)):
        if length == 0:
            continue
        rows = np.flatnonzero(lengths == length)
        places = begins[rows, None] + np.arange(length)  # [R, length]
        found = index.entities[places]
        first = (times[places] * counts[found]).argmin(axis=1) if length > 1 else 0
        drawn[rows] = found[np.arange(len(rows)), first]
    return drawn


def _neighbours(
    rows: npt.NDArray[np.int32], counts: Numbers
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Pairs [P, 2] of neighbours with one entity, that entity [P], and the rows left over.

    Args:
        rows: those without an entity, then those of each entity in turn, [M].
        counts: how many of each.
    """
    ends = np.cumsum(counts)
    paired, alone = [rows[:0]], [rows[: ends[0]]]
    for begin, end in pairwise(ends):
        middle = end - (end - begin) % 2
        paired.append(rows[begin:middle])
        alone.append(rows[middle:end])
    shared = np.repeat(np.arange(len(counts) - 1, dtype=np.int32), counts[1:] // 2)
    return np.concatenate(paired).reshape(-1, 2), shared, np.concatenate(alone)


def sample_seed(seed: int, epoch: int, position: int) -> int:
    """Seed of the sample at a position of an epoch, 64 bits."""
    word = seed * 0x9E3779B97F4A7C15 + epoch * 0xD1342543DE82EF95 + position + 1
    return mix(word & (1 << 64) - 1)
