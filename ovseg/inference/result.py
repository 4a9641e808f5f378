"""The result of segmenting one image."""

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from ovseg.data.annotations import coco
from ovseg.data.annotations.region import AnnotatedImage, Region
from ovseg.errors import DataError, UsageError
from ovseg.files import write_text
from ovseg.inference.bands import bands_of
from ovseg.inference.connected import RegionRules, numbered, painted, regions_of
from ovseg.inference.overlay import draw_overlay, label_palette

_NEAR = 2 / 3
_FEW = 5  # classes that a short description names
_COUNTED = 1_000_000  # pixels at once: NumPy counts numbers of eight bytes
_LOSSLESS, _LOSSY = (".png", ".tif", ".tiff", ".bmp"), (".jpg", ".jpeg", ".webp")


@dataclass(frozen=True)
class ClassShare:
    """How much of an image a class covers: its label, share of pixels (0..1) and mean score."""

    label: int
    name: str
    share: float
    score: float


@dataclass(frozen=True, repr=False)
class Segmentation:
    """What is where in one image.

    Attributes:
        image: the image as it was segmented, upright RGB, uint8 [H, W, 3].
        classes: name of each label; `classes[0]` is background.
        labels: label of each pixel, uint16 [H, W]; 0 is background, i the i-th class asked for.
        scores: the model's score of that label at each pixel, float32 [H, W].
        group_map: makes `groups`, which few ask for.
        group_scores: score of each label for each group, float32 [G, 1 + K].
        threshold: what a score had to reach against the background; None if there was no such bar.
    """

    image: npt.NDArray[np.uint8]
    classes: tuple[str, ...]
    labels: npt.NDArray[np.uint16]
    scores: npt.NDArray[np.float32]
    group_map: Callable[[], npt.NDArray[np.int32]]
    group_scores: npt.NDArray[np.float32]
    threshold: float | None = None

    def __repr__(self) -> str:
        height, width = self.labels.shape
        found = ", ".join(f"{each.name} {each.share:.1%}" for each in self.shares[:_FEW])
        more = f" and {len(self.shares) - _FEW} more" if len(self.shares) > _FEW else ""
        return f"<Segmentation of {width}×{height} pixels: {found}{more}>"

    def _repr_png_(self) -> bytes:
        """The overlay, where a notebook shows this result."""
        stream = io.BytesIO()
        self.overlay().save(stream, "PNG")
        return stream.getvalue()

    def show(self) -> None:
        """Open the overlay in the desktop's viewer of images."""
        self.overlay().show()

    def save(self, path: str | Path) -> Path:
        """Write one file; its name says which.

        `NAME.labels.png` is the label map, `NAME.json` a COCO dataset of the image, and any other
        image, such as `NAME.png` or `NAME.jpg`, the overlay.

        Raises:
            UsageError: the suffix is of no image that can be written, or of a lossy one for labels.
            DataError: the file cannot be written.
        """
        path = Path(path)
        suffix, labels = path.suffix.lower(), path.stem.endswith(".labels")
        if suffix not in (*_LOSSLESS, *_LOSSY, ".json") or (labels and suffix in _LOSSY):
            raise UsageError(
                f"{path}: the name must end with .png, .jpg or another image's suffix, with .json, "
                "or, for the label map, with .labels.png"
            )
        try:
            if suffix == ".json":
                write_text(path, json.dumps(self.to_coco()))
            else:
                (self.label_image() if labels else self.overlay()).save(path)
        except OSError as error:
            raise DataError(f"{path}: cannot be written ({error.strerror or error})") from error
        return path

    @cached_property
    def groups(self) -> npt.NDArray[np.int32]:
        """Index of the group each pixel belongs to, int32 [H, W]."""
        return self.group_map()

    @cached_property
    def shares(self) -> list[ClassShare]:
        """The labels that occur, largest first."""
        counts, sums = np.zeros(len(self.classes), np.int64), np.zeros(len(self.classes))
        for band in bands_of(self.labels.shape, _COUNTED):
            flat = self.labels[band.rows].ravel()
            scores = self.scores[band.rows].ravel()
            counts += np.bincount(flat, minlength=len(counts))
            sums += np.bincount(flat, weights=scores, minlength=len(sums))
        order = sorted(np.flatnonzero(counts), key=lambda label: -counts[label])
        return [
            ClassShare(
                label=int(label),
                name=self.classes[label],
                share=float(counts[label] / self.labels.size),
                score=float(sums[label] / counts[label]),
            )
            for label in order
        ]

    def summary(self, regions: Sequence[Region] | None = None) -> dict[str, Any]:
        """What was found, as JSON has it: size, classes with their shares, regions if given."""
        height, width = self.labels.shape
        return {
            "width": width,
            "height": height,
            "classes": [
                {
                    "label": each.label,
                    "name": each.name,
                    "share": round(each.share, 6),
                    "score": round(each.score, 6),
                }
                for each in self.shares
            ],
            **({} if regions is None else {"regions": [_in_json(each) for each in regions]}),
            "doubtful": self.is_doubtful,
        }

    def mask(self, name: str) -> npt.NDArray[np.bool_]:
        """Pixels of one class, bool [H, W]; raises KeyError if it was not asked for."""
        if name not in self.classes:
            raise KeyError(name)
        return self.labels == self.classes.index(name)

    @property
    def is_doubtful(self) -> bool:
        """Whether every class that was found scores near the threshold, and none clearly above it.

        Near is the first third of the way from the threshold to 1, both in logarithms, which means
        the same for thresholds of any size. False where nothing was found, or there is no bar.
        """
        bar = self.threshold
        found = [share.score for share in self.shares if share.label]
        return bar is not None and 0 < bar < 1 and bool(found) and max(found) < bar**_NEAR

    def regions(
        self, instances: bool = False, min_score: float | None = None, min_area: int = 0
    ) -> list[Region]:
        """Masks of the classes that occur, or of parts of them that hang together.

        Args:
            instances: one region for each part of a class that hangs together, cut at narrow necks:
                regions, not instances that a model was trained to tell apart.
            min_score, min_area: mean score, and pixels, that a part needs to be kept.
        """
        return self.regions_by(RegionRules(instances, min_score, min_area))

    def regions_by(self, rules: RegionRules) -> list[Region]:
        """The regions that some rules tell; see `regions`."""
        return regions_of(self.labels, self.scores, self.classes, rules)

    def only(self, regions: Sequence[Region]) -> "Segmentation":
        """This result with some of its regions alone; the rest is background, with score 0."""
        labels = painted(regions, self.labels.shape)
        dropped = (labels == 0) & (self.labels > 0)
        return replace(self, labels=labels, scores=np.where(dropped, 0, self.scores))

    def overlay(
        self, opacity: float = 0.55, regions: Sequence[Region] | None = None
    ) -> Image.Image:
        """The image under the colours of its classes, with a legend below.

        Args:
            opacity: of the colours, 0..1.
            regions: outlined each; by default classes are.
        """
        parts = None if regions is None else numbered(regions, self.labels.shape)
        return draw_overlay(self.image, self.labels, self.shares, opacity, parts)

    def label_image(self) -> Image.Image:
        """The label map as a paletted image, or 16-bit greyscale with over 255 classes."""
        if len(self.classes) > 256:
            return Image.fromarray(self.labels)
        image = Image.fromarray(self.labels.astype(np.uint8))
        image.putpalette(label_palette().ravel().tolist())
        return image

    def annotations(
        self,
        image_id: int = 1,
        first_id: int = 1,
        regions: Sequence[Region] | None = None,
        polygons: float | None = None,
    ) -> list[dict[str, Any]]:
        """One COCO annotation per region, background aside; ids count from `first_id`.

        `segmentation` is a compressed RLE, `area` in pixels, `bbox` (x, y, width, height) in
        pixels, `category_id` the label, `score` the mean score over the mask.

        Args:
            image_id, first_id: numbers of the image and of its first annotation.
            regions: as `regions` gives them; by default one per class.
            polygons: outlines instead of run lengths, this many pixels off at most.
        """
        image = self.annotated("", image_id, regions)
        return coco.annotations(image, first_id, polygons)

    def to_coco(
        self,
        file_name: str = "",
        image_id: int = 1,
        first_id: int = 1,
        regions: Sequence[Region] | None = None,
        polygons: float | None = None,
    ) -> dict[str, Any]:
        """A COCO dataset of this one image: images, annotations, categories; see `annotations`."""
        image = self.annotated(file_name, image_id, regions)
        return coco.dataset(image, self.classes[1:], first_id, polygons)

    def annotated(
        self, name: str, number: int = 1, regions: Sequence[Region] | None = None
    ) -> AnnotatedImage:
        """This image and its regions, as all formats take them."""
        height, width = self.labels.shape
        found = self.regions() if regions is None else regions
        return AnnotatedImage(name, height, width, found, number)


def _in_json(region: Region) -> dict[str, Any]:
    return {
        "label": region.label,
        "name": region.name,
        "score": None if region.score is None else round(region.score, 6),
        "area": region.area,
        "box": list(region.box),
    }
