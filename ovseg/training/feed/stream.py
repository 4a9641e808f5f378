"""Batches from webdatasets that are read as a stream, without an index.

A stream has no random access, so going on in the middle of a run means reading up to the place
again; for long runs, `ovseg build-dataset` makes an index.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from ovseg.data.dataset.pairs import RawPair
from ovseg.data.dataset.webdataset import read_shard
from ovseg.errors import DataError
from ovseg.training.feed.sampler import Draw, Share, sample_seed

_BUFFER = 1_000  # pairs among which the next is drawn at random
_BUFFER_BYTES = 1 << 30  # of their images: where they are huge, fewer pairs have to do


class StreamSampler:
    """Batches of draws from shards that are read one after the other.

    Shards are shuffled anew each epoch and dealt to the processes; pairs are drawn from a buffer.
    The order depends on the seed and the number of processes, not on the loader's workers.
    """

    def __init__(
        self, addresses: Sequence[str], share: Share, seed: int, first_step: int, last_step: int
    ) -> None:
        self.addresses = list(addresses)
        self.share = share
        self.seed = seed
        self.first_step = first_step
        self.last_step = last_step
        if len(self.addresses) < share.world_size:
            raise DataError(
                f"{len(self.addresses)} shards cannot be dealt to {share.world_size} processes"
            )

    def __iter__(self) -> Iterator[list[Draw]]:
        draws = self._draws()
        for _ in range(self.first_step * self.share.local):  # up to where the run stopped
            next(draws)
        for _ in range(self.first_step, self.last_step):
            for _ in range(self.share.parts):
                yield [next(draws) for _ in range(self.share.batch_size)]

    def _draws(self) -> Iterator[Draw]:
        for epoch in range(1 << 31):
            position = -1
            for position, raw in enumerate(self._shuffled(epoch)):
                seed = sample_seed(self.seed + self.share.rank, epoch, position)
                yield Draw(row=-1, seed=seed, raw=raw)
            if position < 0:
                raise DataError(f"{self.addresses[0]}: no pair of an image and a caption")

    def _shuffled(self, epoch: int) -> Iterator[RawPair]:
        random = np.random.default_rng([self.seed, epoch])
        shards = random.permutation(len(self.addresses))[self.share.rank :: self.share.world_size]
        random = np.random.default_rng([self.seed, epoch, self.share.rank])
        buffer: list[RawPair] = []
        held = 0
        for shard in shards:
            for raw in read_shard(self.addresses[shard]):
                buffer.append(raw)
                held += len(raw.image)
                while len(buffer) >= _BUFFER or (held > _BUFFER_BYTES and len(buffer) > 1):
                    taken = _take(buffer, random)
                    held -= len(taken.image)
                    yield taken
        while buffer:
            yield _take(buffer, random)


def _take(buffer: list[RawPair], random: np.random.Generator) -> RawPair:
    chosen = int(random.integers(len(buffer)))
    buffer[chosen], buffer[-1] = buffer[-1], buffer[chosen]
    return buffer.pop()
