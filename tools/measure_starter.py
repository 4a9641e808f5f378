"""Measure the starter on COCO photos: the table of docs/starter.md.

    pip install "ovseg[eval]"
    python tools/measure_starter.py --data ../shared/data/coco-train100

`--data` is a COCO folder with a panoptic split. Printed are mIoU of COCO-Object with all 80 things
asked for, with the things of each photo alone, and of the panoptic set's stuff classes; 95 %
bootstrap intervals; the mIoU of every other photo and of the others; boundary IoU; false alarms;
milliseconds for a photo of 640x480; and the size of the model's files. `--model` takes any model.

Letters: I photo, K class.
"""

import argparse
import json
import logging
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from importlib.resources import files
from pathlib import Path
from statistics import median

import cv2
import numpy as np

from ovseg.data.class_list import ClassList
from ovseg.data.images import read_image
from ovseg.evaluation.metrics.bootstrap import Interval, mean_iou_interval
from ovseg.evaluation.metrics.boundary import boundary_counts
from ovseg.evaluation.metrics.confusion import IGNORED, confusion_matrix
from ovseg.evaluation.metrics.scores import Counts, mean_of_present, ratio
from ovseg.evaluation.records import areas
from ovseg.evaluation.sets.base import EvaluationSet, Labels, Sample
from ovseg.evaluation.sets.catalogue import open_set
from ovseg.evaluation.sets.panoptic import read_panoptic
from ovseg.zeroshot.segmenter import Segmenter

REPEATS = 15


@dataclass(frozen=True)
class Row:
    """One line of the table; shares in percent.

    Attributes:
        what: the question.
        mean_iou, low, high: mIoU and its 95 % interval.
        even, odd: mIoU of the photos at even and at odd places.
        boundary_iou: mean over the classes that occur.
        photos: how many were measured.
    """

    what: str
    mean_iou: float
    low: float
    high: float
    even: float
    odd: float
    boundary_iou: float
    photos: int


@dataclass(frozen=True)
class Table:
    """What `show` prints: shares in percent, decimal megabytes."""

    rows: tuple[Row, ...]
    false_alarms: float
    milliseconds: float
    megabytes: float


def row(what: str, per_photo: list[tuple[Counts, Counts]]) -> Row:
    """A line from areas and boundary counts, int64 [K, 3] each, of every photo."""
    regions, bands = (np.stack(part) for part in zip(*per_photo, strict=True))  # [I, K, 3]
    interval: Interval = mean_iou_interval(regions)
    return Row(
        what,
        *(100 * value for value in (mean_iou(regions), interval.low, interval.high)),
        *(100 * mean_iou(part) for part in (regions[::2], regions[1::2], bands)),
        len(regions),
    )


def mean_iou(counts: Counts) -> float:
    """mIoU of summed counts, int64 [I, K, 3] of common, true and predicted pixels."""
    common, true, predicted = counts.sum(axis=0).T
    return mean_of_present(ratio(common, true + predicted - common))


def measure(
    segmenter: Segmenter, evaluated: EvaluationSet, *, present_only: bool
) -> Iterator[tuple[Counts, Counts]]:
    """Areas and boundary counts of every photo, int64 [K, 3] each.

    Args:
        segmenter: of the model.
        evaluated: the photos and classes.
        present_only: ask for the classes of each photo alone; a photo without any is background.
    """
    count = len(evaluated.classes)
    for sample in evaluated.samples:
        target = evaluated.read_labels(sample)
        names = present(evaluated, target) if present_only else list(range(len(evaluated.words.names)))
        found = labels_of(segmenter, evaluated, sample, names) if names else np.zeros_like(target)
        confusion = confusion_matrix(target, found, count)
        yield areas(confusion), boundary_counts(target, found, count)


def present(evaluated: EvaluationSet, target: Labels) -> list[int]:
    """Indices of the classes that a label map, uint8 [H, W], holds."""
    labels = np.unique(target[target != IGNORED]).astype(int) - int(evaluated.background)
    return [int(label) for label in labels if label >= 0]


