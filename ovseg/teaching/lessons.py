"""Photos with masks as lessons: what the model sees at each position, and what is there.

Letters: M window, N position of `GroupedImage.stages` (or group), S width of what is seen, K taught
class, h w grid, H' W' view.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, TypeVar

import cv2
import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file

from ovseg.data.class_list import ClassList
from ovseg.errors import DataError, UsageError
from ovseg.evaluation.run import LoadedSample, load_sample
from ovseg.evaluation.sets.base import EvaluationSample, EvaluationSet, Labels
from ovseg.files import file_digest, replacing
from ovseg.inference.encode import EncodedView, over_chunks
from ovseg.inference.labeller import Labeller
from ovseg.inference.protocol import OWN
from ovseg.inference.text import best_synonym
from ovseg.models.interface import GroupedImage, SegmentationModel, is_dense, to_numpy
from ovseg.models.taught.head import seen_in
from ovseg.models.taught.scoring import margins
from ovseg.models.tensor_files import read_arrays

Floats = npt.NDArray[np.float32]
L = TypeVar("L", bound="Lesson")


@dataclass(frozen=True)
class Lesson:
    """A photo.

    Attributes:
        seen: by the model, float [N, S].
        shares: of none of the classes and of each in the pixels that count, float [N, 1 + K]; rows
            without such pixels are zero.
        words: logarithms of how much the classes' words alone exceed the threshold, float [N, K].
    """

    seen: Floats
    shares: Floats
    words: Floats

    def write(self, path: Path) -> None:
        """As one safetensors file, in half precision but for whole numbers."""
        arrays = {  # safetensors takes the memory as it lies, transposed or not
            key: np.ascontiguousarray(value, np.float16 if value.dtype.kind == "f" else None)
            for key, value in vars(self).items()
        }
        with replacing(path) as temporary:
            save_file(arrays, temporary)

    @classmethod
    def read(cls: "type[L]", path: Path) -> "L":
        """Read what `write` wrote.

        Raises:
            ModelError: the file is damaged.
        """
        arrays, _ = read_arrays(path)
        return cls(
            **{
                key: value.astype(np.float32) if value.dtype.kind == "f" else value
                for key, value in arrays.items()
            }
        )


@dataclass(frozen=True)
class Curriculum:
    """Which labels of a set are taught.

    Attributes:
        evaluated: the set.
        classes: what is taught, K entries.
        columns: by label of the set and for ignored pixels: 0 for none of the classes, k + 1 for
            the k-th, -1 for what does not count.
        stuff: names of classes that are background: their words do not count.
    """

    evaluated: EvaluationSet
    classes: ClassList
    columns: npt.NDArray[np.int64]
    stuff: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, evaluated: EvaluationSet, wanted: Sequence[str] | None, stuff: Sequence[str] = ()
    ) -> "Curriculum":
        """Of all classes of a set, or of some.

        What is not wanted counts as none of the classes where the set has a background, else not
        at all.

        Raises:
            UsageError: a class is wanted that the set has not, or is to be background that is not
                taught; both lists are named.
        """
        names = evaluated.words.names
        chosen = list(names) if wanted is None else list(dict.fromkeys(wanted))
        if strange := [name for name in chosen if name not in names]:
            raise UsageError(
                f"{evaluated.root} has no masks of {', '.join(strange)}; asked for are "
                f"{', '.join(chosen)}; there are masks of {', '.join(names)}"
            )
        if strange := [name for name in stuff if name not in chosen]:
            raise UsageError(
                f"stuff {', '.join(strange)}: background is replaced by classes that are taught, "
                f"which are {', '.join(chosen)}"
            )
        other = 0 if evaluated.background else -1
        place = {name: number for number, name in enumerate(chosen, start=1)}
        columns = [place.get(name, other) for name in names]
        synonyms = dict(zip(names, evaluated.words.synonyms, strict=True))
        background = [0] if evaluated.background else []
        return cls(
            evaluated,
            ClassList(tuple(synonyms[name] for name in chosen)),
            np.array([*background, *columns, -1]),
            tuple(dict.fromkeys(stuff)),
        )

    def shares(self, labels: Labels, grid: tuple[int, int]) -> Floats:
        """Of each column in the cells of a grid, float [h*w, 1 + K], from labels [H, W].

        Labels beyond the last are ignored.
        """
        width = 1 + len(self.classes.names)
        column = self.columns[np.minimum(labels, len(self.columns) - 1)]
        rows, across = (
            np.arange(pixels) * cells // pixels
            for pixels, cells in zip(labels.shape, grid, strict=True)
        )
        cell = rows[:, None] * grid[1] + across
        counted = column >= 0
        places = cell[counted] * width + column[counted]
        counts = np.bincount(places, minlength=grid[0] * grid[1] * width).reshape(-1, width)
        total = np.maximum(counts.sum(axis=1, keepdims=True), 1)
        return (counts / total).astype(np.float32)


class Teacher:
    """Makes lessons of photos, by the views that segmenting takes.

    Args:
        model: the base.
        curriculum: what is taught.
    """

    def __init__(self, model: SegmentationModel, curriculum: Curriculum) -> None:
        self.model = model
        self.curriculum = curriculum
        protocol = OWN.for_model(model, classes=curriculum.classes)
        self.labeller = Labeller(model, protocol, curriculum.classes)

    def lessons(
        self, samples: Sequence[EvaluationSample]
    ) -> Iterator[tuple[EvaluationSample, Lesson, str]]:
        """Of each sample its lesson, and the SHA-256 of its labels."""
        loaded = ([self.loaded(sample)] for sample in samples)
        for results in over_chunks(self.model, loaded, lambda each: each.views, self._lesson):
            yield from results

    def loaded(self, sample: EvaluationSample) -> LoadedSample:
        """A photo with its labels and its views."""
        return load_sample(self.curriculum.evaluated, sample, self.labeller)

    def _lesson(
        self, loaded: LoadedSample, views: list[EncodedView]
    ) -> tuple[EvaluationSample, Lesson, str]:
        parts = [
            part for view in views if not view.view.flipped for part in self._of_view(loaded, view)
        ]
        seen, shares, words = (np.concatenate(each) for each in zip(*parts, strict=True))
        digest = hashlib.sha256(np.ascontiguousarray(loaded.labels).tobytes()).hexdigest()
        return loaded.sample, Lesson(seen, shares, words), digest

    def _of_view(
        self, loaded: LoadedSample, encoded: EncodedView
    ) -> Iterator[tuple[Floats, Floats, Floats]]:
        """Of each window what is seen, shares and words."""
        grouped = encoded.grouped
        seen = to_numpy(seen_in(grouped)).astype(np.float32)  # [M, N, S]
        words = self._words(grouped)
        for number, shares in enumerate(self.shares(loaded.labels, encoded)):
            yield seen[number], shares, pooled(words[number], grouped.grid, len(shares))

    def shares(self, labels: Labels, encoded: EncodedView) -> Iterator[Floats]:
        """Of each window the share of each column in what it sees, float [N, 1 + K].

        Args:
            labels: of the photo as the view shows it, [H, W].
            encoded: the view.
        """
        grouped, view = encoded.grouped, encoded.view
        labels = cv2.resize(labels, view.shape[::-1], interpolation=cv2.INTER_NEAREST)
        for number, box in enumerate(view.boxes):
            padding = view.padding
            inside = np.full(padding.shape, np.iinfo(labels.dtype).max, labels.dtype)
            rows = slice(padding.above, padding.above + box.height)
            inside[rows, padding.before : padding.before + box.width] = labels[box.slices]
            yield self._shares(inside, grouped, number, seen_in(grouped).shape[1])

    def _shares(self, labels: Labels, grouped: GroupedImage, window: int, positions: int) -> Floats:
        """Where positions are seen, or in groups: those of the pixels that belong to each."""
        if grouped.assignment is None:
            times = round((grouped.grid[0] * grouped.grid[1] / positions) ** 0.5)
            return self.curriculum.shares(
                labels, (grouped.grid[0] // times, grouped.grid[1] // times)
            )
        each = self.curriculum.shares(labels, grouped.grid)  # [h*w, 1 + K]
        owner = to_numpy(grouped.assignment[window]).argmax(axis=0)
        sums = np.zeros((positions, each.shape[1]), np.float32)
        np.add.at(sums, owner, each)
        return sums / np.maximum(sums.sum(axis=1, keepdims=True), 1e-6)

    def _words(self, grouped: GroupedImage) -> Floats:
        """What the words of each class say where they are scored, float [M, G, K]; 0 of others."""
        model, classes = self.model, self.curriculum.classes
        scores = model.score(grouped, self._embeddings, model.threshold)
        words = to_numpy(best_synonym(scores, classes))[..., 1:].astype(np.float32)
        phrases = to_numpy(self._embeddings).any(axis=-1)
        known = np.zeros(len(classes.names), bool)
        np.logical_or.at(known, np.asarray(classes.phrase_labels) - 1, phrases)
        known &= [name not in self.curriculum.stuff for name in classes.names]
        return margins(words, model.threshold, is_dense(model)) * known

    @cached_property
    def _embeddings(self) -> Any:
        phrases = self.curriculum.classes.phrases
        return self.model.encode_text(phrases, self.labeller.model.templates)


def pooled(values: Floats, grid: tuple[int, int], positions: int) -> Floats:
    """Means of values of a grid, [h*w, K], over the cells of a coarser one, [N, K]."""
    if len(values) == positions:
        return values
    times = round((len(values) / positions) ** 0.5)
    cells = values.reshape(grid[0] // times, times, grid[1] // times, times, -1)
    return cells.mean(axis=(1, 3)).reshape(positions, -1)


@dataclass(frozen=True)
class LessonStore(Generic[L]):
    """Lessons on disk, one file a photo, so that a teaching can go on where it was interrupted.

    Attributes:
        folder: where they are.
        samples: the photos.
        kind: of the lessons.
    """

    folder: Path
    samples: tuple[EvaluationSample, ...]
    kind: type[L]

    def path(self, number: int) -> Path:
        return self.folder / f"{number:06}.safetensors"

    def make(self, teacher: Teacher, on_progress: Callable[[int, int], None]) -> None:
        """Make those that are missing.

        Raises:
            DataError: a photo or its mask is damaged, or nothing can be written.
        """
        missing = [n for n in range(len(self.samples)) if not self.path(n).is_file()]
        numbers = {self.samples[number].name: number for number in missing}
        done = len(self.samples) - len(missing)
        for sample, lesson, digest in teacher.lessons([self.samples[n] for n in missing]):
            path = self.path(numbers[sample.name])
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                stamp = hashlib.sha256(f"{file_digest(sample.image)} {digest}".encode())
                path.with_suffix(".sha256").write_text(stamp.hexdigest())
                lesson.write(path)
            except OSError as error:
                raise DataError(f"{path}: cannot be written: {error.strerror or error}") from error
            done += 1
            on_progress(done, len(self.samples))

    def read(self, number: int) -> L:
        """One lesson."""
        return self.kind.read(self.path(number))

    @property
    def digest(self) -> str:
        """SHA-256 over all photos and masks."""
        stamps = (self.path(n).with_suffix(".sha256") for n in range(len(self.samples)))
        return hashlib.sha256(" ".join(s.read_text() for s in stamps).encode()).hexdigest()
