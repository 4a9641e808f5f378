"""Pictures of the best and worst images: photo, truth and prediction side by side."""

import base64
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image

from ovseg.data.images import Pixels
from ovseg.evaluation.overlap import ignored_label
from ovseg.evaluation.result import EvaluationResult
from ovseg.evaluation.run import Run, predictions
from ovseg.evaluation.sets.base import Labels
from ovseg.inference.overlay import colours

SHOWN = 6
"""Images among the best, and among the worst."""

_WIDTH = 360  # pixels of a picture in the page
_HATCH = 6  # pixels between the stripes over ignored pixels


@dataclass(frozen=True)
class Example:
    """An image of the report.

    Attributes:
        name: of the sample.
        mean_iou: within the image.
        photo, truth, prediction: data URIs.
        legend: colour as `#rrggbb` and name of every class in truth or prediction.
    """

    name: str
    mean_iou: float
    photo: str
    truth: str
    prediction: str
    legend: tuple[tuple[str, str], ...]


def best_and_worst(run: Run, result: EvaluationResult) -> tuple[list[Example], list[Example]]:
    """Pictures of the images with the highest and lowest mIoU of their own, recomputed."""
    measured = [i for i, value in enumerate(result.image_mean_iou) if not math.isnan(value)]
    ranked = sorted(measured, key=lambda index: -result.image_mean_iou[index])
    count = min(SHOWN, (len(ranked) + 1) // 2)
    best, worst = ranked[:count], ranked[count:][-count:][::-1]
    pictures = dict(_pictures(run, result, best + worst))
    return [pictures[index] for index in best], [pictures[index] for index in worst]


def _pictures(
    run: Run, result: EvaluationResult, indices: Sequence[int]
) -> Iterator[tuple[int, Example]]:
    samples = [run.evaluated.samples[index] for index in indices]
    for index, (loaded, predicted) in zip(indices, predictions(run, samples), strict=True):
        first = 0 if result.background else 1
        ignored = ignored_label(len(result.classes))
        labels = np.union1d(loaded.labels, predicted)
        yield (
            index,
            Example(
                name=loaded.sample.name,
                mean_iou=result.image_mean_iou[index],
                photo=data_uri(_small(loaded.image)),
                truth=data_uri(_overlay(loaded.image, loaded.labels, first, ignored)),
                prediction=data_uri(_overlay(loaded.image, predicted, first, ignored)),
                legend=_legend(result.classes, labels[labels != ignored], first),
            ),
        )


def _overlay(image: Pixels, labels: Labels, first: int, ignored_as: int) -> Pixels:
    """Colours over the photo, outlines in white, stripes where pixels are ignored."""
    photo = _small(image)
    small = cv2.resize(labels, photo.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    ignored = small == ignored_as
    shifted = np.where(ignored, 0, small.astype(np.int64) + first)  # colour 0 is the background's
    blended = photo.astype(np.float32)
    named = shifted > 0
    blended[named] = 0.4 * blended[named] + 0.6 * colours(shifted[named]).astype(np.float32)
    blended[_edges(small)] = 255
    rows, columns = np.indices(small.shape)
    blended[ignored & ((rows + columns) % _HATCH < 2)] = 128
    return blended.round().astype(np.uint8)


def _edges(labels: Labels) -> np.ndarray:
    """Pixels whose right or lower neighbour has another label."""
    edges = np.zeros(labels.shape, bool)
    edges[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    edges[:-1] |= labels[:-1] != labels[1:]
    return edges


def _small(image: Pixels) -> Pixels:
    scale = min(1.0, _WIDTH / image.shape[1])
    size = (max(round(image.shape[1] * scale), 1), max(round(image.shape[0] * scale), 1))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX))


def _legend(classes: tuple[str, ...], present: Labels, first: int) -> tuple[tuple[str, str], ...]:
    entries = []
    for label in present:
        red, green, blue = colours(np.array(int(label) + first))
        if int(label) + first > 0:
            entries.append((f"#{red:02x}{green:02x}{blue:02x}", classes[label]))
    return tuple(entries)


def data_uri(pixels: Pixels) -> str:
    """A picture inside the page, JPEG for size."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="JPEG", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode("ascii")
