"""Images and words in, label maps out: the model knows tensors, the segmenter knows pictures."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from ovseg.data.class_list import ClassList
from ovseg.data.images import Pixels
from ovseg.data.workers import map_chunks
from ovseg.distributed import cpu_count
from ovseg.inference.encode import EncodedView, over_chunks
from ovseg.inference.inputs import Failure, ImageLike, chunked, load, to_pixels
from ovseg.inference.labeller import Labeller
from ovseg.inference.protocol import Protocol, own
from ovseg.inference.result import Segmentation
from ovseg.inference.text import EmbeddingCache
from ovseg.inference.views import View
from ovseg.models.interface import SegmentationModel, is_closed
from ovseg.models.registry import load_model

_log = logging.getLogger(__name__)

MANY = 3
"""Unknown phrases up to which each has a warning of its own."""

_AHEAD = 1  # chunks read before they are needed

Classes = str | Sequence[str] | ClassList
_Loaded = tuple[Path, Pixels, tuple[View, ...]]


class Segmenter:
    """Segments images by any classes one can name."""

    def __init__(self, model: SegmentationModel) -> None:
        self.model = model
        self._embeddings = EmbeddingCache(model)

    @classmethod
    def from_pretrained(cls, name_or_path: str | Path, device: str = "auto") -> "Segmenter":
        """Load a model by name (`starter`) or file and make a segmenter of it.

        Raises:
            OvsegError: the model is unknown, unreadable, or needs a package or device that is not
                there.
        """
        return cls(load_model(name_or_path, device))

    def segment(
        self,
        image: ImageLike,
        classes: Classes,
        protocol: Protocol | None = None,
        **changes: Any,
    ) -> Segmentation:
        """Segment one image.

        Args:
            image: a file, a Pillow image, or RGB pixels, uint8 [H, W, 3].
            classes: `cat,dog`, a list of names, or a `ClassList`; synonyms separated by `;`.
            protocol: how; the model's own way by default.
            changes: fields of the protocol to change: `background=False`, `threshold=0.3`,
                `window="none"`, `refine="pamr"`, `flip=True`.

        Raises:
            OvsegError: the image cannot be read, or the classes or changes make no sense.
        """
        labeller = self.labeller(as_class_list(classes), protocol, **changes)
        self.warn_of_unknown(labeller.classes)
        pixels = to_pixels(image)
        loaded = (Path(), pixels, labeller.views(pixels))
        ((found,),) = over_chunks(self.model, [[loaded]], _views_in, _segmented_by(labeller))
        assert isinstance(found, tuple)
        return found[1]

    def segment_files(
        self,
        paths: Iterable[Path],
        classes: Classes,
        protocol: Protocol | None = None,
        batch_size: int = 8,
        **changes: Any,
    ) -> Iterator[tuple[Path, Segmentation] | Failure]:
        """Segment many files, in order; one that fails is reported and the others go on.

        Args:
            paths: image files; read ahead, a few at a time.
            classes, protocol, changes: as `segment` takes them.
            batch_size: images worked on together.
        """
        labeller = self.labeller(as_class_list(classes), protocol, **changes)
        self.warn_of_unknown(labeller.classes)

        def load_one(path: Path) -> _Loaded | Failure:
            loaded = load(path)
            if isinstance(loaded, Failure):
                return loaded
            return (*loaded, labeller.views(loaded[1]))

        with ThreadPoolExecutor(min(8, cpu_count() + 1)) as pool:
            chunks = map_chunks(pool, load_one, chunked(paths, batch_size), _AHEAD)
            for results in over_chunks(self.model, chunks, _views_in, _segmented_by(labeller)):
                yield from results

    def labeller(
        self, classes: ClassList, protocol: Protocol | None = None, **changes: Any
    ) -> Labeller:
        """What labels images with these classes: the same for one image and for a benchmark."""
        chosen = replace(protocol, **changes) if protocol is not None else own(**changes)
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
