"""Evaluates a model on a set: the loop from images to counts, resumable and over several processes.

Letters: K class, T threshold of a sweep, H W image, M window, G group.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
from array_api_compat import array_namespace, device, is_torch_array

from ovseg.data.workers import map_chunks
from ovseg.distributed import Processes, processes
from ovseg.errors import DataError
from ovseg.evaluation.encoding import EncodedView, encode_views
from ovseg.evaluation.grouping import GroupingCounts, grouping_counts, no_groups
from ovseg.evaluation.labelling import Labeller, Views, regions_of
from ovseg.evaluation.loading import CHUNK, LoadedSample, load_chunks
from ovseg.evaluation.overlap import Counts, areas, boundary_counts, confusion_matrix
from ovseg.evaluation.protocol import Protocol
from ovseg.evaluation.records import ImageRecord, RecordStore
from ovseg.evaluation.sets.base import EvaluationSample, EvaluationSet, Labels
from ovseg.evaluation.threads import compute_threads, shared_by
from ovseg.files import cache_folder
from ovseg.models.interface import Array, SegmentationModel, to_numpy
from ovseg.version import __version__

_log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
R = TypeVar("R")

_MOST_WORKERS = 8
"""Images computed at once on a processor; beyond, each has several threads."""


@dataclass(frozen=True)
class Run:
    """What is evaluated and how.

    Attributes:
        model: the model, on its device.
        evaluated: the set.
        protocol: as it applies to the set.
        thresholds: of a sweep; empty for none.
        batch: most windows that go through the encoder at once.
    """

    model: SegmentationModel
    evaluated: EvaluationSet
    protocol: Protocol
    thresholds: tuple[float, ...] = ()
    batch: int = 16

    @property
    def key(self) -> str:
        """Digest of everything that can change a record, files by size and time of change."""
        parts = {
            "version": __version__,
            "model": self.model.card.content_hash,
            "protocol": asdict(self.protocol),
            "thresholds": self.thresholds,
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
    done = store.load(size, len(run.thresholds))
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


def evaluate_chunks(
    run: Run, chunks: Sequence[Sequence[EvaluationSample]]
) -> Iterator[list[ImageRecord]]:
    """Records of chunk after chunk."""
    labeller = Labeller(run.model, run.protocol, run.evaluated)

    def measure(loaded: LoadedSample, views: Views) -> ImageRecord:
        return _measure(run, loaded, views, labeller)

    return _of_each(run, chunks, measure)


def predictions(
    run: Run, samples: Sequence[EvaluationSample]
) -> Iterator[tuple[LoadedSample, Labels]]:
    """Samples with their predicted label maps, for pictures of them."""
    labeller = Labeller(run.model, run.protocol, run.evaluated)

    def label(loaded: LoadedSample, views: Views) -> tuple[LoadedSample, Labels]:
        height, width = loaded.labels.shape
        return loaded, labeller.labels(views, (height, width))

    return chain.from_iterable(_of_each(run, _chunks(samples), label))


def _of_each(
    run: Run, chunks: Sequence[Sequence[EvaluationSample]], work: Callable[[LoadedSample, Views], R]
) -> Iterator[list[R]]:
    """What `work` makes of every sample and its encoded views, chunk by chunk.

    On a processor one thread computes one image: its cores then wait for each other at its end
    alone, not at the end of every operation, and small batches stay in its caches. A GPU wants the
    windows of many images at once.
    """
    loaded = load_chunks(run.evaluated, chunks, run.protocol, run.model.preprocessing)

    def of_piece(piece: Sequence[LoadedSample]) -> list[R]:
        return [work(*pair) for pair in zip(piece, _encode(run, piece), strict=True)]

    if not _computes_on_processor(run.model):
        yield from map(of_piece, loaded)
        return
    workers = min(compute_threads(), _MOST_WORKERS)
    pieces = ([[sample] for sample in chunk] for chunk in loaded)
    with shared_by(workers), ThreadPoolExecutor(workers) as pool:
        for results in map_chunks(pool, of_piece, pieces, ahead=1):
            yield list(chain.from_iterable(results))


def _computes_on_processor(model: SegmentationModel) -> bool:
    """Whether the model is torch's on the CPU; other runtimes have threads of their own."""
    values = model.from_numpy(np.zeros(1, np.float32))
    return is_torch_array(values) and str(device(values)) == "cpu"


def _chunks(samples: Sequence[EvaluationSample]) -> list[Sequence[EvaluationSample]]:
    return [samples[start : start + CHUNK] for start in range(0, len(samples), CHUNK)]


def _encode(run: Run, loaded: Sequence[LoadedSample]) -> list[list[EncodedView]]:
    """Encoded views of each sample; windows of all samples share batches."""
    views = [view for sample in loaded for view in sample.views]
    encoded = iter(encode_views(run.model, views, run.batch))
    return [[next(encoded) for _ in sample.views] for sample in loaded]


def _measure(run: Run, loaded: LoadedSample, views: Views, labeller: Labeller) -> ImageRecord:
    target = loaded.labels
    size = (target.shape[0], target.shape[1])
    classes = len(run.evaluated.classes)
    maps = labeller.labels_at(views, size, [labeller.threshold, *run.thresholds])
    try:
        counts = _confusions(target, maps, classes)
    except DataError as error:
        raise DataError(f"{loaded.sample.image}: {error}") from error
    labels = to_numpy(maps[0]).astype(target.dtype, copy=False)
    return ImageRecord(
        name=loaded.sample.name,
        confusion=counts[0],
        boundary=boundary_counts(target, labels, classes),
        grouping=_grouping(target, labels, views[0], classes),
        sweep=areas(counts[1:]),
    )


def _confusions(target: Labels, maps: Sequence[Array], classes: int) -> Counts:
    """Confusion matrix of every label map, int64 [maps, K, K], counted where the maps are."""
    if not is_torch_array(maps[0]) or maps[0].device.type == "cpu":
        return np.stack([confusion_matrix(target, to_numpy(m), classes) for m in maps])
    xp: Any = array_namespace(maps[0])
    true = xp.asarray(target.astype(np.int32), device=device(maps[0]))
    return to_numpy(xp.stack([confusion_matrix(true, labels, classes) for labels in maps]))


def _grouping(target: Labels, predicted: Labels, view: EncodedView, classes: int) -> GroupingCounts:
    """Counts of the groups in each window of the first view.

    A dense model has no groups: there the predicted regions stand for them, whatever they are
    called.
    """
    regions = regions_of(view)
    if regions is None:
        return grouping_counts(target, predicted, classes, classes)
    groups = view.grouped.embedding.shape[1]
    small = cv2.resize(target, view.shape[::-1], interpolation=cv2.INTER_NEAREST)
    total = no_groups(classes)
    for box, region in zip(view.boxes, regions, strict=True):
        counts = grouping_counts(small[box.slices], to_numpy(region), groups, classes)
        total = total + counts
    return total