def labels_of(
    segmenter: Segmenter, evaluated: EvaluationSet, sample: Sample, names: list[int]
) -> Labels:
    """Label map of a photo when some classes are asked for, uint8 [H, W]."""
    asked = ClassList(tuple(evaluated.words.synonyms[index] for index in names))
    result = segmenter.segment(read_image(sample.image), asked, background=evaluated.background)
    first = int(evaluated.background)
    table = np.array([0, *(index + first for index in names)], np.uint8)
    return table[result.labels]


def stuff(data: Path, split: str) -> EvaluationSet:
    """The panoptic set's stuff classes without background; pixels of things are ignored."""
    whole = open_set("coco-panoptic", data, split, None)
    path = data / "annotations" / f"panoptic_{split}.json"
    kinds = json.loads(path.read_text(encoding="utf-8"))["categories"]
    wanted = [place for place, kind in enumerate(kinds) if not kind["isthing"]]
    numbers = {kinds[place]["id"]: label for label, place in enumerate(wanted)}
    return replace(
        whole,
        words=ClassList(tuple(whole.words.synonyms[place] for place in wanted)),
        read_labels=read_panoptic(path).label_reader(numbers, IGNORED),
    )


def false_alarms(segmenter: Segmenter, evaluated: EvaluationSet) -> float:
    """Mean share of a photo given to a class that it lacks, asked for alone, in percent.

    All classes are scored at once, and each is compared with the background as if it were the only
    one, at the positions, which are of equal size.
    """
    shares = []
    for sample in evaluated.samples:
        here = present(evaluated, evaluated.read_labels(sample))
        scores = segmenter.segment(read_image(sample.image), evaluated.words).group_scores
        absent = np.ones(len(evaluated.words.names), bool)
        absent[here] = False
        shares.append(float((scores[:, 1:] > scores[:, :1]).mean(axis=0)[absent].mean()))
    return 100 * float(np.mean(shares))


def milliseconds(segmenter: Segmenter, evaluated: EvaluationSet) -> float:
    """Median time for a decoded photo of 640x480 with all classes."""
    photo = cv2.resize(read_image(evaluated.samples[0].image), (640, 480))
    taken = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        segmenter.segment(photo, evaluated.words)
        taken.append(time.perf_counter() - start)
    return 1000 * median(taken[2:])  # the first ones warm up


def megabytes() -> float:
    """Size of the starter's folder."""
    folder = Path(str(files("ovseg.model.starter")))
    return sum(path.stat().st_size for path in folder.iterdir() if path.is_file()) / 1e6


def show(table: Table) -> str:
    """The table as Markdown."""
    lines = [
        "| asked for | mIoU | 95 % interval | even, odd photos | boundary IoU |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {r.what} | {r.mean_iou:.1f} | {r.low:.1f} to {r.high:.1f} | {r.even:.1f}, {r.odd:.1f} "
        f"| {r.boundary_iou:.1f} |"
        for r in table.rows
    ]
    return "\n".join(
        [
            *lines,
            "",
            f"False alarms: {table.false_alarms:.2f} % of the pixels. Time: "
            f"{table.milliseconds:.0f} ms for 640x480. Size: {table.megabytes:.1f} MB.",
        ]
    )


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="a COCO folder")
    parser.add_argument("--split", default="train2017")
    parser.add_argument("--model", default="starter")
    parser.add_argument("--limit", type=int, help="only the first N photos")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    logging.disable(logging.WARNING)  # of unknown words, once a photo
    segmenter = Segmenter.from_pretrained(options.model, "cpu")
    objects = open_set("coco-object", options.data, options.split, "panoptic").first(options.limit)
    backdrops = stuff(options.data, options.split).first(options.limit)
    table = Table(
        (
            row("80 things", list(measure(segmenter, objects, present_only=False))),
            row("things of the photo", list(measure(segmenter, objects, present_only=True))),
            row("stuff", list(measure(segmenter, backdrops, present_only=False))),
        ),
        false_alarms(segmenter, objects),
        milliseconds(segmenter, objects),
        megabytes(),
    )
    print(json.dumps(asdict(table), indent=2) if options.json else show(table))


if __name__ == "__main__":
    main()
