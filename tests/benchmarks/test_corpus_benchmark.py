"""Small benchmarks of building a data set; `bench_corpus.py` has those at full size."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from ovseg.data.build.encoding import prepare_image
from ovseg.data.build.matching import Matcher
from ovseg.data.dataset.entities import load_entities
from ovseg.data.dataset.folder import ImageOptions
from ovseg.data.dataset.partners import EntityLists, draw_partners
from ovseg.data.dataset.shards import PlanRow, PreparedImage, write_shard
from tests.data.pictures import picture

CAPTIONS = [
    "a man walks his dog along the beach at sunset",
    "vector illustration of a seamless pattern with flowers",
    "the interior of the house , with a sofa , a table and two chairs",
    "football player celebrates after scoring during the match",
]


def test_match_captions(benchmark: BenchmarkFixture) -> None:
    matcher = Matcher(load_entities("paper100"))
    captions = pl.Series(CAPTIONS * 10_000)
    found = benchmark(matcher.match, captions)
    assert len(found) == 70_000


@pytest.mark.parametrize("size", [(1033, 775), (2000, 1500)])
def test_prepare_image(benchmark: BenchmarkFixture, size: tuple[int, int]) -> None:
    data = picture(0, size)
    assert benchmark(prepare_image, data, ImageOptions()).height == 256


def test_write_shard(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    image = PreparedImage(np.random.default_rng(0).bytes(20_000), 341, 256)
    rows = [
        PlanRow(f"http://a/{n}.jpg", CAPTIONS[0], None, None, [0, 1], [2, 16], [5, 19])
        for n in range(1000)
    ]
    images = [image] * len(rows)
    stats = benchmark(write_shard, tmp_path, 0, rows, images, ["people", "dog"])
    assert stats.written == 1000


def test_draw_partners(benchmark: BenchmarkFixture) -> None:
    chance = np.random.default_rng(0)
    counts = chance.integers(1, 4, 100_000)
    entities = (chance.zipf(1.3, counts.sum()).clip(1, 73) - 1).astype(np.uint16)
    lists = EntityLists(np.concatenate([[0], np.cumsum(counts)]), entities, 73)
    partners, _ = benchmark(draw_partners, lists, 0, 100_000, 10, 0)
    assert partners.shape == (100_000, 10)
