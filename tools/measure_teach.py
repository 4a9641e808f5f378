"""Measure what teaching is worth: curves over photos, beside words alone and a linear probe.

    pip install scikit-learn
    python -m tools.measure_teach DATA --teach train --score val --output curve

DATA is a set as `ovseg eval` reads it. For each seed photos are drawn from the split that teaches,
and every model labels every photo of the other split from one pass of the base, the way
`ovseg eval` does. Writes OUTPUT.json, and OUTPUT.svg where more than one number of photos is asked
for. A split may be given as `FIRST:LAST`, numbers of photos in the set's order or in that of
--split. With --lraspp torchvision's LR-ASPP is fine-tuned on the same photos.
"""

import argparse
import json
import logging
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ovseg.evaluation.evaluate import prepare
from ovseg.evaluation.overlap import confusion_matrix, scores
from ovseg.evaluation.run import labeller_of, load_sample
from ovseg.evaluation.sets.base import EvaluationSet
from ovseg.evaluation.sets.catalogue import open_set
from ovseg.inference.encode import EncodedView, encode_views
from ovseg.inference.labeller import Labeller
from ovseg.models.interface import ModelCard, SegmentationModel, to_numpy
from ovseg.models.registry import load_model
from ovseg.models.taught.head import LearnedHead
from ovseg.models.taught.taught_model import KIND, Taught, TaughtModel
from ovseg.teaching.closed_form import ABSENT
from ovseg.teaching.fitting import Fitting
from ovseg.teaching.lessons import Curriculum, Lesson, LessonStore, Teacher
from ovseg.teaching.settings import TeachingSettings
from ovseg.teaching.teach import seen_alone
from tools.growth_plot import drawn
from tools.lraspp import Tuning, confusion_of, fine_tuned, imagenet_start

PROBE = "linear probe"
WORDS = "words alone"
CLOSED = "closed form"
TAUGHT = "with a position head"


def main() -> None:
    options = _options()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    teaching, scored = (_opened(options, text) for text in (options.teach, options.score))
    curriculum = Curriculum.of(teaching, wanted(options, teaching))
    result: dict[str, Any] = {"rows": []}
    if options.lraspp != "alone":
        result = _measured(scored, curriculum, options)
    if options.lraspp:
        result["rows"] += _lraspp(scored, curriculum, options)
    for path in options.beside:
        result["rows"] += json.loads(path.read_text(encoding="utf-8"))["rows"]
    rows = result["rows"]
    options.output.with_suffix(".json").write_text(json.dumps(result, indent=1))
    if len({row["photos"] for row in rows} - {0}) > 1:
        options.output.with_suffix(".svg").write_text(curves(rows))
    print(_table(rows))


def _measured(
    scored: EvaluationSet, curriculum: Curriculum, options: argparse.Namespace
) -> dict[str, Any]:
    """What is taught, the probe and words alone: rows, and seconds of processor time."""
    base = load_model(options.model, "cpu")
    models, seconds = _taught(base, curriculum, options)
    found = _scored(base, scored, models, curriculum)
    rows = [
        {"what": what, "photos": photos, "seed": seed, **each}
        for (what, photos, seed), each in found.items()
    ]
    return {"model": base.card.name, "seconds": seconds, "rows": rows}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--set", default="folder")
    parser.add_argument("--teach", default="train")
    parser.add_argument("--score", default="val")
    parser.add_argument("--split", help="that FIRST:LAST counts in")
    parser.add_argument("--classes", default="")
    parser.add_argument(
        "--untaught",
        choices=("even", "odd"),
        help="teach only every second class, and count the others as untaught: the 2nd, 4th, ... "
        "or the 1st, 3rd, ...",
    )
    parser.add_argument("--model", default="starter")
    parser.add_argument("--photos", default="1,5,10,20,40")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--probe", default="most", choices=("most", "all", "none"))
    parser.add_argument(
        "--lraspp",
        nargs="?",
        const="also",
        choices=("also", "alone"),
        help="fine-tune torchvision's",
    )
    parser.add_argument("--lraspp-on", default="cpu", help="the device that it is fine-tuned on")
    parser.add_argument("--lraspp-steps", type=int, default=Tuning.steps)
    parser.add_argument(
        "--beside", type=Path, nargs="*", default=[], help="also show the rows of these OUTPUT.json"
    )
    parser.add_argument("--heads", action="store_true", help="also where photos are few")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--cache", type=Path)
    return parser.parse_args()


def wanted(options: argparse.Namespace, teaching: EvaluationSet) -> list[str] | None:
    """The classes that are taught; None for all."""
    if options.untaught:
        first = 0 if options.untaught == "even" else 1
        return list(teaching.words.names[first::2])
    return options.classes.split(",") if options.classes else None


