"""Segmentations of many files, and what of them is written into a folder."""

import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ovseg.errors import DataError, UsageError
from ovseg.files import replacing, write_text
from ovseg.inference.inputs import Failure
from ovseg.inference.result import Segmentation

EXTRAS = ("json", "rle", "logits", "groups")


class ResultFolder:
    """Writes NAME.overlay.png and NAME.labels.png per image, and what else is asked for.

    `json`: a COCO dataset of the image (NAME.json). `rle`: COCO results, the list that pycocotools'
    `loadRes` takes (NAME.rle.json). `logits`: score of each label for each group and the group of
    each pixel (NAME.logits.npz). `groups`: the group map as a 16-bit PNG (NAME.groups.png).

    Where two images would have the same NAME, their folders and suffixes become part of it.
    """

    def __init__(self, folder: Path, extras: Sequence[str], images: Sequence[Path]) -> None:
        """Create the folder.

        Raises:
            UsageError: an extra is unknown.
            DataError: the folder cannot be made or written to.
        """
        self._extras = [extra.strip() for extra in extras if extra.strip()]
        if unknown := [extra for extra in self._extras if extra not in EXTRAS]:
            raise UsageError(f"cannot save {', '.join(unknown)}: choose from {', '.join(EXTRAS)}")
        self._folder = folder
        self._stems = Counter(path.stem for path in images)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(
                f"{folder}: cannot make the output folder ({error.strerror})"
            ) from error
        if not os.access(folder, os.W_OK):
            raise DataError(f"{folder}: the output folder is not writable")

    def write(self, path: Path, result: Segmentation) -> list[Path]:
        """Write one image's files and return their paths.

        Raises:
            DataError: the disk is full or the folder has become unwritable.
        """
        base = self._folder / self._name(path)
        try:
            return [
                _save_image(result.overlay(), base, ".overlay.png"),
                _save_image(result.label_image(), base, ".labels.png"),
                *(self._save_extra(extra, base, path, result) for extra in self._extras),
            ]
        except OSError as error:
            raise DataError(f"{base}: cannot write the results ({error.strerror})") from error

    def _name(self, path: Path) -> str:
        if self._stems[path.stem] < 2:
            return path.stem
        parts = [part for part in path.parts if part not in (path.anchor, "..", ".")]
        return "__".join(parts)

    def _save_extra(self, extra: str, base: Path, path: Path, result: Segmentation) -> Path:
        if extra == "json":
            return _save_json(result.to_coco(path.name), base, ".json")
        if extra == "rle":
            return _save_json(result.annotations(), base, ".rle.json")
        if extra == "logits":
            return _save_scores(result, base)
        return _save_image(Image.fromarray(result.groups.astype(np.uint16)), base, ".groups.png")


@dataclass(frozen=True)
class SegmentedFile:
    """An image file, what is where in it, and the files that were written of that."""

    path: Path
    result: Segmentation
    files: tuple[Path, ...] = ()


@dataclass(frozen=True)
class SegmentedFiles:
    """The results of many files in order, computed as they are taken; to be gone through once.

    Attributes:
        paths: all that are segmented.
        results: one per path.
        folder: where each result is written before it is handed over; None for nowhere.
    """

    paths: Sequence[Path]
    results: Iterator[tuple[Path, Segmentation] | Failure]
    folder: ResultFolder | None

    def __iter__(self) -> Iterator[SegmentedFile | Failure]:
        for found in self.results:
            if isinstance(found, Failure):
                yield found
                continue
            path, result = found
            files = self.folder.write(path, result) if self.folder else []
            yield SegmentedFile(path, result, tuple(files))


def _beside(base: Path, suffix: str) -> Path:
    return base.with_name(base.name + suffix)


def _save_image(image: Image.Image, base: Path, suffix: str) -> Path:
    path = _beside(base, suffix)
    with replacing(path) as temporary:
        image.save(temporary, optimize=False)
    return path


def _save_json(content: object, base: Path, suffix: str) -> Path:
    path = _beside(base, suffix)
    write_text(path, json.dumps(content))
    return path


def _save_scores(result: Segmentation, base: Path) -> Path:
    path = _beside(base, ".logits.npz")
    with replacing(path) as temporary:
        np.savez_compressed(
            temporary,
            group_scores=result.group_scores,
            groups=result.groups,
            classes=np.array(result.classes),
        )
    return path
