"""Which pairs each process draws at each step.

The global batch of a step is a run of consecutive positions of the epoch's order, dealt to the
processes in equal parts. So a step sees the same pairs however many processes and loader workers
there are, and the state of the data is a number: the step.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from ovseg.data.dataset.index import PairIndex
from ovseg.errors import DataError
from ovseg.training.feed.order import Order, paired_order, sample_seed, shuffled_order
from ovseg.training.feed.pairs import Draw


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
    ) -> None:
        self.index = index
        self.share = share
        self.seed = seed
        self.paired = paired
        self.first_step = first_step
        self.last_step = last_step
        self.steps_per_epoch = steps_per_epoch(len(index), share)

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
        return shuffled_order(len(self.index), epoch, self.seed)

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
