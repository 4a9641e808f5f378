"""One example instead of training: classes shown by a photo and a mask, or a box.

Prototypes are a few means of what a model sees inside the masks, and beside them; they are mixed
with what the words of a class say, where the model knows the words (after Snell et al.,
Prototypical Networks, NeurIPS 2017, at positions).

Letters: N position, S width of what is seen, M prototype, H W photo, h w grid.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from ovseg.data.class_list import BACKGROUND
from ovseg.data.images import Pixels, read_image
from ovseg.errors import DataError, UsageError
from ovseg.evaluation.sets.label_files import read_index_png
from ovseg.inference.encode import EncodedView, encode_views
from ovseg.inference.protocol import OWN
from ovseg.inference.views import views_of
from ovseg.models.interface import ModelCard, SegmentationModel, to_numpy
from ovseg.models.taught.head import seen_in
from ovseg.models.taught.prototypes import PrototypeHead, directions_of
from ovseg.models.taught.taught_model import KIND, Taught, TaughtModel

Floats = npt.NDArray[np.float32]

INSIDE, BESIDE = 4, 12
"""Prototypes of a class, and of what is none of them."""
TEXT = 0.3
"""The power of what words say beside an example."""
_ROUNDS = 8
_LEAST_DEVIATION = 1e-3
_NUMBERS = re.compile(r"[-+.,\d\s]*\d[-+.,\d\s]*")
_HOW = "give NAME=photo.jpg:mask.png, or a box in pixels as NAME=photo.jpg:x0,y0,x1,y1"


@dataclass(frozen=True)
class Example:
    """A class in a photo.

    Attributes:
        name: of the class.
        pixels: uint8 [H, W, 3].
        mask: where the class is, bool [H, W].

    Raises:
        DataError: photo and mask differ in size, or the mask is empty.
    """

    name: str
    pixels: Pixels = field(repr=False)
    mask: npt.NDArray[np.bool_] = field(repr=False)

    def __post_init__(self) -> None:
        if self.mask.shape != self.pixels.shape[:2]:
            sizes = [f"{each.shape[1]}×{each.shape[0]}" for each in (self.mask, self.pixels)]
            raise DataError(
                f"the example of {self.name}: its mask has {sizes[0]} pixels, its photo {sizes[1]}"
            )
        if not self.mask.any():
            raise DataError(f"the example of {self.name} shows nothing of it: its mask is empty")


def read_example(text: str) -> Example:
    """Read `NAME=photo.jpg:mask.png` or `NAME=photo.jpg:x0,y0,x1,y1`.

    Pixels of a mask that are not 0 belong to the class; a box holds x0 and y0 but not x1 and y1.

    Raises:
        UsageError: it is neither, or the box lies outside the photo.
        DataError: a file cannot be read, or both do not go together.
    """
    name, equals, place = text.partition("=")
    photo, colon, where = place.rpartition(":")
    name = " ".join(name.split())
    if not (name and equals and colon and photo and where):
        raise UsageError(f"example {text!r}: {_HOW}")
    if name.casefold() == BACKGROUND:
        raise UsageError(f"example {text!r}: the background is no class to show")
    pixels = read_image(Path(photo))
    corners = where.split(",")
    if len(corners) == 4 and all(each.strip().isdecimal() for each in corners):
        return Example(name, pixels, _box(text, [int(each) for each in corners], pixels))
    if _NUMBERS.fullmatch(where) and not Path(where).is_file():
        count = "one number is" if len(corners) == 1 else f"{len(corners)} numbers are"
        raise UsageError(f"example {text!r}: {count} no box of four whole pixels: {_HOW}")
    return Example(name, pixels, read_index_png(Path(where)) > 0)


def _box(text: str, corners: Sequence[int], pixels: Pixels) -> npt.NDArray[np.bool_]:
    left, top, right, bottom = corners
    height, width = pixels.shape[:2]
    if not (left < right <= width and top < bottom <= height):
        raise UsageError(f"example {text!r}: no box of a photo of {width}×{height} pixels: {_HOW}")
    mask = np.zeros((height, width), bool)
    mask[top:bottom, left:right] = True
    return mask


def with_examples(model: SegmentationModel, examples: Sequence[str | Example]) -> SegmentationModel:
    """A model that also finds what examples show; the model itself where there are none.

    Several examples of a class count together. What a photo shows beside its mask counts as none
    of the classes.

    Args:
        examples: as `read_example` reads them, or read already.

    Raises:
        OvsegError: as `read_example`.
    """
    if not examples:
        return model
    read = [read_example(each) if isinstance(each, str) else each for each in examples]
    names = tuple(dict.fromkeys(each.name for each in read))
    seen, shares = zip(*(_looked_at(model, each) for each in read), strict=True)
    every = np.concatenate(seen)
    mean, deviation = every.mean(axis=0), every.std(axis=0) + _LEAST_DEVIATION
    units = [directions_of((each - mean) / deviation) for each in seen]
    inside = tuple(
        _prototypes(
            np.concatenate(
                [
                    _inside(unit, share)
                    for unit, share, each in zip(units, shares, read, strict=True)
                    if each.name == name
                ]
            ),
            INSIDE,
        )
        for name in names
    )
    outside = [unit[share < 0.05] for unit, share in zip(units, shares, strict=True)]
    beside = np.concatenate(outside)
    if not len(beside):  # masks of whole photos: what all of them have in common
        beside = np.zeros((1, every.shape[1]), np.float32)
    head = PrototypeHead(mean, deviation, inside, _prototypes(beside, BESIDE))
    taught = Taught(tuple((name,) for name in names), head, TEXT)
    return TaughtModel(model, taught, _card(model, read))


def _looked_at(model: SegmentationModel, example: Example) -> tuple[Floats, Floats]:
    """What is seen in a photo, float [N, S], and the mask's share of each position, [N]."""
    protocol = OWN.for_model(model)
    view = views_of(example.pixels, protocol, model.preprocessing)[0]
    (encoded,) = encode_views(model, [view])
    seen = to_numpy(seen_in(encoded.grouped)).astype(np.float32)  # [M, N, S]
    mask = cv2.resize(example.mask.astype(np.float32), view.shape[::-1])
    shares = [_shares(encoded, mask, window, seen.shape[1]) for window in range(len(seen))]
    return seen.reshape(-1, seen.shape[-1]), np.concatenate(shares)


