"""Photos without masks as lessons: what is seen in a photo, and in a part of it, perhaps mirrored.

Letters: N position of the whole photo, P position of the part, S width of what is seen, H' W' view.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ovseg.data.images import find_images, read_image
from ovseg.errors import DataError
from ovseg.evaluation.run import LoadedSample
from ovseg.evaluation.sets.base import EvaluationSample, named_samples
from ovseg.files import file_digest
from ovseg.inference.encode import EncodedView
from ovseg.models.interface import GroupedImage, to_numpy
from ovseg.models.taught.head import seen_in
from ovseg.teaching.lessons import Floats, Lesson, Teacher

Integers = npt.NDArray[np.int32]

_NOTHING = np.iinfo(np.uint16).max
_SMALLEST, _LARGEST = 0.5, 0.9
"""Sides of a part, as shares of the photo's."""


@dataclass(frozen=True)
class UnlabelledLesson(Lesson):
    """A photo of which no pixel has a label: its shares are zero.

    Attributes:
        part: what is seen in a part of the photo, float [P, S].
        twins: the position of the whole photo that shows the same, int32 [P]; -1 for none.
    """

    part: Floats
    twins: Integers


@dataclass(frozen=True)
class Part:
    """A part of a photo. Lengths are shares of the photo's sides."""

    top: float
    left: float
    side: float
    mirrored: bool

    @classmethod
    def drawn(cls, name: str) -> "Part":
        """One by chance, always the same of a name."""
        chance = np.random.default_rng(zlib.crc32(name.encode()))
        side = chance.uniform(_SMALLEST, _LARGEST)
        top, left = chance.uniform(0, 1 - side, 2)
        return cls(top, left, side, bool(chance.integers(2)))

    def of(self, image: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The part of an image, or of what is known of its pixels, [H, W, ...]."""
        (top, bottom), (left, right) = (
            (int(start * pixels), max(int((start + self.side) * pixels), int(start * pixels) + 1))
            for start, pixels in zip((self.top, self.left), image.shape[:2], strict=True)
        )
        part = image[top:bottom, left:right]
        return np.ascontiguousarray(part[:, ::-1] if self.mirrored else part)


def photos_without_masks(
    folder: Path, labelled: Sequence[EvaluationSample]
) -> tuple[tuple[EvaluationSample, ...], dict[str, int]]:
    """The photos of a folder, searched in depth, and how many are left out, by reason.

    What is left out cannot be read, or has a mask among those that are taught.

    Raises:
        DataError: there is no such folder, or no photo is left.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder of photos without masks")
    known = {file_digest(sample.image) for sample in labelled}
    kept, left_out = [], {"have masks": 0, "cannot be read": 0}
    for path in find_images([str(folder)]):
        try:
            read_image(path)
        except DataError:
            left_out["cannot be read"] += 1
            continue
        if file_digest(path) in known:
            left_out["have masks"] += 1
        else:
            kept.append((path, ""))
    if not kept:
        reasons = ", ".join(f"{count} {reason}" for reason, count in left_out.items())
        raise DataError(f"{folder}: no photo to learn from without a mask: {reasons}")
    return named_samples(folder, kept), left_out


class UnlabelledTeacher(Teacher):
    """Makes lessons of photos without masks, by the views that segmenting takes."""

    def loaded(self, sample: EvaluationSample) -> LoadedSample:
        image = read_image(sample.image)
        part = Part.drawn(sample.name).of(image)
        views = (*self.labeller.views(image), *self.labeller.views(part))
        return LoadedSample(sample, image, np.full(image.shape[:2], _NOTHING, np.uint16), views)

    def _lesson(
        self, loaded: LoadedSample, views: list[EncodedView]
    ) -> tuple[EvaluationSample, Lesson, str]:
        half = len(views) // 2
        sample, whole, digest = super()._lesson(loaded, views[:half])
        part, before = Part.drawn(sample.name), 0
        seen, twins = [], []
        for larger, smaller in zip(views[:half], views[half:], strict=True):
            if larger.view.flipped:
                continue
            windows = to_numpy(seen_in(smaller.grouped)).astype(np.float32)  # [M, P, S]
            found = _twins(part, larger, smaller)
            seen.append(windows.reshape(-1, windows.shape[-1]))
            twins.append(np.where(found < 0, -1, found + before))
            before += _positions(larger)
        lesson = UnlabelledLesson(
            whole.seen, whole.shares, whole.words, np.concatenate(seen), np.concatenate(twins)
        )
        return sample, lesson, digest


def _positions(encoded: EncodedView) -> int:
    """Over all windows of a view."""
    windows, positions = seen_in(encoded.grouped).shape[:2]
    return windows * positions


def _twins(part: Part, larger: EncodedView, smaller: EncodedView) -> Integers:
    """For each position of the part the one of the whole photo that shows the same, int32 [P]."""
    shown = part.of(_owners(larger))
    rows, columns = (
        (np.arange(pixels) * 2 + 1) * there // (2 * pixels)
        for pixels, there in zip(smaller.view.shape, shown.shape, strict=True)
    )
    shown = shown[rows[:, None], columns]  # [H', W'] of the part
    view, found = smaller.view, []
    for number, box in enumerate(view.boxes):
        padded = np.full(view.padding.shape, -1, np.int32)
        above, before = view.padding.above, view.padding.before
        padded[above : above + box.height, before : before + box.width] = shown[box.slices]
        cells = _cells(smaller.grouped, number)
        rows, columns = (
            (np.arange(count) * 2 + 1) * pixels // (2 * count)
            for count, pixels in zip(cells.shape, padded.shape, strict=True)
        )
        middles = padded[rows[:, None], columns]
        found.append(_commonest(middles, cells, seen_in(smaller.grouped).shape[1]))
    return np.concatenate(found)


def _owners(encoded: EncodedView) -> Integers:
    """Which position, counted over all windows, shows each pixel of a view, int32 [H', W']."""
    view, grouped = encoded.view, encoded.grouped
    owners = np.full(view.shape, -1, np.int32)
    for number, box in enumerate(view.boxes):
        cells = _cells(grouped, number)
        rows, columns = (
            (np.arange(pixels) + first) * count // padded
            for pixels, first, count, padded in zip(
                (box.height, box.width),
                (view.padding.above, view.padding.before),
                cells.shape,
                view.padding.shape,
                strict=True,
            )
        )
        owners[box.slices] = cells[rows[:, None], columns] + number * seen_in(grouped).shape[1]
    return owners


def _cells(grouped: GroupedImage, window: int) -> Integers:
    """The position, or the group, of each cell of a window's grid, int32 [h, w]."""
    if grouped.assignment is not None:
        owner = to_numpy(grouped.assignment[window]).argmax(axis=0)
        return owner.astype(np.int32).reshape(grouped.grid)
    positions = seen_in(grouped).shape[1]
    times = round((grouped.grid[0] * grouped.grid[1] / positions) ** 0.5)
    return np.arange(positions, dtype=np.int32).reshape(grouped.grid[0] // times, -1)


def _commonest(values: Integers, cells: Integers, count: int) -> Integers:
    """What most cells of each position or group have, int32 [count]; -1 where none has anything."""
    there = values >= 0
    pairs, often = np.unique(np.stack([cells[there], values[there]]), axis=1, return_counts=True)
    order = np.argsort(often, kind="stable")
    found = np.full(count, -1, np.int32)
    found[pairs[0, order]] = pairs[1, order]  # of several values the last one stays
    return found
