"""The segmenter behind a service: batches of strangers' images in, segmentations out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

from ovseg.data.class_list import ClassList
from ovseg.data.images import Pixels, read_bytes
from ovseg.inference.inputs import Failure
from ovseg.inference.labeller import Labeller
from ovseg.inference.result import Segmentation
from ovseg.inference.segmenter import Segmenter
from ovseg.inference.text import EmbeddingCache
from ovseg.models.interface import SegmentationModel, is_closed
from ovseg.serving.answer import Doubts
from ovseg.serving.limits import Limits

_KEPT_PHRASES = 5_000
_KEPT_LISTS = 32


@dataclass(frozen=True)
class Task:
    """What images of one batch have in common."""

    classes: ClassList
    threshold: float | None = None
    background: bool = True


Answer = tuple[Segmentation, Doubts]


class Worker:
    """Segments batches by the one way; keeps what the last lists of classes became.

    Args:
        model: that segments.
        limits: of images and batches.
        on_batch: told how many images are worked on together.
    """

    def __init__(
        self,
        model: SegmentationModel,
        limits: Limits,
        on_batch: Callable[[int], object] = lambda _: None,
    ) -> None:
        self.model = model
        self._limits = limits
        self._on_batch = on_batch
        self._segmenter = Segmenter(model, EmbeddingCache(model, _KEPT_PHRASES))
        self._prepared = lru_cache(_KEPT_LISTS)(self._prepare)

    def __call__(self, task: Task, images: Sequence[bytes]) -> list[Answer | Exception]:
        """What is in each image, or what is wrong with it.

        Raises:
            OvsegError: the classes make no sense.
        """
        self._on_batch(len(images))
        labeller, doubts = self._prepared(task)
        bodies = {Path(f"image {number}"): data for number, data in enumerate(images)}
        read = partial(_read, bodies, self._limits.pixels)
        found = self._segmenter.label_files(labeller, bodies, len(images), read)
        return [each.error if isinstance(each, Failure) else (each[1], doubts) for each in found]

    def _prepare(self, task: Task) -> tuple[Labeller, Doubts]:
        phrases = task.classes.phrases
        labeller = self._segmenter.labeller(
            task.classes, threshold=task.threshold, background=task.background
        )
        partly = self.model.partly_known(phrases) if is_closed(self.model) else ()
        return labeller, Doubts(self.model.unknown(phrases), partly)


def _read(bodies: dict[Path, bytes], pixels: int, path: Path) -> Pixels:
    return read_bytes(bodies[path], "the image", pixels)
