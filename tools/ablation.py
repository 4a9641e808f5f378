"""The table of losses, binding variants and seeds, by one command that can be stopped at any time.

    python tools/ablation.py --shards scenes-shards --scenes scenes --output runs/ablation
    python tools/ablation.py ... --transfer coco-panoptic:../shared/data/coco-train100:train2017
    python tools/ablation.py ... --losses mask --stage-1 runs/half --output runs/second

Six rows (contrast; with entity completion; with mask consistency; each with both binding modules)
times the seeds, all with one budget, and a row of untrained weights as they are. What is finished
is not done again; a run that was stopped goes on from its last checkpoint. The table is printed at
the end and written to OUTPUT/table.json, with mean and standard deviation over the seeds. Several
machines or processors share the work by `--part 1/3`, `--part 2/3`, `--part 3/3`. With `--stage-1`
the rows with mask consistency go on from the rows with entity completion of another call's output,
as the paper's second stage does.
"""

import argparse
import json
import statistics
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.nn import functional

from ovseg.config.load import load_recipe
from ovseg.config.schema import Recipe
from ovseg.data.images import decode
from ovseg.evaluation.epochs import evaluate_trained
from ovseg.evaluation.sets.catalogue import open_set
from ovseg.files import write_text
from ovseg.models.checkpoint import write_checkpoint
from ovseg.models.ovsegmentor.predictor import Predictor, read_model
from ovseg.training.feed.source import open_source
from ovseg.training.feed.vocabulary import build_tokenizer
from ovseg.training.log import LogLine, Observer
from ovseg.training.run import train
from ovseg.training.start import build_model
from ovseg.training.step import normalised

LOSSES = ("untrained", "contrastive", "entity", "mask")
BINDINGS = ("released", "slot")
SCORED = 600  # of a set's images, the first ones
PRESENCE = "presence AUC"
LOGGED = ("contrastive", "entity", "mask", "assignment_entropy", "groups_used")


@dataclass(frozen=True)
class Cell:
    """One training run of the table."""

    losses: str
    binding: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.losses}-{self.binding}-{self.seed}"


@dataclass(frozen=True)
class Set:
    """A set to score on, as `ovseg eval` names it."""

    name: str
    folder: Path
    split: str | None = None


class Lines(Observer):
    """Shows a run as plain lines."""

    def logged(self, line: LogLine) -> None:
        losses = ("loss", "contrastive", "entity", "mask")
        shown = "  ".join(f"{name} {getattr(line, name)}" for name in losses)
        print(f"step {line.step}  {shown}", file=sys.stderr)


def main() -> int:
    options = parse()
    sets = sets_of(options)
    cells = [
        Cell(losses, binding, seed)
        for seed in options.seeds
        for losses in options.losses
        for binding in BINDINGS
    ]
    begin, step = options.part
    for cell in cells[begin - 1 :: step]:
        if run_cell(cell, options, sets) is None:
            print("stopped; the same command goes on", file=sys.stderr)
            return 143
    scores = {cell.name: found for cell in cells if (found := finished(cell, options))}
    if len(scores) < len(cells):
        print(f"{len(scores)} of {len(cells)} runs are done", file=sys.stderr)
        return 0
    table = summarise(scores, [each.name for each in sets])
    write_text(options.output / "table.json", json.dumps(table, indent=2) + "\n")
    show(table, [each.name for each in sets])
    return 0


def sets_of(options: argparse.Namespace) -> list[Set]:
    """Unseen cut-outs on unseen photographs, scored where there are any, and the others.

    With a background class the score would be that of a threshold: models as small as these are
    never sure enough for one that the paper uses.
    """
    sets = [Set("cutouts-objects", options.scenes)]
    for each in options.transfer:
        name, folder, split = [*each.split(":"), ""][:3]
        sets.append(Set(name, Path(folder), split or None))
    return sets


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--shards", required=True, help="folder of ovseg build-dataset")
    parser.add_argument("--scenes", type=Path, required=True, help="folder of the cut-out scenes")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--losses", nargs="+", choices=LOSSES, default=LOSSES, metavar="ROW")
    parser.add_argument("--stage-1", type=Path, metavar="OUTPUT", dest="stage_1")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--part", type=part, default=(1, 1), help="2/3: every third run from 2 on")
    parser.add_argument("--transfer", action="append", default=[], metavar="SET:FOLDER[:SPLIT]")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="changes")
    return parser.parse_args()


def part(text: str) -> tuple[int, int]:
    number, _, count = text.partition("/")
    return int(number), int(count)


def run_cell(cell: Cell, options: argparse.Namespace, sets: list[Set]) -> dict[str, float] | None:
    """Train and score, or read what an earlier call has done; None if asked to stop."""
    folder = options.output / cell.name
    if found := finished(cell, options):
        return found
    if cell.losses == "untrained":
        scores = score(untrained(cell, options), sets)
    else:
        print(cell.name, file=sys.stderr)
        if not trained(cell, options, folder):
            return None
        scores = score(folder / "last.safetensors", sets) | of_the_log(folder)
    write_text(folder / "scores.json", json.dumps(scores, indent=2) + "\n")
    return scores


