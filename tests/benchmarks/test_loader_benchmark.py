"""How many images one core delivers.

    pytest --benchmark-only -s tests/benchmarks/test_loader_benchmark.py

256-pixel JPEG shards, read, decoded, augmented as in the second stage, tokenised and stacked.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from ovseg.data.dataset.index import open_index
from ovseg.data.images import decode
from ovseg.models.tokenizer import HubTokenizer
from ovseg.training.feed.augmentation import Augmentation
from ovseg.training.feed.collate import Collator, Wanted
from ovseg.training.feed.sampler import IndexSampler, Share, paired_order
from ovseg.training.feed.vocabulary import learn_tokenizer
from tests.benchmarks.sizes import full
from tests.training import scenes

PAIRS, SIDE = full(256, 64), 256
CC4M = full(4_300_000, 20_000)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards whose images have the size and about the bytes of web photos at 256 pixels."""
    photos = smooth_photos()
    original = scenes.draw
    scenes.draw = lambda *_: next(photos)  # type: ignore[assignment]
    try:
        return scenes.make_scenes(tmp_path_factory.mktemp("large") / "data", pairs=PAIRS)
    finally:
        scenes.draw = original


def smooth_photos() -> Any:
    random = np.random.default_rng(0)
    while True:
        coarse = random.integers(0, 255, (24, 32, 3), dtype=np.uint8)
        image = cv2.resize(coarse, (SIDE * 4 // 3, SIDE), interpolation=cv2.INTER_CUBIC)
        noise = random.normal(0, 4, image.shape)
        noisy = np.clip(image + noise, 0, 255).astype(np.uint8)
        yield cv2.imencode(".jpg", noisy, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()


@dataclass(frozen=True)
class Mentions:
    """As many pairs as CC4M has and their mentions: all of an index that the order reads."""

    offsets: np.ndarray
    entities: np.ndarray
    entity_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.offsets) - 1


def test_order_of_a_paired_epoch(benchmark: Any) -> None:
    """What resuming takes before the first batch, beside opening the index (target: a second)."""
    random = np.random.default_rng(0)
    lengths = random.choice([1, 2, 3], p=[0.6, 0.3, 0.1], size=CC4M)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    share = 1 / np.arange(1, 101)
    entities = random.choice(100, size=offsets[-1], p=share / share.sum())
    index: Any = Mentions(offsets, entities, tuple(str(number) for number in range(100)))
    benchmark.pedantic(paired_order, (index, 0, 0), rounds=3)
    print(f"\norder of {len(index):,} pairs: {benchmark.stats.stats.min:.2f} s")


def test_resuming_in_the_middle_of_an_epoch(tmp_path: Path, benchmark: Any) -> None:
    """From an index on disk, as large as CC4M's, to the draws of a step (target: a second).

    Any start reads the index, so the two are printed apart.
    """
    write_index(tmp_path, pairs=CC4M)
    began = time.perf_counter()
    index = open_index((str(tmp_path),))
    opened = time.perf_counter() - began
    middle = len(index) // 4096 // 2
    for paired in (False, True):
        sampler = IndexSampler(index, Share(512, 8), 0, paired, middle)
        began = time.perf_counter()
        assert len(next(iter(sampler))) == 512
        found = time.perf_counter() - began
        name = "in-batch partners" if paired else "every row once"
        print(
            f"\nindex of {len(index):,} pairs: {opened:.2f} s; {name}, step {middle}: {found:.2f} s"
        )
    benchmark.pedantic(lambda: next(iter(sampler)), rounds=1)


def write_index(folder: Path, pairs: int) -> None:
    """What training reads of a data set's folder, without its images."""
    random = np.random.default_rng(0)
    offsets = np.concatenate([[0], np.cumsum(random.integers(1, 4, pairs))]).astype(np.int32)
    mentions = random.integers(0, 100, offsets[-1]).astype(np.int32)

    def listed(values: np.ndarray) -> Any:
        return pyarrow.ListArray.from_arrays(pyarrow.array(offsets), pyarrow.array(values))

    number = np.arange(pairs)
    captions = [f"caption number {each} of a photo with this and that in it" for each in range(997)]
    table = pyarrow.table(
        {
            "key": pyarrow.array(number.astype(str)),
            "shard": pyarrow.array((number // 10_000).astype(np.int32)),
            "offset": pyarrow.array(number % 10_000 * 20_000),
            "size": pyarrow.array(np.full(pairs, 20_000)),
            "caption": pyarrow.array(captions).take(pyarrow.array(number % 997)),
            "entities": listed(mentions),
            "starts": listed(mentions),
            "ends": listed(mentions + 3),
        }
    )
    parquet.write_table(table, folder / "index.parquet")
    names = "".join(f'[[entity]]\nname = "word{each}"\n' for each in range(100))
    (folder / "entities.toml").write_text(names)


@pytest.mark.parametrize("stage", [1, 2])
def test_images_per_second_and_core(folder: Path, stage: int, benchmark: Any) -> None:
    """Target for the second stage: 1,000."""
    cv2.setNumThreads(0)
    index = open_index((str(folder),))
    policy = "rand-m9-mstd0.5-inc1" if stage == 1 else ""
    erasing = 0.25 if stage == 1 else 0.0
    augment = Augmentation(224, (0.4, 1.0), color_jitter=0.0, policy=policy, erasing=erasing)
    captions = [index.pair(row).caption for row in range(len(index))]
    tokenizer = HubTokenizer(learn_tokenizer(captions, 512), 77)
    wanted = Wanted(partners="in-batch" if stage == 2 else "none", templates=("a photo of {}.",))
    collator = Collator(index, augment, tokenizer, wanted)
    draws = list(IndexSampler(index, Share(64), 0, stage == 2, 0, PAIRS // 64))

    def deliver() -> None:
        for each in draws:
            collator.__getitems__(each)

    deliver()
    started, cpu = time.perf_counter(), time.process_time()
    for _ in range(3):
        deliver()
    wall, spent = time.perf_counter() - started, time.process_time() - cpu
    data = [index.image(row) for row in range(PAIRS)]
    begin = time.process_time()
    for each in data:
        decode(each)
    decoding = time.process_time() - begin
    print(
        f"\nstage {stage}: {3 * PAIRS / spent:.0f} images per second of one core "
        f"({3 * PAIRS / wall:.0f} by the clock), of which decoding "
        f"{3 * decoding / spent:.0%}; {np.mean([len(each) for each in data]) / 1e3:.0f} kB an image"
    )
    benchmark.pedantic(deliver, rounds=1)
