"""Losses, groupings and numbers of photos of an aligned model, by one command that can be stopped.

    python -m tools.align_ablation --shards data/flickr8k --coco ../coco --output runs/align
    python -m tools.align_ablation ... --rows contrast words --seeds 0 1 2 --photos 1000 2000 4000 0

Rows build on each other: contrast; captions at positions; words at positions; and, with the paper's
groups on the frozen features, entity completion and mask consistency, each with both binding
modules. Every run reads the same feature cache. Scored are retrieval among the photos that are held
out and masks on COCO's photos: 133 words without a background, the stuff among them by itself, and
things with a background. What is finished is not done again, a run that was stopped goes on, and
several machines share the work by `--part 1/3` and so on. The table is printed and written to
OUTPUT/table.json, mean and standard deviation over the seeds; with several numbers of photos,
OUTPUT/growth.svg shows how the scores grow, fitted by a line in the logarithm of their number.
"""

import argparse
import json
import math
import multiprocessing
import statistics
import sys
import time
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ovseg.api import pretrain
from ovseg.config.load import load_recipe
from ovseg.config.schema import Recipe
from ovseg.data.images import read_image
from ovseg.distributed import cpu_count
from ovseg.evaluation.held_out import HeldOut
from ovseg.evaluation.overlap import Counts, areas, class_iou, confusion_matrix, mean_of_present
from ovseg.evaluation.protocol import load_protocol
from ovseg.evaluation.run import Run, labeller_of
from ovseg.evaluation.sets.base import EvaluationSet
from ovseg.evaluation.sets.catalogue import open_set
from ovseg.evaluation.sets.panoptic import read_panoptic
from ovseg.files import write_text
from ovseg.inference.encode import EncodedView, encode_views
from ovseg.inference.labeller import Labeller
from ovseg.models.aligned.aligner import read_aligned
from ovseg.models.interface import to_numpy
from ovseg.models.registry import choose_device, load_model
from tools.ablation import Lines, part
from tools.growth_plot import drawn
from tools.measure_starter import stuff

OFF = ("loss.words.enabled=false", "loss.captions.enabled=false")
GROUPS = (
    "model.aligned.grouping=true",
    "model.aligned.reading.maps=groups",
    "model.aligned.reading.rule=sigmoid",  # a softmax is for cosines at positions
    "model.aligned.reading.threshold=0.5",
    "model.projector_width=512",
    "model.image.width=256",
    "model.image.depths=[1, 1]",
    "model.image.heads=4",
    "model.image.group_tokens=32",
    "model.image.groups=8",
    "model.entity.heads=4",
    "data.positions=0",
    "data.captions=pairs",
    "data.partners=in-batch",
    "loss.mask.resolution=56",
)
ROWS: dict[str, tuple[str, ...]] = {
    "words": (),
    "contrast": OFF,
    "captions": ("loss.words.enabled=false",),
    "words-alone": ("loss.contrastive.enabled=false", "loss.captions.enabled=false"),
    "groups-contrast": (*GROUPS, *OFF),
    "groups-words": GROUPS,
    "groups-entity": (*GROUPS, "loss.entity.enabled=true"),
    "groups-mask": (*GROUPS, "loss.entity.enabled=true", "loss.mask.enabled=true"),
}
GROWTH = {"CC3M": 3_318_333, "CC12M": 12_423_374}
"""Pairs of the sets that a growth is carried on to."""


@dataclass(frozen=True)
class Cell:
    """One training run of the table; 0 photos are all."""

    row: str
    binding: str
    photos: int
    seed: int

    @property
    def group(self) -> str:
        """What it has in common with the other seeds."""
        return f"{self.row}-{self.binding}-{self.photos}"

    @property
    def name(self) -> str:
        return f"{self.group}-{self.seed}"


def main() -> int:
    options = parse()
    cells = cells_of(options)
    begin, step = options.part
    stopped = run_all(cells[begin - 1 :: step], options)
    scores = {cell: found for cell in cells if (found := finished(cell, options)) is not None}
    print(f"{len(scores)} of {len(cells)} runs are done", file=sys.stderr)
    if scores:
        table = summarise(scores)
        write_text(options.output / "table.json", json.dumps(table, indent=2) + "\n")
        show(table)
        grow([row for row in table if row["row"] == options.rows[0]], options.output / "growth.svg")
    return 143 if stopped else 0


