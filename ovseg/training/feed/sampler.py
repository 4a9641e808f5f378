"""Which pairs each process draws at each step.

The global batch of a step is a run of consecutive positions of the epoch's order, dealt to the
processes in equal parts. So a step sees the same pairs however many processes and loader workers
there are, and the state of the data is a number: the step.

Letters: M pair, T mention.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from ovseg.data.dataset.index import PairIndex
from ovseg.data.dataset.pairs import RawPair
from ovseg.data.splitmix import mix
from ovseg.errors import DataError

Numbers = npt.NDArray[np.int64]
NOTHING = -1


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


@dataclass(frozen=True)
class Share:
    """How a step's pairs are dealt: `parts` of `batch_size` pairs to each of `world_size`."""

    batch_size: int
    parts: int = 1
    rank: int = 0
    world_size: int = 1

    @property
    def local(self) -> int:
        """Pairs of one process in a step."""
        return self.batch_size * self.parts

    @property
    def total(self) -> int:
        """Pairs of all processes in a step."""
        return self.local * self.world_size


class IndexSampler:
    """Batches of draws, part after part, from `first_step` to `last_step`.

    Args:
        paired: whether neighbours in a batch should share an entity.
        units: rows to draw from where that is not all of them, such as one a photo.

    Raises:
        DataError: there are fewer pairs than a step takes.
    """

    def __init__(
        self,
        index: PairIndex,
        share: Share,
        seed: int,
        paired: bool,
        first_step: int = 0,
        last_step: int = 1 << 62,
        units: Numbers | None = None,
    ) -> None:
        self.index = index
        self.units = units
        self.share = share
        self.seed = seed
        self.paired = paired
        self.first_step = first_step
        self.last_step = last_step
        self.steps_per_epoch = steps_per_epoch(len(index if units is None else units), share)

    def __iter__(self) -> Iterator[list[Draw]]:
        order, epoch = None, -1
        for step in range(self.first_step, self.last_step):
            if step // self.steps_per_epoch != epoch:
                epoch = step // self.steps_per_epoch
                order = self._order(epoch)
            assert order is not None
            yield from self._parts(order, epoch, step % self.steps_per_epoch)

    def _order(self, epoch: int) -> Order:
        if self.paired:
            return paired_order(self.index, epoch, self.seed)
        if self.units is None:
            return shuffled_order(len(self.index), epoch, self.seed)
        order = shuffled_order(len(self.units), epoch, self.seed)
        return Order(self.units[order.rows], order.shared)

    def _parts(self, order: Order, epoch: int, step: int) -> Iterator[list[Draw]]:
        share = self.share
        begin = step * share.total + share.rank * share.local
        for part in range(share.parts):
            start = begin + part * share.batch_size
            yield [
                Draw(
                    row=int(order.rows[position]),
                    seed=sample_seed(self.seed, epoch, position),
                    shared=int(order.shared[position]),
                )
                for position in range(start, start + share.batch_size)
            ]


def steps_per_epoch(pairs: int, share: Share) -> int:
    """Whole steps in an epoch; what is left of the order is left out of this epoch.

    Raises:
        DataError: not even one.
    """
    steps = pairs // 2 * 2 // share.total if share.total % 2 == 0 else pairs // share.total
    if steps == 0:
        raise DataError(
            f"the data has {pairs} pairs, fewer than one step takes ({share.total}): lower "
            "data.batch_size or data.accumulation"
        )
    return steps
