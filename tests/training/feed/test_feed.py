"""Batches: their order, their texts, what happens to samples that cannot be read."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from ovseg.data.dataset.index import PairIndex, open_index
from ovseg.data.dataset.pairs import Mention, Pair
from ovseg.data.dataset.webdataset import expand, read_shard
from ovseg.errors import DataError
from ovseg.models.tokenizer import HubTokenizer
from ovseg.training.feed.augmentation import Augmentation
from ovseg.training.feed.collate import Collator, Wanted, load_batches, mask_mentions, prompt_for
from ovseg.training.feed.sampler import (
    NOTHING,
    IndexSampler,
    Share,
    paired_order,
    sample_seed,
    shuffled_order,
)
from ovseg.training.feed.stream import StreamSampler
from ovseg.training.feed.vocabulary import learn_tokenizer
from tests.training.scenes import make_scenes

HOST = torch.device("cpu")


@pytest.fixture(scope="module")
def index(scenes: Path) -> PairIndex:
    return open_index((str(scenes),))


def tokenizer(index: PairIndex) -> HubTokenizer:
    captions = [index.pair(row).caption for row in range(len(index))]
    return HubTokenizer(learn_tokenizer(captions, 400), 32)


def collator(index: PairIndex, partners: str = "none", policy: str = "") -> Collator:
    wanted = Wanted(partners=partners, templates=("a photo of {}.",))
    return Collator(index, Augmentation(32, policy=policy), tokenizer(index), wanted)


def test_every_row_comes_once_and_differently_each_epoch(index: PairIndex) -> None:
    orders = [shuffled_order(len(index), epoch, 0).rows for epoch in (0, 0, 1)]
    assert sorted(orders[0]) == list(range(64))
    assert np.array_equal(orders[0], orders[1]) and not np.array_equal(orders[0], orders[2])


def test_neighbours_share_an_entity(index: PairIndex) -> None:
    order = paired_order(index, 3, 7)
    assert sorted(order.rows) == list(range(64))
    for first, second, shared in zip(
        order.rows[::2], order.rows[1::2], order.shared[::2], strict=True
    ):
        entities = [{m.entity for m in index.pair(int(row)).mentions} for row in (first, second)]
        if shared == NOTHING:
            # Only what is left over: at most one row per entity, and rows without any.
            assert entities[0] != entities[1] or not entities[0]
        else:
            assert index.entity_names[shared] in entities[0] & entities[1]
    assert (order.shared != NOTHING).sum() >= 64 - 4 - 4 - 2


def test_pairs_are_drawn_among_several_entities() -> None:
    """A row with two entities is paired by either, the rare one more often."""

    class Two:
        entity_names = ("common", "rare")
        offsets = np.arange(0, 402, 2)[:101].astype(np.int64)
        entities = np.tile([0, 1], 100)

        def __len__(self) -> int:
            return 100

    both = Two()
    drawn = [paired_order(both, epoch, 0).shared for epoch in range(20)]  # type: ignore[arg-type]
    assert 0.3 < np.concatenate(drawn).mean() < 0.7


def test_processes_share_what_one_would_see(index: PairIndex) -> None:
    one = [d for part in IndexSampler(index, Share(8), 0, True, 3, 11) for d in part]
    ranks = [list(IndexSampler(index, Share(2, 2, rank, 2), 0, True, 3, 11)) for rank in range(2)]
    dealt = [
        draw
        for step in range(8)
        for rank in ranks
        for part in rank[2 * step : 2 * step + 2]
        for draw in part
    ]
    assert dealt == one


@pytest.mark.parametrize("partners", ["none", "in-batch", "exact"])
def test_workers_change_nothing(index: PairIndex, partners: str) -> None:
    index.load_partners()
    policy = "rand-m9-mstd0.5-inc1"
    paired = partners == "in-batch"
    runs = [
        list(
            load_batches(
                collator(index, partners, policy),
                IndexSampler(index, Share(8), 0, paired, first, 5),
                workers,
                HOST,
            )
        )
        for workers, first in ((0, 0), (2, 2))
    ]
    for one, other in zip(runs[0][2:], runs[1], strict=True):
        assert torch.equal(one.images, other.images) and one.keys == other.keys
        assert torch.equal(one.caption.ids, other.caption.ids)
        assert torch.equal(one.questions.prompt.ids, other.questions.prompt.ids)
        if partners != "none":
            assert torch.equal(one.cross.partner, other.cross.partner)
            assert torch.equal(one.cross.entity.ids, other.cross.entity.ids)
        if partners == "exact":
            assert torch.equal(one.cross.images, other.cross.images)


def test_exact_partners_show_the_shared_entity(index: PairIndex) -> None:
    index.load_partners()
    for row in range(64):
        found = index.partner(row, 12345)
        mine = {mention.entity for mention in index.pair(row).mentions}
        assert (found is None) == (not mine)
        if found is not None:
            theirs = {mention.entity for mention in index.pair(found[0]).mentions}
            assert index.entity_names[found[1]] in mine & theirs and found[0] != row


def test_mentions_are_masked_and_named_once() -> None:
    text = "a dog, the dogs and a red bus"
    spans = [("bus", 26, 29), ("dog", 2, 5), ("dog", 11, 15), ("vehicle", 22, 29)]
    pair = Pair("key", text, tuple(Mention(*span) for span in spans))
    assert mask_mentions(pair, "[MASK]") == "a [MASK], the [MASK] and a [MASK]"
    choose = np.random.default_rng(0)
    assert prompt_for(pair, ("a photo of {}",), choose) == "a photo of dog and vehicle"


def test_texts_are_padded_to_their_own_longest(index: PairIndex) -> None:
    batch = collator(index).__getitems__(next(iter(IndexSampler(index, Share(4), 0, False))))
    assert batch.caption.ids.shape[1] == int(batch.caption.mask.sum(1).max())
    assert batch.questions.prompt.ids.shape[1] == int(batch.questions.prompt.mask.sum(1).max())
    mask = 4  # [MASK] in the learned vocabulary
    assert torch.equal((batch.questions.masked.ids == mask).any(1), batch.questions.present)
    assert batch.images.dtype == torch.uint8


def test_unreadable_samples_are_named_and_do_not_count(tmp_path: Path) -> None:
    bad = open_index((str(make_scenes(tmp_path, bad=(2, 3))),))
    sampler = IndexSampler(bad, Share(8), 0, True)
    batches = [
        collator(bad, "in-batch").__getitems__(draws)
        for draws, _ in zip(sampler, range(8), strict=False)
    ]
    keys = [
        key for batch in batches for key, ok in zip(batch.keys, batch.valid, strict=True) if not ok
    ]
    assert sorted(keys) == [bad.pair(2).key, bad.pair(3).key]
    problems = [problem for batch in batches for problem in batch.problems]
    assert {p.key for p in problems} == set(keys) and not any(p.fatal for p in problems)
    for batch in batches:
        lost = ~batch.valid[batch.cross.partner]
        assert not batch.cross.present[lost].any()  # nor do those who would look at them


def test_a_shard_that_vanishes_is_fatal(tmp_path: Path) -> None:
    found = open_index((str(make_scenes(tmp_path)),))
    (tmp_path / "000001.tar").unlink()
    with pytest.raises(DataError, match=r"000001\.tar: the index names this shard"):
        found.check_shards()
    draws = next(iter(IndexSampler(found, Share(64), 0, False)))
    batch = collator(found).__getitems__(draws)
    assert {p.fatal for p in batch.problems} == {True} and int(batch.valid.sum()) == 32


def test_sample_seeds_differ() -> None:
    seeds = {sample_seed(s, e, p) for s in range(3) for e in range(5) for p in range(200)}
    assert len(seeds) == 3000 and all(0 <= seed < 2**64 for seed in seeds)


def foreign(path: Path, count: int, start: int = 0) -> Path:
    """A webdataset as other tools write it, with members that must not be touched."""
    with tarfile.open(path, "w") as archive:

        def add(name: str, data: bytes) -> None:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))

        for number in range(start, start + count):
            from PIL import Image

            stream = io.BytesIO()
            Image.new("RGB", (40, 30), (number, 0, 0)).save(stream, "PNG")
            add(f"x/{number:04}.png", stream.getvalue())
            add(f"x/{number:04}.json", json.dumps({"caption": f"number {number}"}).encode())
            add(f"x/{number:04}.pkl", b"cos\nsystem\n(S'false'\ntR.")
        add("x/alone.txt", b"no image")
    return path


def test_foreign_shards_are_streamed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    paths = [str(foreign(tmp_path / f"{n}.tar", 6, 6 * n)) for n in range(2)]
    with caplog.at_level("WARNING", "ovseg"):
        pairs = list(read_shard(paths[0]))
    assert [raw.pair.caption for raw in pairs] == [f"number {n}" for n in range(6)]
    assert "1 samples without an image or a caption" in caplog.text
    assert expand([f"{tmp_path}/{{0..1}}.tar"]) == paths
    whole = list(StreamSampler(paths, Share(3), 0, 0, 8))
    resumed = list(StreamSampler(paths, Share(3), 0, 5, 8))
    assert resumed == whole[5:]
    assert sorted(draw.raw.pair.key for part in whole[:4] for draw in part) == sorted(
        {f"x/{n:04}" for n in range(12)}
    )
    ranks = [list(StreamSampler(paths, Share(2, 1, rank, 2), 0, 0, 3)) for rank in range(2)]
    shown = [{draw.raw.pair.key for part in rank for draw in part} for rank in ranks]
    assert not shown[0] & shown[1]
