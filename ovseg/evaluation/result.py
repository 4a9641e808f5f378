"""The result of an evaluation: counts, scores, and everything needed to say what they are of.

Letters: I image, K class, T threshold of a sweep.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ovseg.documents import Bounds, fit, parse_json, read_bytes
from ovseg.errors import DataError, UsageError
from ovseg.evaluation.bootstrap import (
    Interval,
    PairedDifference,
    mean_iou_interval,
    paired_difference,
)
from ovseg.evaluation.grouping import GroupingScores, grouping_scores, no_groups
from ovseg.evaluation.overlap import (
    Confused,
    Counts,
    Scores,
    areas,
    class_iou,
    mean_of_present,
    scores,
    top_confusions,
)
from ovseg.evaluation.records import ImageRecord
from ovseg.evaluation.run import Run
from ovseg.files import write_text
from ovseg.inference.protocol import Protocol
from ovseg.version import __version__

FORMAT = 1
_BOUNDS = Bounds(size=1 << 30)  # of every image every class
_FAULTS = (ArithmeticError, LookupError, TypeError, ValueError, AttributeError, MemoryError)


@dataclass(frozen=True)
class Swept:
    """mIoU at one background threshold, under the rule in use or another one."""

    threshold: float
    mean_iou: float
    rule: str = ""


@dataclass(frozen=True)
class EvaluationResult:
    """One model on one set by one protocol.

    Attributes:
        set_name, labels_from, root: what was evaluated.
        classes: name of every label, [K].
        background: whether label 0 is the background.
        model: the model's card.
        protocol: every value of it.
        protocol_hash: its digest.
        threshold: the background threshold in use; None without background.
        names: of the images, [I].
        areas: common, true and predicted pixels of every image and class, int64 [I, K, 3].
        confusion: summed over the images, int64 [K, K].
        boundary: common, true and predicted pixels of the bands of every class, int64 [K, 3].
        grouping: of the regions before they are named.
        sweep: mIoU at other thresholds, in order, and under other rules, one after the other.
        version: of ovseg.
        absent: images that the set's list names and that are not there: they are not scored.
    """

    set_name: str
    labels_from: str
    root: str
    classes: tuple[str, ...]
    background: bool
    model: dict[str, str]
    protocol: dict[str, Any]
    protocol_hash: str
    threshold: float | None
    names: tuple[str, ...]
    areas: Counts
    confusion: Counts
    boundary: Counts
    grouping: GroupingScores
    sweep: tuple[Swept, ...]
    version: str = __version__
    absent: tuple[str, ...] = ()

    @property
    def sweep_by_rule(self) -> dict[str, list[Swept]]:
        """The sweep, rule by rule; that in use is the first and named ""."""
        rules: dict[str, list[Swept]] = {}
        for point in self.sweep:
            rules.setdefault(point.rule, []).append(point)
        return rules

    @cached_property
    def scores(self) -> Scores:
        """All overlap scores."""
        return scores(self.confusion, background=self.background)

    @cached_property
    def boundary_iou(self) -> tuple[float, ...]:
        """Boundary IoU of every class."""
        return tuple(class_iou(self.boundary).tolist())

    @property
    def mean_boundary_iou(self) -> float:
        """Mean boundary IoU over the classes that occur."""
        return mean_of_present(np.array(self.boundary_iou))

    @cached_property
    def interval(self) -> Interval:
        """95 % bootstrap interval of the mIoU over images."""
        return mean_iou_interval(self.areas)

    @cached_property
    def confusions(self) -> list[Confused]:
        """The largest wrong cells of the confusion matrix."""
        return top_confusions(self.confusion)

    @cached_property
    def image_mean_iou(self) -> tuple[float, ...]:
        """mIoU within each image, over the classes that occur in it, [I]."""
        return tuple(mean_of_present(iou) for iou in class_iou(self.areas))

    def to_json(self) -> str:
        """Scores for people and scripts, and counts from which everything can be had again."""
        summary = {
            "format": FORMAT,
            "set": self.set_name,
            "labels_from": self.labels_from,
            "root": self.root,
            "images": len(self.names),
            "absent": self.absent,
            "model": self.model,
            "protocol": {"hash": self.protocol_hash, **self.protocol},
            "threshold": self.threshold,
            "scores": {
                **{k: v for k, v in asdict(self.scores).items() if isinstance(v, float)},
                "mean_boundary_iou": self.mean_boundary_iou,
                "mean_iou_interval_95": [self.interval.low, self.interval.high],
                "grouping": asdict(self.grouping),
            },
            "classes": [
                {"name": name, "iou": iou, "accuracy": accuracy, "boundary_iou": boundary}
                for name, iou, accuracy, boundary in zip(
                    self.classes,
                    self.scores.iou,
                    self.scores.accuracy,
                    self.boundary_iou,
                    strict=True,
                )
            ],
            "background": self.background,
            "confusions": [
                {
                    "target": self.classes[c.target],
                    "prediction": self.classes[c.prediction],
                    "pixels": c.pixels,
                    "share": c.share,
                }
                for c in self.confusions
            ],
            "sweep": [asdict(point) for point in self.sweep],
            "version": self.version,
            "counts": {
                "confusion": self.confusion.tolist(),
                "boundary": self.boundary.tolist(),
                "per_image": [
                    {"name": name, "areas": _rows(counts)}
                    for name, counts in zip(self.names, self.areas, strict=True)
                ],
            },
        }
        return json.dumps(_without_nan(summary))

    def write(self, path: str | Path) -> None:
        """Write `to_json` to a file, whole or not at all."""
        write_text(Path(path), self.to_json() + "\n")

    @classmethod
    def read(cls, path: str | Path) -> "EvaluationResult":
        """Back from `write`, or from the saved output of `--json`.

        Raises:
            DataError: the file is missing or holds something else.
        """
        try:
            content = read_bytes(Path(path), _BOUNDS.size)
        except DataError as error:
            raise DataError(f"the result cannot be read: {error}") from error
        document = parse_json(content, f"{path}: not a result of `ovseg eval --json`", _BOUNDS)
        try:
            return _from_document(document, fit(_Told, document, "it"))
        except DataError as error:
            raise DataError(f"{path}: not a result of `ovseg eval --json`: {error}") from error
        except _FAULTS as error:
            raise DataError(f"{path}: not a result of `ovseg eval --json` ({error!r})") from error


def summarise(run: Run, records: Sequence[ImageRecord]) -> EvaluationResult:
    """The result of a run from the records of its images."""
    evaluated, protocol = run.evaluated, run.protocol
    used = protocol.for_model(run.model, background=evaluated.background)
    classes = len(evaluated.classes)
    grouping = no_groups(classes)
    for record in records:
        grouping = grouping + record.grouping
    swept = np.sum([record.sweep for record in records], axis=0)  # [T, K, 3]
    return EvaluationResult(
        set_name=evaluated.name,
        labels_from=evaluated.labels_from,
        root=str(evaluated.root),
        classes=evaluated.classes,
        background=evaluated.background,
        model=asdict(run.model.card),
        protocol=_plain(protocol),
        protocol_hash=protocol.hash,
        threshold=used.threshold if evaluated.background else None,
        names=tuple(record.name for record in records),
        areas=np.stack([areas(record.confusion) for record in records]),
        confusion=np.sum([record.confusion for record in records], axis=0),
        boundary=np.sum([record.boundary for record in records], axis=0),
        grouping=grouping_scores(grouping),
        sweep=tuple(
            Swept(value, mean_of_present(class_iou(counts)), rule)
            for (rule, value), counts in zip(_swept(run), swept, strict=True)
        ),
        absent=evaluated.absent,
    )


def _swept(run: Run) -> Iterator[tuple[str, float]]:
    """Rule and threshold of everything that a run scores beside the background in use."""
    yield from (("", threshold) for threshold in run.thresholds)
    for each in run.rules:
        yield from ((each.rule, threshold) for threshold in each.thresholds)


def compare(first: EvaluationResult, second: EvaluationResult) -> PairedDifference:
    """Paired bootstrap of the difference of mIoU, second minus first.

    Raises:
        UsageError: the two are not of the same images and classes.
    """
    if first.set_name != second.set_name or first.classes != second.classes:
        raise UsageError(
            f"cannot compare {first.set_name} ({len(first.classes)} classes) with "
            f"{second.set_name} ({len(second.classes)} classes): evaluate the same set twice"
        )
    place = {name: index for index, name in enumerate(second.names)}
    if set(first.names) != set(place) or len(place) != len(second.names):
        shared = len(set(first.names) & set(place))
        raise UsageError(
            f"cannot pair the images: {len(first.names)} and {len(second.names)}, {shared} shared; "
            "evaluate the same split twice"
        )
    order = [place[name] for name in first.names]
    return paired_difference(first.areas, second.areas[order])


@dataclass(frozen=True)
class _Named:
    name: str


@dataclass(frozen=True)
class _ToldModel:
    """What reports say of a model."""

    name: str
    description: str
    content_hash: str


@dataclass(frozen=True)
class _ToldProtocol:
    """What reports say of a protocol."""

    hash: str
    name: str
    short_side: int
    window: int
    stride: int
    refine: str
    flip: bool
    scales: list[float]


@dataclass(frozen=True)
class _Told:
    """What a saved result says in words."""

    set: str
    labels_from: str
    root: str
    classes: list[_Named]
    background: bool
    model: dict[str, str]
    protocol: dict[str, Any]
    threshold: float | None
    version: str
    absent: list[str] = field(default_factory=list)


def _from_document(document: dict[str, Any], told: _Told) -> EvaluationResult:
    if document["format"] != FORMAT:
        raise ValueError(f"format {document['format']}, this version reads {FORMAT}")
    fit(_ToldModel, told.model, "model")
    fit(_ToldProtocol, told.protocol, "protocol")
    counts = document["counts"]
    names = tuple(fit(_Named, entry, "an image").name for entry in counts["per_image"])
    classes = tuple(entry.name for entry in told.classes)
    per_image = np.zeros((len(names), len(classes), 3), np.int64)
    for index, entry in enumerate(counts["per_image"]):
        for label, *values in entry["areas"]:
            per_image[index, label] = values
    protocol = dict(told.protocol)
    grouping = {k: _number(v) for k, v in document["scores"]["grouping"].items()}
    return EvaluationResult(
        set_name=told.set,
        labels_from=told.labels_from,
        root=told.root,
        classes=classes,
        background=told.background,
        model=told.model,
        protocol_hash=protocol.pop("hash"),
        protocol=protocol,
        threshold=told.threshold,
        names=names,
        areas=per_image,
        confusion=_counts(counts["confusion"], (len(classes), len(classes))),
        boundary=_counts(counts["boundary"], (len(classes), 3)),
        grouping=GroupingScores(**grouping),
        sweep=tuple(_point(fit(dict[str, Any], p, "sweep")) for p in document["sweep"]),
        version=told.version,
        absent=tuple(told.absent),
    )


def _point(values: dict[str, Any]) -> Swept:
    return Swept(values["threshold"], _number(values["mean_iou"]), str(values.get("rule", "")))


def _counts(values: Any, shape: tuple[int, int]) -> Counts:
    found = np.array(values, np.int64)
    if found.shape != shape:
        raise ValueError(f"counts of shape {found.shape} for {shape[0]} classes")
    return found


def _rows(counts: Counts) -> list[list[int]]:
    """Label, common, true and predicted pixels of the classes that occur, from [K, 3]."""
    present = np.flatnonzero(counts.any(axis=1))
    return [[int(label), *map(int, counts[label])] for label in present]


def _plain(protocol: Protocol) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(json.dumps(asdict(protocol)))
    return values


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)


def _without_nan(value: Any) -> Any:
    """JSON has no NaN: what could not be measured is null."""
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and np.isnan(value) else value
