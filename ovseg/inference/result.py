"""The result of segmenting one image."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from ovseg.inference.overlay import draw_overlay, label_palette


@dataclass(frozen=True)
class ClassShare:
    """How much of an image a class covers: its label, share of pixels (0..1) and mean score."""

    label: int
    name: str
    share: float
    score: float


@dataclass(frozen=True)
class Segmentation:
    """What is where in one image.

    Attributes:
        image: the image as it was segmented, upright RGB, uint8 [H, W, 3].
        classes: name of each label; `classes[0]` is background.
        labels: label of each pixel, uint16 [H, W]; 0 is background, i the i-th class asked for.
        scores: the model's score of that label at each pixel, float32 [H, W].
        groups: index of the group each pixel belongs to, int32 [H, W].
        group_scores: score of each label for each group, float32 [G, 1 + K].
    """

    image: npt.NDArray[np.uint8]
    classes: tuple[str, ...]
    labels: npt.NDArray[np.uint16]
    scores: npt.NDArray[np.float32]
    groups: npt.NDArray[np.int32]
    group_scores: npt.NDArray[np.float32]

    @cached_property
    def shares(self) -> list[ClassShare]:
        """The labels that occur, largest first."""
        flat, size = self.labels.ravel(), len(self.classes)
        counts = np.bincount(flat, minlength=size)
        sums = np.bincount(flat, weights=self.scores.ravel(), minlength=size)
        order = sorted(np.flatnonzero(counts), key=lambda label: -counts[label])
        return [
            ClassShare(
                label=int(label),
                name=self.classes[label],
                share=float(counts[label] / flat.size),
                score=float(sums[label] / counts[label]),
            )
            for label in order
        ]

    def mask(self, name: str) -> npt.NDArray[np.bool_]:
        """Pixels of one class, bool [H, W]; raises KeyError if it was not asked for."""
        if name not in self.classes:
            raise KeyError(name)
        return self.labels == self.classes.index(name)

    def overlay(self, opacity: float = 0.55) -> Image.Image:
        """The image under the colours of its classes, with a legend below."""
        return draw_overlay(self.image, self.labels, self.shares, opacity)

    def label_image(self) -> Image.Image:
        """The label map as a paletted image, or 16-bit greyscale with over 255 classes."""
        if len(self.classes) > 256:
            return Image.fromarray(self.labels)
        image = Image.fromarray(self.labels.astype(np.uint8))
        image.putpalette(label_palette().ravel().tolist())
        return image

    def annotations(self, image_id: int = 1, first_id: int = 1) -> list[dict[str, Any]]:
        """One COCO annotation per class that occurs, background aside; ids count from `first_id`.

        `segmentation` is a compressed RLE, `area` in pixels, `bbox` (x, y, width, height) in
        pixels, `category_id` the label, `score` the mean score over the mask.
        """
        from pycocotools import mask as coco_mask

        results: list[dict[str, Any]] = []
        for share in self.shares:
            if share.label == 0:
                continue
            encoded = coco_mask.encode(np.asfortranarray(self.labels == share.label, np.uint8))
            results.append(
                {
                    "id": first_id + len(results),
                    "image_id": image_id,
                    "category_id": share.label,
                    "segmentation": {
                        "size": [int(side) for side in encoded["size"]],
                        "counts": encoded["counts"].decode("ascii"),
                    },
                    "area": int(coco_mask.area(encoded)),
                    "bbox": [float(side) for side in coco_mask.toBbox(encoded)],
                    "iscrowd": 0,
                    "score": share.score,
                }
            )
        return results

    def to_coco(self, file_name: str = "", image_id: int = 1, first_id: int = 1) -> dict[str, Any]:
        """A COCO dataset of this one image: images, annotations, categories."""
        height, width = self.labels.shape
        image = {"id": image_id, "file_name": file_name, "height": height, "width": width}
        categories = [
            {"id": label, "name": name} for label, name in enumerate(self.classes) if label
        ]
        return {
            "images": [image],
            "annotations": self.annotations(image_id, first_id),
            "categories": categories,
        }
