"""Partners share an entity, never are the pair itself, favour the rare, and repeat."""

from pathlib import Path

import numpy as np
import pytest

from ovseg.data.dataset import partners
from ovseg.data.dataset.partners import NO_ENTITY, NOBODY, EntityLists, draw_partners


def _lists(sets: list[list[int]], count: int) -> EntityLists:
    offsets = np.concatenate([[0], np.cumsum([len(entities) for entities in sets])])
    return EntityLists(offsets, np.concatenate(sets).astype(np.uint16), count)


def _random_sets(rows: int = 3000) -> list[list[int]]:
    chance = np.random.default_rng(0)
    return [
        sorted({int(n) for n in chance.geometric(0.4, chance.integers(1, 4)).clip(0, 9)})
        for _ in range(rows)
    ]


def test_partners_share_the_entity_and_are_others() -> None:
    sets = _random_sets()
    found, shared = draw_partners(_lists(sets, 10), 0, len(sets), 10, seed=3)
    for row, (others, entities) in enumerate(zip(found, shared, strict=True)):
        for other, entity in zip(others, entities, strict=True):
            assert other != row
            assert entity in sets[row] and entity in sets[other]


def test_blocks_do_not_matter_and_the_seed_does() -> None:
    sets = _random_sets(500)
    lists = _lists(sets, 10)
    whole, _ = draw_partners(lists, 0, 500, 4, seed=1)
    parts = [draw_partners(lists, at, at + 125, 4, seed=1)[0] for at in range(0, 500, 125)]
    assert np.array_equal(whole, np.concatenate(parts))
    assert not np.array_equal(whole, draw_partners(lists, 0, 500, 4, seed=2)[0])


def test_known_values_keep_their_bits() -> None:
    found, shared = draw_partners(_lists([[0], [0, 1], [1], [0], [1, 2]], 3), 0, 5, 3, seed=7)
    assert found.dtype == np.uint32 and shared.dtype == np.uint16
    assert found.tolist() == [[3, 3, 1], [4, 3, 2], [4, 4, 1], [1, 1, 0], [1, 1, 2]]


def test_rare_entities_are_seen_more_often_than_they_occur() -> None:
    sets = [[0, 1] if row % 100 == 0 else [0] for row in range(10_000)]
    _, shared = draw_partners(_lists(sets, 2), 0, len(sets), 10, seed=0)
    both = shared[::100]
    # Weights 1/10000 and 1/100: the rare one in 100 of 101 draws of the pairs that have it.
    assert np.mean(both == 1) == pytest.approx(100 / 101, abs=0.01)


def test_slots_hold_different_partners_where_there_are_enough() -> None:
    found, _ = draw_partners(_lists([[0]] * 50, 1), 0, 50, 10, seed=0)
    assert all(len(set(row)) == 10 for row in found.tolist())
    # And every other pair is about equally likely.
    many = np.concatenate(
        [draw_partners(_lists([[0]] * 11, 1), 0, 1, 5, s)[0] for s in range(2000)]
    )
    shares = np.bincount(many.ravel().astype(int), minlength=11) / many.size
    assert shares[0] == 0
    assert shares[1:] == pytest.approx(0.1, abs=0.02)


def test_a_pair_whose_entities_nobody_shares() -> None:
    found, shared = draw_partners(_lists([[0], [1, 2], [2]], 3), 0, 3, 2, seed=0)
    assert (found[0] == NOBODY).all() and (shared[0] == NO_ENTITY).all()
    assert found[1].tolist() == [2, 2] and shared[1].tolist() == [2, 2]


def test_files_are_plain_arrays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partners, "BLOCK", 7)
    lists = _lists(_random_sets(40), 10)
    partners.write_partners(lists, tmp_path, 3, seed=5)
    found, shared = draw_partners(lists, 0, 40, 3, seed=5)
    assert np.array_equal(np.load(tmp_path / "partners.npy", mmap_mode="r"), found)
    assert np.array_equal(np.load(tmp_path / "partner_entities.npy"), shared)
