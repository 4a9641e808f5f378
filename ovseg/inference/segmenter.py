"""Images and words in, label maps out: the model knows tensors, the segmenter knows pictures."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, overload

from ovseg.data.class_list import ClassList, Entries
from ovseg.data.images import Pixels, read_image
from ovseg.data.video import ALL, Clip, Frame, open_video
from ovseg.data.workers import map_chunks, read_ahead
from ovseg.distributed import cpu_count
from ovseg.inference.encode import EncodedView, over_chunks
from ovseg.inference.inputs import Failure, ImageLike, chunked, is_many, load, to_pixels
from ovseg.inference.labeller import Labeller
from ovseg.inference.protocol import OWN, Protocol, changed
from ovseg.inference.result import Segmentation
from ovseg.inference.text import EmbeddingCache
from ovseg.inference.video.frames import (
    SegmentedFrame,
    VideoSettings,
    as_frames,
    segment_frames,
)
from ovseg.inference.views import View
from ovseg.models.interface import SegmentationModel, is_closed
from ovseg.models.registry import load_model

_log = logging.getLogger(__name__)

MANY = 3
"""Unknown phrases up to which each has a warning of its own."""

_AHEAD = 1  # chunks read before they are needed

_TOGETHER = 8  # images of a list that are worked on together

Classes = str | Entries | ClassList
_Loaded = tuple[Path, Pixels, tuple[View, ...]]


class Segmenter:
    """Segments images by any classes one can name."""

    def __init__(self, model: SegmentationModel, embeddings: EmbeddingCache | None = None) -> None:
        """Segment with a model; `embeddings` says which of its class embeddings are kept."""
        self.model = model
        self._embeddings = embeddings or EmbeddingCache(model)

    @classmethod
    def from_pretrained(cls, name_or_path: str | Path, device: str = "auto") -> "Segmenter":
        """Load a model by name (`starter`) or file and make a segmenter of it.

        Raises:
            OvsegError: the model is unknown, unreadable, or needs a package or device that is not
                there.
        """
        model = load_model(name_or_path, device)
        _log.info("%s: %s", model.card.name, model.card.description)
        return cls(model)

    @overload
    def segment(
        self,
        image: ImageLike,
        classes: Classes,
        protocol: Protocol | None = None,
        **changes: Any,
    ) -> Segmentation: ...

    @overload
    def segment(
        self,
        image: list[Any] | tuple[Any, ...],
        classes: Classes,
        protocol: Protocol | None = None,
        **changes: Any,
    ) -> list[Segmentation]: ...

    @overload
    def segment(
        self,
        image: Iterable[ImageLike],
        classes: Classes,
        protocol: Protocol | None = None,
        **changes: Any,
    ) -> Iterator[Segmentation]: ...

    def segment(
        self,
        image: Any,
        classes: Classes,
        protocol: Protocol | None = None,
        **changes: Any,
    ) -> Segmentation | list[Segmentation] | Iterator[Segmentation]:
        """Segment an image, or many.

        Args:
            image: a path, bytes, an open file, a Pillow image, an array (grey, RGB or RGBA: uint8
                [H, W] or [H, W, C], or floats in 0..1), or a tensor of torch (also [C, H, W]); or
                a list or an iterator of these.
            classes: `cat,dog`, a list of names, a list of lists or a dict for synonyms, or a
                `ClassList`; synonyms in a string are separated by `;`.
            protocol: how; the model's own way by default.
            changes: fields of the protocol to change: `background=False`, `threshold=0.3`,
                `window="none"`, `refine="pamr"`, `flip=True`.

        Returns:
            one result for one image, a list for a list; for an iterator an iterator, which takes
            each image when its result is asked for.

        Raises:
            OvsegError: an image cannot be read, or the classes or changes make no sense.
        """
        labeller = self.labeller(as_class_list(classes), protocol, **changes)
        self.warn_of_unknown(labeller.classes)
        if not is_many(image):
            return next(self._segmented(labeller, [("the image", image)], 1))
        named = ((f"image {number} of those given", one) for number, one in enumerate(image))
        if isinstance(image, list | tuple):
            return list(self._segmented(labeller, named, _TOGETHER))
        return self._segmented(labeller, named, 1)

    def _segmented(
        self, labeller: Labeller, images: Iterable[tuple[str, ImageLike]], together: int
    ) -> Iterator[Segmentation]:
        """Results in order, each computed when it is taken; what is wrong with one is raised."""

        def loaded(where: str, image: ImageLike) -> _Loaded:
            pixels = to_pixels(image, where)
            return Path(), pixels, labeller.views(pixels)

        chunks = ([loaded(*one) for one in chunk] for chunk in chunked(images, together))
        for results in over_chunks(self.model, chunks, _views_in, _segmented_by(labeller)):
            for found in results:
                assert isinstance(found, tuple)
                yield found[1]

    def segment_files(
        self,
        paths: Iterable[Path],
        classes: Classes,
        protocol: Protocol | None = None,
        batch_size: int = 8,
        read: Callable[[Path], Pixels] = read_image,
        **changes: Any,
    ) -> Iterator[tuple[Path, Segmentation] | Failure]:
        """Segment many files, in order; one that fails is reported and the others go on.

        Args:
            paths: image files; read ahead, a few at a time.
            classes, protocol, changes: as `segment` takes them.
            batch_size: images worked on together.
            read: gives the pixels of a path.
        """
        labeller = self.labeller(as_class_list(classes), protocol, **changes)
        self.warn_of_unknown(labeller.classes)
        return self.label_files(labeller, paths, batch_size, read)

    def label_files(
        self,
        labeller: Labeller,
        paths: Iterable[Path],
        batch_size: int = 8,
        read: Callable[[Path], Pixels] = read_image,
    ) -> Iterator[tuple[Path, Segmentation] | Failure]:
        """What `segment_files` does, with a labeller at hand; says nothing of unknown words."""

        def load_one(path: Path) -> _Loaded | Failure:
            loaded = load(path, read)
            if isinstance(loaded, Failure):
                return loaded
            _log.debug("%s: %d x %d pixels", path, loaded[1].shape[1], loaded[1].shape[0])
            return (*loaded, labeller.views(loaded[1]))

        with ThreadPoolExecutor(min(8, cpu_count() + 1)) as pool:
            chunks = map_chunks(pool, load_one, chunked(paths, batch_size), _AHEAD)
            for results in over_chunks(self.model, chunks, _views_in, _segmented_by(labeller)):
                yield from results

    def segment_video(
        self,
        video: str | Path | Iterable[Pixels],
        classes: Classes,
        protocol: Protocol | None = None,
        clip: Clip = ALL,
        settings: VideoSettings | None = None,
        **changes: Any,
    ) -> Iterator[SegmentedFrame]:
        """Segment a video frame by frame, each when its result is asked for.

        Args:
            video: a file, a folder of numbered pictures, or frames, uint8 [H, W, 3], of one size.
            classes, protocol, changes: as `segment` takes them.
            clip: which frames of a file or folder.
            settings: how frames have to do with each other.

        Raises:
            DataError: the video cannot be read, or its frames are of several sizes.
            MissingDependencyError: PyAV is not installed, which reads files.
            UsageError: the classes or changes make no sense.
        """
        labeller = self.labeller(as_class_list(classes), protocol, **changes)
        self.warn_of_unknown(labeller.classes)
        frames: Iterable[Frame]
        if isinstance(video, str | Path):
            frames = open_video(Path(video), clip)
        else:
            frames = as_frames(video)
        return segment_frames(read_ahead(frames), labeller, settings or VideoSettings())

    def labeller(
        self, classes: ClassList, protocol: Protocol | None = None, **changes: Any
    ) -> Labeller:
        """What labels images with these classes: the same for one image and for a benchmark."""
        chosen = changed(protocol or OWN, **changes)
        return Labeller(
            self.model, chosen.for_model(self.model, classes=classes), classes, self._embeddings
        )

    def warn_of_unknown(self, classes: ClassList) -> None:
        """Log what the model cannot ground of the phrases, or only in part; many share a line."""
        self._warn_of_parts(classes)
        unknown = self.model.unknown(classes.phrases)
        if len(unknown) > MANY:
            named = ", ".join(one.phrase for one in unknown[:MANY])
            _log.warning(
                "the model does not know %d of %d phrases: %s and %d more",
                len(unknown),
                len(classes.phrases),
                named,
                len(unknown) - MANY,
            )
            return
        for one in unknown:
            nearest = ", ".join(one.nearest)
            hint = f"; nearest that it knows: {nearest}" if nearest else ""
            _log.warning("the model does not know '%s'%s", one.phrase, hint)

    def _warn_of_parts(self, classes: ClassList) -> None:
        """Say which words of a longer phrase count, where the model knows words only."""
        parts = self.model.partly_known(classes.phrases) if is_closed(self.model) else []
        shown = ", ".join(f"'{part.understood}' of '{part.phrase}'" for part in parts[:MANY])
        more = f" and parts of {len(parts) - MANY} more" if len(parts) > MANY else ""
        if parts:
            _log.warning("the model understands only %s%s", shown, more)


def as_class_list(classes: Classes) -> ClassList:
    """A class list from any of the ways to give one."""
    if isinstance(classes, ClassList):
        return classes
    return ClassList.parse(classes) if isinstance(classes, str) else ClassList.of(classes)


def _views_in(item: _Loaded | Failure) -> Sequence[View]:
    return () if isinstance(item, Failure) else item[2]


def _segmented_by(labeller: Labeller) -> Any:
    def segmented(
        item: _Loaded | Failure, views: list[EncodedView]
    ) -> tuple[Path, Segmentation] | Failure:
        if isinstance(item, Failure):
            return item
        path, pixels, _ = item
        return path, labeller.segment(pixels, views)

    return segmented
