"""Evaluates a model on a set: the loop from images to counts, resumable and over several processes.

Letters: K class, T threshold of a sweep, H W image, M window, G group.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
from array_api_compat import device, is_torch_array

from ovseg.data.class_list import ClassList
from ovseg.data.images import Pixels, read_image
from ovseg.data.workers import map_chunks
from ovseg.distributed import Processes, cpu_count, processes
from ovseg.errors import DataError
from ovseg.evaluation.grouping import GroupingCounts, grouping_counts, no_groups
from ovseg.evaluation.overlap import (
    Counts,
    areas,
    boundary_counts,
    confusion_matrix,
    label_type,
)
from ovseg.evaluation.records import ImageRecord, RecordStore
from ovseg.evaluation.sets.base import EvaluationSample, EvaluationSet, Labels
from ovseg.evaluation.sweep import SweptRule
from ovseg.files import cache_folder
from ovseg.inference.encode import CHUNK, EncodedView, over_chunks
from ovseg.inference.labeller import Labeller, Views
from ovseg.inference.protocol import Protocol
from ovseg.inference.views import View
from ovseg.models.interface import Array, SegmentationModel, array_namespace, to_numpy
from ovseg.version import __version__

_log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
R = TypeVar("R")

_AHEAD = 2  # chunks decoded before they are needed


@dataclass(frozen=True)
class Run:
    """What is evaluated and how.

    Attributes:
        model: the model, on its device.
        evaluated: the set.
        protocol: as it applies to the set.
        thresholds: of a sweep; empty for none.
        batch: most windows that go through the encoder at once.
        rules: other rules for the background that are swept, too.
    """

    model: SegmentationModel
    evaluated: EvaluationSet
    protocol: Protocol
    thresholds: tuple[float, ...] = ()
    batch: int = 16
    rules: tuple[SweptRule, ...] = ()

    @property
    def points(self) -> int:
        """How many backgrounds are scored beside the one in use, T."""
        return len(self.thresholds) + sum(len(each.thresholds) for each in self.rules)

    @property
    def key(self) -> str:
        """Digest of everything that can change a record, files by size and time of change."""
        parts = {
            "version": __version__,
            "model": self.model.card.content_hash,
            "protocol": asdict(self.protocol),
            "thresholds": self.thresholds,
            "rules": [asdict(each) for each in self.rules],
            "batch": self.batch,
            "set": (self.evaluated.name, self.evaluated.labels_from, self.evaluated.classes),
            "files": [
                (sample.name, *_stamp(sample.image), *_stamp(Path(sample.key)))
                for sample in self.evaluated.samples
            ],
            "annotations": [_stamp(path) for path in self.evaluated.annotations],
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]


def _stamp(path: Path) -> tuple[str, int, int]:
    try:
        status = path.stat()
    except OSError:  # some keys are no files
        return str(path), 0, 0
    return str(path), status.st_size, status.st_mtime_ns


def evaluate(
    run: Run, on_progress: Progress | None = None, *, fresh: bool = False
) -> list[ImageRecord]:
    """Records of all images of the set, in its order; the same list in every process.

    What an earlier, interrupted run of the same kind has done is taken from the cache folder.

    Args:
        run: what and how.
        on_progress: called with the images done and the images in all, by each process for its own.
        fresh: forget what an interrupted run has left.

    Raises:
        DataError: the set is empty, or a file of it is damaged.
    """
    if not run.evaluated.samples:
        raise DataError(f"{run.evaluated.root}: the set has no images")
    group = processes()
    store = RecordStore(cache_folder() / "evaluation" / run.key, group.rank)
    if fresh and group.rank == 0:
        store.discard()
    group.wait()
    size = len(run.evaluated.classes)
    done = store.load(size, run.points)
    group.wait()  # nobody writes before everybody has read
    if done and group.rank == 0:
        count = len(run.evaluated.samples)
        _log.warning("%d of %d images taken from an interrupted run", len(done), count)
    mine = _compute(run, _share(run, done, group), store, done, on_progress)
    records = done | {record.name: record for part in group.gather(mine) for record in part}
    if group.rank == 0:
        store.discard()
    return [records[sample.name] for sample in run.evaluated.samples]


def _share(
    run: Run, done: dict[str, ImageRecord], group: Processes
) -> list[Sequence[EvaluationSample]]:
    """The chunks of this process: those not complete, dealt in turn."""
    chunks = _chunks(run.evaluated.samples)
    open_chunks = [c for c in chunks if any(sample.name not in done for sample in c)]
    return list(open_chunks[group.rank :: group.size])


def _compute(
    run: Run,
    chunks: list[Sequence[EvaluationSample]],
    store: RecordStore,
    done: dict[str, ImageRecord],
    on_progress: Progress | None,
) -> list[ImageRecord]:
    records: list[ImageRecord] = []
    whole = len(done) + sum(sample.name not in done for chunk in chunks for sample in chunk)
    for chunk_records in evaluate_chunks(run, chunks):
        store.append(chunk_records)
        records += chunk_records
        if on_progress:
            on_progress(min(len(done) + len(records), whole), whole)
    return records


@dataclass(frozen=True)
class LoadedSample:
    """A sample in memory: the image, uint8 [H, W, 3], its true labels, and its views."""

    sample: EvaluationSample
    image: Pixels
    labels: Labels
    views: tuple[View, ...]


def labeller_of(run: Run) -> Labeller:
    """What labels the images: the way that `ovseg segment` goes, too."""
    protocol = run.protocol.for_model(run.model, background=run.evaluated.background)
    beside = ClassList.of(protocol.distractors).synonyms if protocol.distractors else ()
    return Labeller(run.model, protocol, ClassList(protocol.class_list.synonyms + beside))


def load_sample(
    evaluated: EvaluationSet, sample: EvaluationSample, labeller: Labeller
) -> LoadedSample:
    """Read one sample; DataError if a file is damaged or image and labels differ in size."""
    image = read_image(sample.image)
    labels = evaluated.read_labels(sample)
    if labels.shape != image.shape[:2]:
        raise DataError(
            f"{sample.image}: {image.shape[1]}×{image.shape[0]} pixels, but its labels are "
            f"{labels.shape[1]}×{labels.shape[0]}"
        )
    return LoadedSample(sample, image, labels, labeller.views(image))


def evaluate_chunks(
    run: Run, chunks: Sequence[Sequence[EvaluationSample]]
) -> Iterator[list[ImageRecord]]:
    """Records of chunk after chunk."""
    labeller = labeller_of(run)
    others = [labeller_of(replace(run, protocol=each.protocol)) for each in run.rules]

    def measure(loaded: LoadedSample, views: list[EncodedView]) -> ImageRecord:
        return _measure(run, loaded, views, labeller, others)

    return _of_each(run, labeller, chunks, measure)


def predictions(
    run: Run, samples: Sequence[EvaluationSample]
) -> Iterator[tuple[LoadedSample, Labels]]:
    """Samples with their predicted label maps, for pictures of them."""
    labeller = labeller_of(run)

    def label(loaded: LoadedSample, views: list[EncodedView]) -> tuple[LoadedSample, Labels]:
        (labels,) = _labels_at(run, labeller, loaded, views, [labeller.threshold])
        return loaded, to_numpy(labels).astype(loaded.labels.dtype, copy=False)

    return chain.from_iterable(_of_each(run, labeller, _chunks(samples), label))


def _of_each(
    run: Run,
    labeller: Labeller,
    chunks: Sequence[Sequence[EvaluationSample]],
    work: Callable[[LoadedSample, list[EncodedView]], R],
) -> Iterator[list[R]]:
    """What `work` makes of every sample and its encoded views; files are read ahead."""

    def load(sample: EvaluationSample) -> LoadedSample:
        return load_sample(run.evaluated, sample, labeller)

    with ThreadPoolExecutor(max_workers=min(8, cpu_count() + 1)) as pool:
        loaded = map_chunks(pool, load, chunks, _AHEAD)
        yield from over_chunks(run.model, loaded, lambda each: each.views, work, run.batch)


def _labels_at(
    run: Run,
    labeller: Labeller,
    loaded: LoadedSample,
    views: Views,
    thresholds: Sequence[float | None],
) -> list[Array]:
    """Label maps as the set numbers classes: from 0, and from 1 where 0 is the background.

    In 8 bits, or where those are too few in 32: torch can do little with 16.
    """
    size = (loaded.labels.shape[0], loaded.labels.shape[1])
    first = 0 if run.evaluated.background else 1
    wanted = len(run.evaluated.words.names)
    found = []
    for labels in labeller.labels_at(views, size, thresholds):
        xp: Any = array_namespace(labels)
        if run.protocol.distractors:
            labels = xp.where(labels > wanted, xp.zeros_like(labels), labels)
        narrow = xp.uint8 if label_type(len(run.evaluated.classes)) is np.uint8 else xp.int32
        found.append(xp.astype(labels - first if first else labels, narrow))
    return found


def _chunks(samples: Sequence[EvaluationSample]) -> list[Sequence[EvaluationSample]]:
    return [samples[start : start + CHUNK] for start in range(0, len(samples), CHUNK)]


def _measure(
    run: Run, loaded: LoadedSample, views: Views, labeller: Labeller, others: Sequence[Labeller]
) -> ImageRecord:
    """The record of a sample; `others` label it by the rules that are swept."""
    target = loaded.labels
    classes = len(run.evaluated.classes)
    maps = _labels_at(run, labeller, loaded, views, [labeller.threshold, *run.thresholds])
    for swept, other in zip(run.rules, others, strict=True):
        maps += _labels_at(run, other, loaded, views, swept.thresholds)
    try:
        counts = _confusions(target, maps, classes)
    except DataError as error:
        raise DataError(f"{loaded.sample.image}: {error}") from error
    labels = to_numpy(maps[0]).astype(target.dtype, copy=False)
    return ImageRecord(
        name=loaded.sample.name,
        confusion=counts[0],
        boundary=boundary_counts(target, labels, classes),
        grouping=_grouping(target, labels, views[0], labeller, classes),
        sweep=areas(counts[1:]),
    )


def _confusions(target: Labels, maps: Sequence[Array], classes: int) -> Counts:
    """Confusion matrix of every label map, int64 [maps, K, K], counted where the maps are."""
    if not is_torch_array(maps[0]) or maps[0].device.type == "cpu":
        return np.stack([confusion_matrix(target, to_numpy(m), classes) for m in maps])
    xp: Any = array_namespace(maps[0])
    true = xp.asarray(target.astype(np.int32), device=device(maps[0]))
    return to_numpy(xp.stack([confusion_matrix(true, labels, classes) for labels in maps]))


def _grouping(
    target: Labels, predicted: Labels, view: EncodedView, labeller: Labeller, classes: int
) -> GroupingCounts:
    """Counts of the groups in each window of the first view.

    A dense model has no groups: there the predicted regions stand for them, whatever they are
    called.
    """
    regions = labeller.regions(view)
    if regions is None:
        return grouping_counts(target, predicted, classes, classes)
    groups = view.grouped.embedding.shape[1]
    small = cv2.resize(target, view.view.shape[::-1], interpolation=cv2.INTER_NEAREST)
    total = no_groups(classes)
    for box, region in zip(view.view.boxes, regions, strict=True):
        counts = grouping_counts(small[box.slices], to_numpy(region), groups, classes)
        total = total + counts
    return total