def _opened(options: argparse.Namespace, text: str) -> EvaluationSet:
    """A split, or photos of one by their numbers."""
    if ":" not in text:
        return open_set(options.set, options.data, text or None)
    evaluated = open_set(options.set, options.data, options.split)
    first, _, last = text.partition(":")
    chosen = slice(int(first or 0), int(last) if last else None)
    return replace(evaluated, samples=evaluated.samples[chosen])


def _taught(
    base: SegmentationModel, curriculum: Curriculum, options: argparse.Namespace
) -> tuple[dict[tuple[str, int, int], SegmentationModel], dict[str, float]]:
    """Models by what they are, how many photos they saw, and which seed drew them."""
    folder = options.cache or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    store = LessonStore(folder, curriculum.evaluated.samples, Lesson)
    started = time.process_time()
    store.make(Teacher(base, curriculum), lambda *_: None)
    seconds = {"reading all photos": time.process_time() - started}
    models: dict[tuple[str, int, int], SegmentationModel] = {(WORDS, 0, 0): base}
    most = max(map(int, options.photos.split(",")))
    for count, seed, chosen in _draws(options, len(store.samples)):
        started = time.process_time()
        models[(CLOSED, count, seed)] = _teach(base, curriculum, store, chosen, seed, hidden=0)
        seconds[f"{CLOSED}, {count} photos, seed {seed}"] = time.process_time() - started
        if count == most or options.heads:
            started = time.process_time()
            models[(TAUGHT, count, seed)] = _teach(base, curriculum, store, chosen, seed)
            seconds[f"{TAUGHT}, {count} photos, seed {seed}"] = time.process_time() - started
        if options.probe == "all" or (options.probe == "most" and count == most):
            models[(PROBE, count, seed)] = _probe(base, curriculum, store, chosen)
        logging.info("%d photos, seed %d: %.0f s", count, seed, time.process_time() - started)
    return models, seconds


def _draws(options: argparse.Namespace, photos: int) -> Iterator[tuple[int, int, list[int]]]:
    """How many photos are learned from, the seed that draws them, and which they are."""
    for count in map(int, options.photos.split(",")):
        for seed in range(options.seeds if count < photos else 1):
            order = np.random.default_rng(seed).permutation(photos)
            yield count, seed, [int(number) for number in order[:count]]


def _lraspp(
    scored: EvaluationSet, curriculum: Curriculum, options: argparse.Namespace
) -> list[dict[str, Any]]:
    """Scores of LR-ASPP, fine-tuned on the same photos, from every start that can be had."""
    starts = {"random": None, "ImageNet": imagenet_start()}
    rows = []
    for count, seed, chosen in _draws(options, len(curriculum.evaluated.samples)):
        tuning = Tuning(steps=options.lraspp_steps, seed=seed, device=options.lraspp_on)
        for name, start in starts.items():
            if name != "random" and start is None:
                continue
            net = fine_tuned(curriculum.evaluated, chosen, tuning, start)
            found = _summary(confusion_of(net, scored, tuning), scored, curriculum)
            rows.append({"what": f"LR-ASPP, {name} start", "photos": count, "seed": seed, **found})
            logging.info("LR-ASPP, %s start, %d photos, seed %d", name, count, seed)
    return rows


def _teach(
    base: SegmentationModel,
    curriculum: Curriculum,
    store: LessonStore,
    chosen: Sequence[int],
    seed: int,
    hidden: int = TeachingSettings.hidden,
) -> SegmentationModel:
    has_rest = bool((curriculum.columns == 0).any())
    fitting = Fitting(
        len(chosen),
        lambda number: store.read(chosen[number]),
        TeachingSettings(seed=seed, hidden=hidden),
        has_rest,
        lambda *_: None,
    )
    found = fitting.fit()
    logging.info("%s %s", found.mixture, found.scores)
    doubt = found.mixture.doubt
    classes = [
        each
        for each, there in zip(curriculum.classes.synonyms, found.seen[1:], strict=True)
        if there
    ]
    return _model(base, Taught(tuple(classes), seen_alone(found), found.text, (), doubt))


def _model(base: SegmentationModel, taught: Taught) -> SegmentationModel:
    return TaughtModel(base, taught, ModelCard(KIND, KIND, "", "", ""))


