"""Measure the starter on COCO photos: the table of docs/starter.md.

    pip install "ovseg[eval]"
    python tools/measure_starter.py --data ../shared/data/coco-train100
    python tools/measure_starter.py --data ../shared/data/coco-train100 --variant sharpness-8
    python tools/measure_starter.py --data ../shared/data/coco-train100 --calibration

`--data` is a COCO folder with a panoptic split. Printed are mIoU of COCO-Object with all 80 things
asked for, with the things of each photo alone, of the panoptic set's stuff classes, and of all its
133 classes at once; 95 % bootstrap intervals; the mIoU of every other photo and of the others;
boundary IoU; how much of what is painted is right; false alarms; milliseconds for a photo of
640x480; and the size of the model's files. A variant changes one thing of the shipped model and
runs in torch; `--help` lists them.

Letters: I photo, K class.
"""

import argparse
import json
import logging
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from importlib.resources import files
from pathlib import Path
from statistics import median

import cv2
import numpy as np

from ovseg.data.class_list import ClassList
from ovseg.data.images import read_image
from ovseg.evaluation.bootstrap import Interval, mean_iou_interval
from ovseg.evaluation.overlap import (
    IGNORED,
    Counts,
    areas,
    boundary_counts,
    confusion_matrix,
    mean_of_present,
    ratio,
)
from ovseg.evaluation.protocol import load_protocol
from ovseg.evaluation.run import LoadedSample, Run, labeller_of, load_sample
from ovseg.evaluation.sets.base import EvaluationSet, Labels
from ovseg.evaluation.sets.catalogue import open_set
from ovseg.evaluation.sets.panoptic import read_panoptic
from ovseg.inference.encode import EncodedView, encode_views
from ovseg.inference.labels import strongest
from ovseg.inference.maps import PositionMaps
from ovseg.inference.resize import resize_bilinear
from ovseg.inference.segmenter import Segmenter
from ovseg.inference.text import best_synonym
from ovseg.models.interface import SegmentationModel, to_numpy
from ovseg.models.registry import load_model
from tools.starter_calibration import Calibration, Painted
from tools.starter_variants import VARIANTS, variant

REPEATS = 15


@dataclass(frozen=True)
class Row:
    """One line of the table; shares in percent.

    Attributes:
        what: the question.
        mean_iou, low, high: mIoU and its 95 % interval.
        even, odd: mIoU of the photos at even and at odd places.
        boundary_iou: mean over the classes that occur.
        precision: of the pixels that are given a class, those that have it.
        photos: how many were measured.
    """

    what: str
    mean_iou: float
    low: float
    high: float
    even: float
    odd: float
    boundary_iou: float
    precision: float
    photos: int


@dataclass(frozen=True)
class Table:
    """What `show` prints: shares in percent, decimal megabytes."""

    rows: tuple[Row, ...]
    false_alarms: float
    milliseconds: float
    megabytes: float


def row(what: str, per_photo: list[tuple[Counts, Counts]], background: bool) -> Row:
    """A line from areas and boundary counts, int64 [K, 3] each, of every photo."""
    regions, bands = (np.stack(part) for part in zip(*per_photo, strict=True))  # [I, K, 3]
    interval: Interval = mean_iou_interval(regions)
    return Row(
        what,
        *(100 * value for value in (mean_iou(regions), interval.low, interval.high)),
        *(100 * mean_iou(part) for part in (regions[::2], regions[1::2], bands)),
        100 * precision(regions[:, int(background) :]),
        len(regions),
    )


def mean_iou(counts: Counts) -> float:
    """mIoU of summed counts, int64 [I, K, 3] of common, true and predicted pixels."""
    common, true, predicted = counts.sum(axis=0).T
    return mean_of_present(ratio(common, true + predicted - common))


def precision(counts: Counts) -> float:
    """Share of the pixels given to any of K classes that have it, of counts int64 [I, K, 3]."""
    common, _, predicted = counts.sum(axis=(0, 1))
    return float(common / max(predicted, 1))


@dataclass
class Question:
    """What is asked of every photo, and the counts so far.

    Attributes:
        what: as the table says it.
        evaluated: the classes, and where the true labels come from.
        present_only: ask for the classes of each photo alone; a photo without any is background.
        counts: areas and boundary counts of every photo, int64 [K, 3] each.
    """

    what: str
    evaluated: EvaluationSet
    present_only: bool = False
    counts: list[tuple[Counts, Counts]] = field(default_factory=list)

    def ask(self, model: SegmentationModel, sample: LoadedSample, view: EncodedView) -> None:
        """Label an encoded photo and compare."""
        target = self.evaluated.read_labels(sample.sample)
        count = len(self.evaluated.classes)
        asked = (
            present(self.evaluated, target)
            if self.present_only
            else range(len(self.evaluated.words.names))
        )
        found = paint(model, self.evaluated, view, list(asked), target.shape).labels
        confusion = confusion_matrix(target, found, count)
        self.counts.append((areas(confusion), boundary_counts(target, found, count)))


def present(evaluated: EvaluationSet, target: Labels) -> list[int]:
    """Indices of the classes that a label map, uint8 [H, W], holds."""
    labels = np.unique(target[target != IGNORED]).astype(int) - int(evaluated.background)
    return [int(label) for label in labels if label >= 0]


