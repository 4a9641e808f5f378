"""Pairs photo by photo, and the photos that are held out."""

import hashlib

import numpy as np
import pytest

from ovseg.data.dataset.index import PairIndex, open_index
from ovseg.data.dataset.photos import photo_order, split_photos
from ovseg.errors import DataError
from tests.training.scenes import make_scenes


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> PairIndex:
    folder = make_scenes(tmp_path_factory.mktemp("scenes"), pairs=20, captions=3)
    found = open_index((str(folder),))
    found.load_partners()
    return found


def test_photos_come_in_the_order_of_their_hashes(index: PairIndex) -> None:
    order = photo_order(index)
    names = [f"made/{number}" for number in range(20)]
    expected = sorted(names, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    assert len(order) == 20 and order.begins.tolist() == list(range(0, 61, 3))
    assert [order.index.locators()[row] for row in order.begins[:-1]] == expected
    assert order.photo_of(np.array([0, 2, 3, 59])).tolist() == [0, 0, 1, 19]
    assert order.between(1, 3).tolist() == [3, 4, 5, 6, 7, 8]


def test_a_photo_keeps_its_captions_and_image(index: PairIndex) -> None:
    order = photo_order(index)
    for photo in range(len(order)):
        pairs = [order.index.pair(int(row)) for row in order.between(photo, photo + 1)]
        assert pairs[1].caption == f"{pairs[0].caption}, seen 1 times"
        images = {order.index.image(int(row)) for row in order.between(photo, photo + 1)}
        assert len(images) == 1


def test_a_part_of_an_index_is_an_index(index: PairIndex) -> None:
    rows = np.array([7, 3, 40])
    part = index.take(rows)
    assert len(part) == 3 and part.fingerprint() != index.fingerprint()
    for place, row in enumerate(rows):
        assert part.pair(place) == index.pair(int(row)) and part.image(place) == index.image(row)
        span = slice(*index.offsets[row : row + 2])
        own = slice(*part.offsets[place : place + 2])
        assert part.entities[own].tolist() == index.entities[span].tolist()
    assert part.captions() == [index.pair(int(row)).caption for row in rows]
    again = part.take(np.array([2]))
    assert again.pair(0) == index.pair(40)


def test_partners_outside_of_a_part_are_nobody(index: PairIndex) -> None:
    whole = index.take(np.arange(len(index))[::-1].copy())
    for row in range(0, len(index), 7):
        found, expected = whole.partner(len(index) - 1 - row, 1), index.partner(row, 1)
        if expected is None:
            assert found is None
        else:
            assert found == (len(index) - 1 - expected[0], expected[1])
    alone = index.take(np.array([0]))
    assert alone.partner(0, 0) in (None, (0, int(alone.entities[0])))


def test_fewer_photos_are_the_beginning_of_more(index: PairIndex) -> None:
    order = photo_order(index)
    few, many = split_photos(order, 5, 4), split_photos(order, 5, 0)
    assert (few.first, few.last) == (5, 9) and (many.first, many.last) == (5, 20)
    with pytest.raises(DataError, match="20 photos, fewer than"):
        split_photos(order, 15, 6)
    with pytest.raises(DataError, match="20 photos, fewer than"):
        split_photos(order, 20, 0)