def _shares(encoded: EncodedView, mask: Floats, window: int, positions: int) -> Floats:
    """Of the mask in each position of a window, or in each group, float [N]."""
    grouped, view = encoded.grouped, encoded.view
    box, padding = view.boxes[window], view.padding
    inside = np.zeros(padding.shape, np.float32)
    rows = slice(padding.above, padding.above + box.height)
    inside[rows, padding.before : padding.before + box.width] = mask[box.slices]
    rows_, columns = grouped.grid
    if grouped.assignment is None:
        times = round((rows_ * columns / positions) ** 0.5)
        rows_, columns = rows_ // times, columns // times
    cells = cv2.resize(inside, (columns, rows_), interpolation=cv2.INTER_AREA).reshape(-1)
    if grouped.assignment is None:
        return cells
    owned = to_numpy(grouped.assignment[window])  # [G, h*w]
    return (owned @ cells / np.maximum(owned.sum(axis=1), 1e-6)).astype(np.float32)


def _inside(units: Floats, shares: Floats) -> Floats:
    """Positions that show the class for the most part; of what is small, the best."""
    return units[shares >= min(0.5, float(shares.max()))]


def _prototypes(units: Floats, count: int) -> Floats:
    """Means of like directions, at length 1, at most so many: k-means on the sphere.

    It begins with the direction nearest to the mean, then those farthest from all before.
    """
    centres = [units[int((units @ units.mean(axis=0)).argmax())]]
    while len(centres) < min(count, len(units)):
        centres.append(units[int((units @ np.stack(centres).T).max(axis=1).argmin())])
    found = np.stack(centres)
    for _ in range(_ROUNDS):
        nearest = (units @ found.T).argmax(axis=1)
        means = [
            units[nearest == number].mean(axis=0) if (nearest == number).any() else old
            for number, old in enumerate(found)
        ]
        found = directions_of(np.stack(means))
    return found.astype(np.float32)


def _card(model: SegmentationModel, examples: Sequence[Example]) -> ModelCard:
    digest = hashlib.sha256(model.card.content_hash.encode())
    for each in examples:
        digest.update(each.name.encode() + each.pixels.tobytes() + np.packbits(each.mask).tobytes())
    names = ", ".join(dict.fromkeys(each.name for each in examples))
    card = model.card
    return ModelCard(
        name=card.name,
        kind=KIND,
        description=f"{card.description}; shown {names} by examples",
        licence=card.licence,
        content_hash=digest.hexdigest(),
    )
