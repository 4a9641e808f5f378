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

from ovseg.errors import DataError, UsageError
from ovseg.files import local_path, remove_leftovers, replacing, write_text
from ovseg.inference.inputs import Failure
from ovseg.inference.result import Segmentation
from ovseg.inference.result_names import RUN_FILE, relative_names, result_names
from ovseg.inference.run_annotations import RunAnnotations
from ovseg.locks import holding

EXTRAS = ("json", "rle", "logits", "groups")
_COCO = {"json", "rle"}


class ResultFolder:
    """Writes NAME.overlay.png and NAME.labels.png per image, and what else is asked for.

    `json`: a COCO dataset of the image (NAME.json). `rle`: COCO results, the list that pycocotools'
    `loadRes` takes (NAME.rle.json). `logits`: score of each label for each group and the group of
    each pixel (NAME.logits.npz). `groups`: the group map as a 16-bit PNG (NAME.groups.png).

    Where two images would have the same NAME, their folders and suffixes become part of it.
    With `json` or `rle`, `run` also gives a COCO dataset of all images, annotations.json. In all
    these files no two images have the same id, and no two annotations.
    """

    def __init__(self, folder: Path, extras: Sequence[str], images: Sequence[Path]) -> None:
        """Create the folder.

        Raises:
            UsageError: an extra is unknown, or the folder is no path of this machine.
            DataError: the folder cannot be made or written to.
        """
        self._extras = [extra.strip() for extra in extras if extra.strip()]
        if unknown := [extra for extra in self._extras if extra not in EXTRAS]:
            raise UsageError(f"cannot save {', '.join(unknown)}: choose from {', '.join(EXTRAS)}")
        self._folder = local_path(folder)
        self._names = result_names(images)
        self._files = relative_names(images)
        self._ids = {path: number for number, path in enumerate(images, start=1)}
        self._run: RunAnnotations | None = None
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(
                f"{folder}: cannot make the output folder ({error.strerror})"
            ) from error
        if not os.access(folder, os.W_OK):
            raise DataError(f"{folder}: the output folder is not writable")

    @contextmanager
    def run(self) -> Iterator[None]:
        """What is written within has one COCO dataset, which appears when the block is left.

        Raises:
            UsageError: another run is writing into the folder.
            DataError: that cannot be written, or there is one that is not of an earlier run.
        """
        with ExitStack() as opened:
            opened.enter_context(holding(self._folder))
            remove_leftovers(self._folder)
            if _COCO & set(self._extras):
                self._run = opened.enter_context(RunAnnotations(self._folder / RUN_FILE))
                opened.callback(self._forget_run)
            yield

    def _forget_run(self) -> None:
        self._run = None

    def write(self, path: Path, result: Segmentation) -> list[Path]:
        """Write one image's files and return their paths.

        Args:
            path: one of the images that the folder is for.
            result: what is in it.

        Raises:
            DataError: the disk is full or the folder has become unwritable.
        """
        base = self._folder / self._names[path]
        try:
            dataset = self._dataset(path, result)
            return [
                _save_image(result.overlay(), base, ".overlay.png"),
                _save_image(result.label_image(), base, ".labels.png"),
                *(_save_extra(extra, base, result, dataset) for extra in self._extras),
            ]
        except OSError as error:
            raise DataError(f"{base}: cannot write the results ({error.strerror})") from error

    def _dataset(self, path: Path, result: Segmentation) -> dict[str, Any]:
        """An image's COCO dataset, which becomes a part of the run's; empty if none is wanted."""
        if not _COCO & set(self._extras):
            return {}
        first_id = self._run.next_id if self._run else 1
        dataset = result.to_coco(self._files[path], self._ids[path], first_id)
        if self._run:
            self._run.add(dataset)
        return dataset


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
        with self.folder.run() if self.folder else nullcontext():
            for found in self.results:
                if isinstance(found, Failure):
                    yield found
                    continue
                path, result = found
                files = self.folder.write(path, result) if self.folder else []
                yield SegmentedFile(path, result, tuple(files))


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