def cells_of(options: argparse.Namespace) -> list[Cell]:
    """All runs, the first rows first; other numbers of photos are for the first row alone."""
    rows = [
        (row, binding)
        for row in options.rows
        for binding in (options.bindings if row.startswith("groups") else ("positions",))
    ]
    first, *others = options.photos
    wanted = [(*row, first) for row in rows] + [(*rows[0], count) for count in others]
    return [Cell(*each, seed) for each in wanted for seed in options.seeds]


def run_all(cells: list[Cell], options: argparse.Namespace) -> bool:
    """Train one cell after the other, and score those before meanwhile; whether it was stopped."""
    end = time.monotonic() + options.budget
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.scorers, context, _few_threads, (options.scorers,)) as pool:
        scoring: list[Future[None]] = []
        for cell in cells:
            if finished(cell, options) is not None:
                continue
            if time.monotonic() > end:
                return True
            print(cell.name, file=sys.stderr)
            if not trained(cell, options):
                return True
            scoring.append(pool.submit(score, cell, options))
        for each in scoring:
            each.result()
    return False


def _few_threads(processes: int) -> None:
    import torch

    torch.set_num_threads(max(1, cpu_count() // (processes + 1)))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--shards", required=True, help="folder of ovseg build-dataset")
    parser.add_argument("--coco", type=Path, required=True, help="folder of a COCO set")
    parser.add_argument("--split", default="train2017", help="of the COCO set")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--recipe", default="align-flickr8k")
    parser.add_argument(
        "--rows",
        nargs="+",
        choices=ROWS,
        default=list(ROWS),
        metavar="ROW",
        help="the first one is that of --photos",
    )
    parser.add_argument("--bindings", nargs="+", default=["released", "slot"])
    parser.add_argument("--photos", type=int, nargs="+", default=[0], help="0 takes all")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--part", type=part, default=(1, 1), help="2/3: every third run from 2 on")
    parser.add_argument("--limit", type=int, help="COCO photos to score, the first ones")
    parser.add_argument("--budget", type=float, default=math.inf, help="seconds to begin runs in")
    parser.add_argument("--scorers", type=int, default=1, help="processes that score")
    parser.add_argument("--score-on", default="cpu", help="the device that masks are scored on")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="changes")
    return parser.parse_args()


def recipe_of(cell: Cell, options: argparse.Namespace) -> Recipe:
    binding = (f"model.image.binding={cell.binding}",) if cell.binding != "positions" else ()
    return load_recipe(
        options.recipe,
        [
            f"data.shards={json.dumps([options.shards])}",
            f"data.photos={cell.photos}",
            f"train.seed={cell.seed}",
            "train.evaluate_on=",  # scored once, at the end: the best of epochs would be a choice
            *ROWS[cell.row],
            *binding,
            *options.changes,
        ],
    )


def finished(cell: Cell, options: argparse.Namespace) -> dict[str, float] | None:
    """The scores of a run that is done."""
    path = options.output / cell.name / "scores.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def trained(cell: Cell, options: argparse.Namespace) -> bool:
    """Train a cell and score its retrieval, on the features that are there; False if stopped."""
    recipe, folder = recipe_of(cell, options), options.output / cell.name
    path, found = folder / "last.safetensors", folder / "retrieval.json"
    if not path.is_file() and pretrain(recipe, folder, resume="auto", observer=Lines()).signal:
        return False
    if not found.is_file():
        model = read_aligned(path).to(choose_device("auto"))
        held_out = HeldOut(recipe)
        scores = dict(held_out(model))
        write_text(found, json.dumps({"photos": held_out.trained_on, **scores}) + "\n")
    return True


def score(cell: Cell, options: argparse.Namespace) -> None:
    """Score the masks of a trained cell."""
    folder = options.output / cell.name
    found = json.loads((folder / "retrieval.json").read_text(encoding="utf-8"))
    scores = {**found, **masks(folder / "last.safetensors", options)}
    write_text(folder / "scores.json", json.dumps(scores, indent=2) + "\n")


def masks(path: Path, options: argparse.Namespace) -> dict[str, float]:
    """mIoU on COCO's photos, each encoded once.

    Of 133 words at once, of stuff and of things among them, of the 53 kinds of stuff asked for
    alone at their own pixels, and of the 80 things with a background.
    """
    model = load_model(str(path), options.score_on)
    panoptic = open_set("coco-panoptic", options.coco, options.split, None).first(options.limit)
    sets = {
        "panoptic": panoptic,
        "stuff": stuff(options.coco, options.split),
        "COCO-Object": open_set("coco-object", options.coco, options.split, "panoptic"),
    }
    asked = {
        name: labeller_of(Run(model, each, load_protocol("own", each)))
        for name, each in sets.items()
    }
    counts: dict[str, Counts] = dict.fromkeys(sets, np.zeros((1, 3), np.int64))
    for number, sample in enumerate(panoptic.samples):
        views = encode_views(model, asked["panoptic"].views(read_image(sample.image)))
        for name, each in sets.items():
            counts[name] = counts[name] + photo_areas(each, number, asked[name], views)
    iou = {name: class_iou(found) for name, found in counts.items()}
    listed = read_panoptic(options.coco / "annotations" / f"panoptic_{options.split}.json")
    is_stuff = np.array([number in listed.stuff for number in listed.categories])
    return {
        **{name: mean_of_present(found) for name, found in iou.items()},
        "stuff among 133": mean_of_present(iou["panoptic"][is_stuff]),
        "things among 133": mean_of_present(iou["panoptic"][~is_stuff]),
    }


def photo_areas(
    evaluated: EvaluationSet, number: int, labeller: Labeller, views: list[EncodedView]
) -> Counts:
    """Common, true and predicted pixels of each class in one photo of a set, int64 [K, 3]."""
    target = evaluated.read_labels(evaluated.samples[number])
    size = (target.shape[0], target.shape[1])
    (found,) = labeller.labels_at(views, size, [labeller.threshold])
    labels = to_numpy(found) - (0 if evaluated.background else 1)
    confusion = confusion_matrix(target, labels.astype(target.dtype), len(evaluated.classes))
    return areas(confusion)


def summarise(scores: dict[Cell, dict[str, float]]) -> list[dict[str, object]]:
    """A row for each group of seeds: means, and their deviations under `NAME_deviation`."""
    table: list[dict[str, object]] = []
    for group in dict.fromkeys(cell.group for cell in scores):
        found = {cell: values for cell, values in scores.items() if cell.group == group}
        first = next(iter(found))
        row: dict[str, object] = {
            "row": first.row,
            "binding": first.binding,
            "photos": first.photos,
            "seeds": len(found),
            "trained": int(next(iter(found.values()))["photos"]),
        }
        for name in (n for n in next(iter(found.values())) if n != "photos"):
            values = [each[name] for each in found.values()]
            row[name] = statistics.mean(values)
            row[f"{name}_deviation"] = statistics.stdev(values) if len(values) > 1 else 0.0
        table.append(row)
    return table


def names_of(row: dict[str, object]) -> list[str]:
    """The scores of a row."""
    return [name for name in row if f"{name}_deviation" in row]


def show(table: list[dict[str, object]]) -> None:
    names = names_of(table[0])
    print(f"| row | binding | photos | {' | '.join(names)} |")
    print("|" + " --- |" * (len(names) + 3))
    for row in table:
        cells = [f"{100 * row[name]:.1f} ± {100 * row[f'{name}_deviation']:.1f}" for name in names]
        photos = row["photos"] or "all"
        print(f"| {row['row']} | {row['binding']} | {photos} | {' | '.join(cells)} |")


def grow(rows: list[dict[str, object]], path: Path) -> None:
    """Draw how scores grow with the number of photos, and carry them on."""
    if len(rows) < 2:
        return
    rows = sorted(rows, key=lambda row: int(row["trained"]))
    photos = [int(row["trained"]) for row in rows]
    shown = [name for name in ("panoptic", "stuff", "COCO-Object", "R@1") if name in rows[0]]
    fits = {name: fitted(photos, [float(row[name]) for row in rows]) for name in shown}
    for name, (start, slope) in fits.items():
        carried = ", ".join(
            f"{of} {100 * (start + slope * math.log10(count)):.1f}" for of, count in GROWTH.items()
        )
        print(f"{name}: {100 * slope:+.1f} for ten times the photos; if it held: {carried}")
    measured = {
        name: [(count, float(row[name])) for count, row in zip(photos, rows, strict=True)]
        for name in shown
    }
    lines = {
        name: [(n, max(start + slope * math.log10(n), 0)) for n in (photos[0], photos[-1])]
        for name, (start, slope) in fits.items()
    }
    write_text(path, drawn(measured, lines, "Scores in percent by training photos"))


def fitted(photos: list[int], values: list[float]) -> tuple[float, float]:
    """Start and slope of `start + slope * log10(photos)`, by least squares."""
    slope, start = np.polyfit(np.log10(photos), values, 1)
    return float(start), float(slope)


if __name__ == "__main__":
    sys.exit(main())