def _probe(
    base: SegmentationModel, curriculum: Curriculum, store: LessonStore, chosen: Sequence[int]
) -> SegmentationModel:
    """What a user of scikit-learn would do: a logistic regression on standardised features."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    lessons = [store.read(number) for number in chosen]
    seen = np.concatenate([each.seen for each in lessons])
    shares = np.concatenate([each.shares for each in lessons])
    counted = shares.sum(axis=1) > 0
    scaler = StandardScaler().fit(seen[counted])
    probe = LogisticRegression(max_iter=100)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        probe.fit(scaler.transform(seen[counted]), shares[counted].argmax(axis=1))
    width = 1 + len(curriculum.classes.names)
    linear = np.zeros((seen.shape[1], width), np.float32)
    bias = np.full(width, ABSENT, np.float32)
    linear[:, probe.classes_] = probe.coef_.T
    bias[probe.classes_] = probe.intercept_
    none = np.zeros((seen.shape[1], 0), np.float32)
    has_rest = np.array([float((curriculum.columns == 0).any())], np.float32)
    head = LearnedHead(
        scaler.mean_.astype(np.float32), scaler.scale_.astype(np.float32), linear, bias,
        none, none[0], np.zeros((0, width), np.float32), has_rest,
    )  # fmt: skip
    return _model(base, Taught(curriculum.classes.synonyms, head, 0.0))


def _scored(
    base: SegmentationModel,
    evaluated: EvaluationSet,
    models: dict[tuple[str, int, int], SegmentationModel],
    curriculum: Curriculum,
) -> dict[tuple[str, int, int], dict[str, float]]:
    """Scores of every model on every photo, each of which the base looks at once."""
    labellers = {key: labeller_of(prepare(model, evaluated)) for key, model in models.items()}
    classes = len(evaluated.classes)
    counts = {key: np.zeros((classes, classes), np.int64) for key in models}
    first = 0 if evaluated.background else 1
    labeller = labellers[(WORDS, 0, 0)]
    for number, sample in enumerate(evaluated.samples):
        loaded = load_sample(evaluated, sample, labeller)
        views = encode_views(base, loaded.views)
        for key, each in labellers.items():
            labels = _labels(each, views, loaded.labels.shape)
            counts[key] += confusion_matrix(
                loaded.labels, (labels - first).astype(loaded.labels.dtype), classes
            )
        logging.info("scored %d of %d", number + 1, len(evaluated.samples))
    return {key: _summary(each, evaluated, curriculum) for key, each in counts.items()}


def _labels(labeller: Labeller, views: Sequence[EncodedView], size: tuple[int, ...]) -> np.ndarray:
    model = labeller.model
    if isinstance(model, TaughtModel):
        views = [replace(view, grouped=model.with_odds(view.grouped)) for view in views]
    found = labeller.labels_at(views, (size[0], size[1]), [labeller.threshold])
    return to_numpy(found[0])


def _summary(
    counts: np.ndarray, evaluated: EvaluationSet, curriculum: Curriculum
) -> dict[str, float]:
    """mIoU in percent, of all classes, of the taught and of the others, and pixel accuracy."""
    found = scores(counts, background=evaluated.background)
    iou = np.array(found.iou)
    taught = np.array([name in curriculum.classes.names for name in evaluated.classes])
    others = ~taught & (np.array(evaluated.classes) != "background")
    accuracy = counts.diagonal().sum() / counts.sum()

    def mean(chosen: np.ndarray) -> float:
        there = iou[chosen & ~np.isnan(iou)]
        return round(float(there.mean()) * 100, 2) if len(there) else float("nan")

    return {
        "mIoU": mean(np.ones_like(taught)),
        "mIoU of taught": mean(taught),
        "mIoU of others": mean(others),
        "accuracy": round(float(accuracy) * 100, 2),
    }


def _table(rows: Sequence[dict[str, Any]]) -> str:
    """Means and deviations over the seeds, as Markdown."""
    measures = ("mIoU", "mIoU of taught", "mIoU of others", "accuracy")
    lines = ["| | photos | " + " | ".join(measures) + " |", "|---|---|" + "---|" * len(measures)]
    for what, photos in dict.fromkeys((row["what"], row["photos"]) for row in rows):
        chosen = [row for row in rows if (row["what"], row["photos"]) == (what, photos)]
        cells = [_mean([row[measure] for row in chosen]) for measure in measures]
        lines.append(f"| {what} | {photos or ''} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def curves(rows: Sequence[dict[str, Any]]) -> str:
    """An SVG of mIoU over photos: means over the seeds; a line across for what learns from none."""
    found: dict[str, dict[int, list[float]]] = {}
    for row in rows:
        found.setdefault(row["what"], {}).setdefault(row["photos"], []).append(row["mIoU"] / 100)
    lines = {
        what: [(photos, float(np.mean(each))) for photos, each in sorted(by_photos.items())]
        for what, by_photos in found.items()
    }
    counts = sorted({row["photos"] for row in rows} - {0})
    measured = {what: points for what, points in lines.items() if points[0][0]}
    for what, ((photos, score), *_) in lines.items():
        if not photos:
            lines[what] = [(count, score) for count in (counts[0], counts[-1])]
    return drawn(measured, lines, "mIoU in percent by photos with masks")


def _mean(values: Sequence[float]) -> str:
    spread = f" ± {np.std(values):.1f}" if len(values) > 1 else ""
    return "" if np.isnan(values).any() else f"{np.mean(values):.1f}{spread}"


if __name__ == "__main__":
    main()