def paint(
    model: SegmentationModel,
    evaluated: EvaluationSet,
    view: EncodedView,
    asked: list[int],
    shape: tuple[int, ...],
) -> Painted:
    """Label map of an encoded photo, of `shape`, when some classes are asked for."""
    if not asked:
        return Painted(np.zeros(shape, np.uint8), np.zeros(shape, np.float32))
    words = ClassList(tuple(evaluated.words.synonyms[index] for index in asked))
    threshold = model.threshold if evaluated.background else None
    embeddings = model.encode_text(words.phrases, model.templates)
    scores = best_synonym(model.score(view.grouped, embeddings, threshold), words)[0]
    grid = scores.reshape(*view.grouped.grid, -1)
    # Between positions no score is above those at the positions.
    if evaluated.background and (grid[..., 1:] <= grid[..., :1]).all():
        return Painted(np.zeros(shape, np.uint8), np.zeros(shape, np.float32))
    first = int(evaluated.background)
    best, found = strongest(PositionMaps.on_grid(grid, (shape[0], shape[1])), 1 - first)
    labels = np.array([0, *(index + first for index in asked)], np.uint8)[to_numpy(found)]
    return Painted(labels, to_numpy(best))


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


def false_alarms(
    model: SegmentationModel,
    view: EncodedView,
    evaluated: EvaluationSet,
    here: list[int],
    shape: tuple[int, ...],
) -> float:
    """Mean share of a photo's pixels given to a class that it lacks, asked for alone.

    At the pixels, `shape` [H, W], its score is compared with that of the background.
    """
    shares = []
    for index in sorted(set(range(len(evaluated.words.names))) - set(here)):
        words = ClassList((evaluated.words.synonyms[index],))
        embeddings = model.encode_text(words.phrases, model.templates)
        scored = model.score(view.grouped, embeddings, model.threshold)
        background, scores = to_numpy(best_synonym(scored, words)[0]).T.astype(np.float32)  # [h*w]
        # Between positions no score is above those at the positions.
        if (scores <= background).all():
            shares.append(0.0)
            continue
        found = resize_bilinear(scores.reshape(1, *view.grouped.grid), (shape[0], shape[1]))
        shares.append(float((found > background[0]).mean()))  # which is the same everywhere
    return float(np.mean(shares))


def encoded(
    model: SegmentationModel, evaluated: EvaluationSet
) -> Iterator[tuple[LoadedSample, EncodedView]]:
    """Every photo and what the model makes of it."""
    labeller = labeller_of(Run(model, evaluated, load_protocol("own", evaluated)))
    for number, each in enumerate(evaluated.samples, 1):
        sample = load_sample(evaluated, each, labeller)
        (view,) = encode_views(model, sample.views, 1)
        yield sample, view
        if sys.stderr.isatty():
            print(f"\r{number}/{len(evaluated.samples)}", end="", file=sys.stderr)


def ask_all(model: SegmentationModel, questions: Sequence[Question]) -> float:
    """Encode every photo once and ask all questions; the mean share of false alarms."""
    evaluated = questions[0].evaluated
    shares = []
    for sample, view in encoded(model, evaluated):
        for question in questions:
            question.ask(model, sample, view)
        here = present(evaluated, sample.labels)
        shares.append(false_alarms(model, view, evaluated, here, sample.labels.shape))
    return float(np.mean(shares))


def calibrate(model: SegmentationModel, evaluated: EvaluationSet) -> Calibration:
    """Ask every photo for all classes at once, and for each of them alone."""
    calibration = Calibration()
    for sample, view in encoded(model, evaluated):
        asking = partial(paint, model, evaluated, view, shape=sample.labels.shape)
        calibration.ask(asking, sample.labels, len(evaluated.words.names))
    return calibration


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
    """Size of the starter's folder, without what Python compiled there."""
    folder = Path(str(files("ovseg.models.starter")))
    shipped = (path for path in folder.rglob("*") if path.suffix != ".pyc")
    return sum(path.stat().st_size for path in shipped if path.is_file()) / 1e6


def show(table: Table) -> str:
    """The table as Markdown."""
    lines = [
        "| asked for | mIoU | 95 % interval | even, odd photos | boundary IoU | precision |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r.what} | {r.mean_iou:.1f} | {r.low:.1f} to {r.high:.1f} | {r.even:.1f}, {r.odd:.1f} "
        f"| {r.boundary_iou:.1f} | {r.precision:.0f} % |"
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
    parser.add_argument("--limit", type=int, help="only the first N photos")
    parser.add_argument("--variant", choices=VARIANTS, help="change one thing of the model")
    parser.add_argument("--json", action="store_true")
    parser.add_argument(
        "--calibration", action="store_true", help="print how often which scores are right instead"
    )
    options = parser.parse_args()
    if options.json and options.calibration:
        parser.error("--calibration prints a table: leave out --json")
    logging.disable(logging.WARNING)  # of unknown words, once a photo
    model = variant(options.variant) if options.variant else load_model("starter", "cpu")
    objects = open_set("coco-object", options.data, options.split, "panoptic").first(options.limit)
    if options.calibration:
        print(calibrate(model, objects).show())
        return
    questions = (
        Question("80 things", objects),
        Question("things of the photo", objects, present_only=True),
        Question("53 kinds of stuff", stuff(options.data, options.split)),
        Question(
            "133 things and stuff",
            open_set("coco-panoptic", options.data, options.split, None).first(options.limit),
        ),
    )
    alarms = ask_all(model, questions)
    table = Table(
        tuple(row(q.what, q.counts, q.evaluated.background) for q in questions),
        100 * alarms,
        milliseconds(Segmenter(model), objects),
        megabytes(),
    )
    print(json.dumps(asdict(table), indent=2) if options.json else show(table))


if __name__ == "__main__":
    main()
