"""Segmentations of many files, and what of them is written into a folder."""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ovseg.data.annotations import coco
from ovseg.data.annotations.formats import RunFile, formats_of, run_file
from ovseg.data.annotations.region import Region
from ovseg.errors import DataError, UsageError
from ovseg.files import local_path, remove_leftovers, replacing, write_text
from ovseg.inference.connected import WHOLE, RegionRules
from ovseg.inference.inputs import Failure
from ovseg.inference.result import Segmentation
from ovseg.inference.result_names import relative_names, result_names
from ovseg.locks import holding

EXTRAS = ("json", "rle", "logits", "groups")
_COCO = {"json", "rle"}


@dataclass(frozen=True)
class Saving:
    """What is written of results.

    Attributes:
        extras: of each image, beside the overlay and the label map: of EXTRAS.
        formats: of annotations of the whole run: of FORMATS. The extras `json` and `rle` bring
            `coco` with them.
        polygons: outlines instead of run lengths, this many pixels off at most; None for none.
    """

    extras: Sequence[str] = ()
    formats: Sequence[str] = ()
    polygons: float | None = None

    def __post_init__(self) -> None:
        if self.polygons is not None and not 0 <= self.polygons < 1e6:
            raise UsageError(f"a tolerance is a number of pixels from 0, not {self.polygons}")


class ResultFolder:
    """Writes NAME.overlay.png and NAME.labels.png per image, and what else is asked for.

    `json`: a COCO dataset of the image (NAME.json). `rle`: COCO results, the list that pycocotools'
    `loadRes` takes (NAME.rle.json). `logits`: score of each label for each group and the group of
    each pixel (NAME.logits.npz). `groups`: the group map as a 16-bit PNG (NAME.groups.png).

    Where two images would have the same NAME, their folders and suffixes become part of it.
    `run` also gives a file of annotations of all images for each format. In all these files no two
    images have the same id, and no two annotations.
    """

    def __init__(
        self,
        folder: Path,
        saving: Saving,
        images: Sequence[Path],
        classes: Sequence[str] = (),
    ) -> None:
        """Create the folder.

        Args:
            folder: where to.
            saving: what is written.
            images: all of the run.
            classes: names of the labels from 1.

        Raises:
            UsageError: an extra or a format is unknown, or the folder is no path of this machine.
            DataError: the folder cannot be made or written to.
        """
        self._extras = [extra.strip() for extra in saving.extras if extra.strip()]
        if unknown := [extra for extra in self._extras if extra not in EXTRAS]:
            raise UsageError(f"cannot save {', '.join(unknown)}: choose from {', '.join(EXTRAS)}")
        coco = ["coco"] if _COCO & set(self._extras) else []
        self._formats = formats_of([*coco, *saving.formats])
        self._polygons = saving.polygons
        self._classes = classes
        self._folder = local_path(folder)
        self._names = result_names(images)
        self._files = relative_names(images)
        self._ids = {path: number for number, path in enumerate(images, start=1)}
        self._next_id = 1
        self._run_files: list[RunFile] = []
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(
                f"{folder}: cannot make the output folder ({error.strerror})"
            ) from error
        if not os.access(folder, os.W_OK):
            raise DataError(f"{folder}: the output folder is not writable")

    @property
    def run_paths(self) -> list[Path]:
        """The files of annotations of all images."""
        return [self._folder / each.file for each in self._formats]

    @contextmanager
    def run(self) -> Iterator[None]:
        """What is written within has a file for each format, which appears when the block is left.

        Raises:
            UsageError: another run is writing into the folder.
            DataError: that cannot be written, or there is one that is not of an earlier run.
        """
        with ExitStack() as opened:
            opened.enter_context(holding(self._folder))
            remove_leftovers(self._folder)
            self._next_id = 1
            self._run_files = [
                opened.enter_context(
                    run_file(self._folder / each.file, each, self._classes, self._polygons)
                )
                for each in self._formats
            ]
            opened.callback(self._run_files.clear)
            yield

    def write(
        self, path: Path, result: Segmentation, regions: Sequence[Region] | None = None
    ) -> list[Path]:
        """Write one image's files and return their paths.

        Args:
            path: one of the images that the folder is for.
            result: what is in it.
            regions: of it; by default one per class.

        Raises:
            DataError: the disk is full or the folder has become unwritable.
        """
        base = self._folder / self._names[path]
        try:
            dataset = self._dataset(path, result, regions)
            return [
                _save_image(result.overlay(regions=regions), base, ".overlay.png"),
                _save_image(result.label_image(), base, ".labels.png"),
                *(_save_extra(extra, base, result, dataset) for extra in self._extras),
            ]
        except OSError as error:
            raise DataError(f"{base}: cannot write the results ({error.strerror})") from error

    def _dataset(
        self, path: Path, result: Segmentation, regions: Sequence[Region] | None
    ) -> dict[str, Any]:
        """An image's COCO dataset, empty if none is wanted; the run's files take the image."""
        if not self._formats:
            return {}
        image = result.annotated(self._files[path], self._ids[path], regions).as_text()
        first_id = self._next_id
        self._next_id += len(image.regions)
        for each in self._run_files:
            each.add(image)
        if not _COCO & set(self._extras):
            return {}
        return coco.dataset(image, result.classes[1:], first_id, self._polygons)


@dataclass(frozen=True)
class SegmentedFile:
    """An image file, what is where in it, its regions, and the files that were written of that."""

    path: Path
    result: Segmentation
    regions: tuple[Region, ...] = ()
    files: tuple[Path, ...] = ()


@dataclass(frozen=True)
class SegmentedFiles:
    """The results of many files in order, computed as they are taken; to be gone through once.

    Attributes:
        paths: all that are segmented.
        results: one per path.
        folder: where each result is written before it is handed over; None for nowhere.
        rules: which regions there are; what is in none is background.
    """

    paths: Sequence[Path]
    results: Iterator[tuple[Path, Segmentation] | Failure]
    folder: ResultFolder | None
    rules: RegionRules = WHOLE

    @property
    def run_files(self) -> list[Path]:
        """Files about all images, which are there when all results were taken."""
        return self.folder.run_paths if self.folder else []

    def __iter__(self) -> Iterator[SegmentedFile | Failure]:
        with self.folder.run() if self.folder else nullcontext():
            for found in self.results:
                if isinstance(found, Failure):
                    yield found
                    continue
                path, result = found
                regions = result.regions_by(self.rules)
                kept = result.only(regions) if self.rules.drops else result
                files = self.folder.write(path, kept, regions) if self.folder else []
                yield SegmentedFile(path, kept, tuple(regions), tuple(files))


def _save_extra(extra: str, base: Path, result: Segmentation, dataset: dict[str, Any]) -> Path:
    if extra == "json":
        return _save_json(dataset, base, ".json")
    if extra == "rle":
        return _save_json(dataset["annotations"], base, ".rle.json")
    if extra == "logits":
        return _save_scores(result, base)
    return _save_image(Image.fromarray(result.groups.astype(np.uint16)), base, ".groups.png")


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
