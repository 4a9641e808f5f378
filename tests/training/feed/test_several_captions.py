"""Training on images that are stored once and have several captions."""

from pathlib import Path

import pytest
import torch

from ovseg.data.build.engine import Engine
from ovseg.data.build.pipeline import BuildOptions, EntityOptions, build_from_source
from ovseg.data.build.sources import Columns, resolve_source
from ovseg.data.dataset.folder import ImageOptions
from ovseg.data.dataset.index import open_index
from ovseg.training.feed.sampler import Draw
from tests.data.pictures import picture
from tests.training.feed.test_feed import collator

pytest.importorskip("polars")


def test_every_caption_comes_with_its_image(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.jpg").write_bytes(picture(number))
    captions = ("a dog", "two cats", "a red bus")
    rows = [f"{number}.jpg\t{text} {number}\n" for number in range(3) for text in captions]
    (tmp_path / "rows.tsv").write_text("".join(rows))
    source = resolve_source(str(tmp_path / "rows.tsv"), "", Columns("", "0", ("1",)), tmp_path)
    options = BuildOptions(
        EntityOptions("paper100"), ImageOptions(short_side=32), engine=Engine(workers=1)
    )
    build_from_source(source, tmp_path / "data", options)
    index = open_index((str(tmp_path / "data"),))
    index.load_partners()
    assert [index.pair(row).caption for row in range(9)] == [
        f"{text} {number}" for number in range(3) for text in captions
    ]
    batch = collator(index, "exact").__getitems__([Draw(row, 7) for row in range(9)])
    assert bool(batch.valid.all()) and len(set(batch.keys)) == 9 and not batch.problems
    for number in range(3):
        same = batch.images[3 * number : 3 * number + 3]
        assert torch.equal(same[0], same[1]) and torch.equal(same[0], same[2])
    assert not torch.equal(batch.images[0], batch.images[3])
