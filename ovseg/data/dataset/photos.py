"""The pairs of a data set photo by photo, and which photos are kept out of training.

Photos come in the order of a hash of their names, which is the same wherever a data set lies and
whatever else is in it. The first ones are held out, the next ones are trained on: of a larger
number of either, a smaller one is the beginning.

Letters: M pair, P photo.
"""

import hashlib
from dataclasses import dataclass

import numpy as np

from ovseg.data.dataset.index import Numbers, PairIndex
from ovseg.errors import DataError


@dataclass(frozen=True)
class PhotoOrder:
    """All pairs of an index, photo by photo.

    Attributes:
        index: the pairs in this order, [M].
        begins: pairs `begins[p]` to `begins[p + 1]` are captions of photo p, int64 [P + 1].
    """

    index: PairIndex
    begins: Numbers

    def __len__(self) -> int:
        return len(self.begins) - 1

    def photo_of(self, rows: Numbers) -> Numbers:
        """The photo of each row of `index`."""
        return np.searchsorted(self.begins, rows, side="right") - 1

    def between(self, first: int, last: int) -> Numbers:
        """The rows of photos `first` to `last`, without `last`."""
        return np.arange(self.begins[first], self.begins[last])


def photo_order(index: PairIndex) -> PhotoOrder:
    """Sort the pairs of an index by the hashes of their photos' names."""
    places, photo = np.unique(index.places(), axis=0, return_inverse=True)  # [P, 3], [M]
    photo = photo.reshape(-1)
    names = [""] * len(places)
    for number, locator in zip(photo.tolist(), index.locators(), strict=True):
        names[number] = locator
    rank = np.empty(len(places), np.int64)
    rank[sorted(range(len(places)), key=lambda number: (_hash(names[number]), number))] = np.arange(
        len(places)
    )
    rows = np.argsort(rank[photo], kind="stable")
    begins = np.concatenate([[0], np.cumsum(np.bincount(rank[photo], minlength=len(places)))])
    return PhotoOrder(index.take(rows), begins)


def _hash(name: str) -> bytes:
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()


@dataclass(frozen=True)
class Split:
    """Which photos of an order are held out (0 to `first`) and trained on (`first` to `last`)."""

    first: int
    last: int

    def __len__(self) -> int:
        return self.last - self.first


def split_photos(order: PhotoOrder, held_out: int, photos: int) -> Split:
    """The first `held_out` photos, and the next `photos` of them, or all that are left where 0.

    Raises:
        DataError: there are not so many.
    """
    if held_out + max(photos, 1) > len(order):
        raise DataError(
            f"the data has {len(order)} photos, fewer than data.held_out {held_out} and "
            f"data.photos {photos or 1} together"
        )
    return Split(held_out, held_out + photos if photos else len(order))