def trained(cell: Cell, options: argparse.Namespace, folder: Path) -> bool:
    """Train a cell unless that is done; False if asked to stop."""
    if (folder / "last.safetensors").is_file():
        return True
    done = train(recipe_of(cell, options), folder, resume="auto", observer=Lines())
    return not done.signal


def untrained(cell: Cell, options: argparse.Namespace) -> Path:
    """A checkpoint of the weights that the cell's other rows start from."""
    recipe = recipe_of(replace(cell, losses="contrastive"), options)
    source = open_source(recipe)
    texts = build_tokenizer(recipe, source)
    path = options.output / cell.name / "last.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_checkpoint(path, build_model(recipe).state_dict(), recipe, tokenizer=texts.files)
    return path


def finished(cell: Cell, options: argparse.Namespace) -> dict[str, float] | None:
    """The scores of a run that is done."""
    path = options.output / cell.name / "scores.json"
    found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found if PRESENCE in found else None


def recipe_of(cell: Cell, options: argparse.Namespace) -> Recipe:
    changes = [
        f"data.shards={json.dumps([options.shards])}",
        f"model.image.binding={cell.binding}",
        f"train.seed={cell.seed}",
        "train.evaluate_on=",  # scored once, at the end: the best of the epochs would be a choice
        *options.changes,
    ]
    if options.stage_1 and cell.losses == "mask":
        first = options.stage_1 / replace(cell, losses="entity").name / "last.safetensors"
        changes.append(f"train.start_from={first}")
    return load_recipe(f"ablation-{cell.losses}", changes)


def score(path: Path, sets: list[Set]) -> dict[str, float]:
    """mIoU on each set, and how well images as wholes tell what is in them."""
    model = read_model(path)
    scores = {PRESENCE: presence(model, sets[0])}
    for each in sets:
        found = evaluate_trained(model, each.name, each.folder, each.split, SCORED)
        scores[each.name] = found.scores.mean_iou
    return scores


@torch.inference_mode()
def presence(model: Predictor, scored: Set) -> float:
    """How well image and class embeddings tell which classes an image shows: mean area under ROC.

    0.5 is chance. It asks less than a mask does, and so shows what little a short run has learned.
    """
    images = open_set(scored.name, scored.folder, scored.split)
    encoder = model.model.image_encoder
    size = (encoder.stored_grid[0] * encoder.patch,) * 2
    words = model.encode_text(list(images.words.names), ["a photo of a {}."])  # [K, C]
    likeness, shown = [], []
    for sample in images.samples[:SCORED]:
        pixels = cv2.resize(decode(sample.image.read_bytes()), size, interpolation=cv2.INTER_AREA)
        tensor = torch.from_numpy(pixels).permute(2, 0, 1)[None]
        image = model.encode_image(normalised(tensor)).image_embedding[0]
        likeness.append((functional.normalize(image, dim=0) @ words.T).numpy())
        shown.append(np.isin(np.arange(len(words)), images.read_labels(sample)))
    columns = zip(np.stack(likeness, 1), np.stack(shown, 1), strict=True)
    told = [area_under_roc(v, there) for v, there in columns if there.any() and not there.all()]
    return float(np.mean(told)) if told else 0.5


def area_under_roc(values: np.ndarray, there: np.ndarray) -> float:
    """Share of pairs of one that is there and one that is not in which the first has more."""
    more = values[there][:, None] > values[~there][None]
    return float(more.mean())


def of_the_log(folder: Path) -> dict[str, float]:
    """What the last line of the log says of the groups and losses."""
    last = json.loads((folder / "log.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    return {key: last[key] for key in LOGGED}


def summarise(scores: dict[str, dict[str, float]], sets: list[str]) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for losses in LOSSES:
        for binding in BINDINGS:
            start = f"{losses}-{binding}-"
            found = [values for name, values in scores.items() if name.startswith(start)]
            if not found:
                continue
            row: dict[str, object] = {"losses": losses, "binding": binding, "seeds": len(found)}
            for name in (*sets, PRESENCE, *LOGGED):
                values = [each[name] for each in found if name in each]
                if not values:
                    continue
                row[name] = statistics.mean(values)
                row[f"{name}_deviation"] = statistics.stdev(values) if len(values) > 1 else 0.0
            rows.append(row)
    return rows


def show(table: list[dict[str, object]], sets: list[str]) -> None:
    columns = [*(f"{name} mIoU" for name in sets), PRESENCE, *LOGGED]
    print(f"| losses | binding | {' | '.join(columns)} |")
    print("|" + " --- |" * (len(columns) + 2))
    for row in table:
        cells = [f"{100 * row[s]:.2f} ± {100 * row[f'{s}_deviation']:.2f}" for s in sets]
        cells.append(f"{row[PRESENCE]:.3f} ± {row[f'{PRESENCE}_deviation']:.3f}")
        cells += [f"{row[name]:.2f}" if name in row else "" for name in LOGGED]
        print(f"| {row['losses']} | {row['binding']} | {' | '.join(cells)} |")


if __name__ == "__main__":
    sys.exit(main())
