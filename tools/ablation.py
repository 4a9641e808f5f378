"""The table of losses, binding variants and seeds, by one command that can be stopped at any time.

    python tools/ablation.py --shards scenes-shards --scenes scenes --output runs/ablation
    python tools/ablation.py ... --transfer coco-panoptic:../shared/data/coco-train100

Six rows (contrast; with entity completion; with mask consistency; each with both binding modules)
times the seeds, all with one budget. What is finished is not done again; a run that was stopped
goes on from its last checkpoint. The table is printed at the end and written to OUTPUT/table.json,
with mean and standard deviation over the seeds.
"""

import argparse
import json
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path

from ovseg.config.loading import load_recipe
from ovseg.config.schema import Recipe
from ovseg.files import write_text
from ovseg.model.checkpoint_model import read_model
from ovseg.train.run import Outcome, train
from ovseg_cli.epoch_evaluation import result_of
from ovseg_cli.training_view import TrainingView

LOSSES = ("contrastive", "entity", "mask")
BINDINGS = ("released", "slot")


@dataclass(frozen=True)
class Cell:
    """One training run of the table."""

    losses: str
    binding: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.losses}-{self.binding}-{self.seed}"


def main() -> int:
    options = parse()
    sets = {"cutouts": options.scenes}
    for each in options.transfer:
        name, _, folder = each.partition(":")
        sets[name] = Path(folder)
    seeds = [int(seed) for seed in options.seeds.split(",")]
    cells = [Cell(lo, bi, seed) for seed in seeds for lo in LOSSES for bi in BINDINGS]
    scores: dict[str, dict[str, float]] = {}
    for number, cell in enumerate(cells, 1):
        print(f"[{number}/{len(cells)}] {cell.name}", file=sys.stderr)
        found = run_cell(cell, options, sets)
        if found is None:
            print("stopped; the same command goes on", file=sys.stderr)
            return 143
        scores[cell.name] = found
    table = summarise(scores, list(sets))
    write_text(options.output / "table.json", json.dumps(table, indent=2) + "\n")
    show(table, list(sets))
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--shards", required=True, help="folder of ovseg build-dataset")
    parser.add_argument("--scenes", type=Path, required=True, help="folder of the cut-out scenes")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--transfer", action="append", default=[], metavar="SET:FOLDER")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="changes")
    return parser.parse_args()


def run_cell(
    cell: Cell, options: argparse.Namespace, sets: dict[str, Path]
) -> dict[str, float] | None:
    """Train and score, or read what an earlier call has done; None if asked to stop."""
    folder = options.output / cell.name
    done = folder / "scores.json"
    if done.is_file():
        return json.loads(done.read_text(encoding="utf-8"))
    with TrainingView() as view:
        outcome = train(recipe_of(cell, options), folder, resume="auto", observer=view)
    if outcome.signal:
        return None
    scores = score(outcome, folder, sets)
    write_text(done, json.dumps(scores, indent=2) + "\n")
    return scores


def recipe_of(cell: Cell, options: argparse.Namespace) -> Recipe:
    changes = [
        f"data.shards={json.dumps([options.shards])}",
        f"model.image.binding={cell.binding}",
        f"train.seed={cell.seed}",
        "train.evaluate_on=",  # scored once, at the end: the best of the epochs would be a choice
        *options.changes,
    ]
    return load_recipe(f"ablation-{cell.losses}", changes)


def score(outcome: Outcome, folder: Path, sets: dict[str, Path]) -> dict[str, float]:
    """mIoU on each set, and what the last line of the log says of the groups."""
    model = read_model(folder / "last.safetensors")
    scores = {name: result_of(model, name, data).scores.mean_iou for name, data in sets.items()}
    last = json.loads((outcome.output / "log.jsonl").read_text().splitlines()[-1])
    return scores | {key: last[key] for key in ("assignment_entropy", "groups_used")}


def summarise(scores: dict[str, dict[str, float]], sets: list[str]) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for losses in LOSSES:
        for binding in BINDINGS:
            start = f"{losses}-{binding}-"
            found = [values for name, values in scores.items() if name.startswith(start)]
            row: dict[str, object] = {"losses": losses, "binding": binding, "seeds": len(found)}
            for name in (*sets, "assignment_entropy", "groups_used"):
                values = [each[name] for each in found]
                row[name] = statistics.mean(values)
                row[f"{name}_deviation"] = statistics.stdev(values) if len(values) > 1 else 0.0
            rows.append(row)
    return rows


def show(table: list[dict[str, object]], sets: list[str]) -> None:
    columns = [f"{name} mIoU" for name in sets]
    print(f"| losses | binding | {' | '.join(columns)} | entropy | groups used |")
    print("|" + " --- |" * (len(sets) + 4))
    for row in table:
        cells = [f"{100 * row[s]:.1f} ± {100 * row[f'{s}_deviation']:.1f}" for s in sets]
        more = f"{row['assignment_entropy']:.2f} | {row['groups_used']:.1f}"
        print(f"| {row['losses']} | {row['binding']} | {' | '.join(cells)} | {more} |")


if __name__ == "__main__":
    sys.exit(main())
