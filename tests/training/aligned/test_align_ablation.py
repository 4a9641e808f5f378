"""The table of losses, groupings and numbers of photos, without COCO's photos."""

import argparse
import json
import math
import sys
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from ovseg.api import evaluate
from tests.evaluation.sets.test_coco import write_panoptic
from tests.models.aligned.tiny import small_aligned, write_tiny
from tests.training.aligned.tiny_recipes import SHORT, TEXT, VISION
from tools import align_ablation


class Here:
    """A pool that does its work at once, in this process."""

    def __init__(self, *_: Any) -> None:
        self.futures: list[Future] = []

    def __enter__(self) -> "Here":
        return self

    def __exit__(self, *_: Any) -> None:
        return

    def submit(self, work: Callable[..., Any], *arguments: Any) -> Future:
        future: Future = Future()
        future.set_result(work(*arguments))
        return future


def command(photos: Path, folder: Path, *more: str) -> list[str]:
    sizes = ("model.embedding_width=12", "model.image.width=16", "model.projector_width=16")
    heads = ("model.image.heads=2", "model.entity.heads=2", "schedule.max_steps=2")
    changes = [*VISION, *TEXT, *SHORT, *sizes, *heads, f"data.cache={folder / 'cache'}"]
    settings = [part for change in changes for part in ("--set", change)]
    places = ["--shards", str(photos), "--coco", str(folder), "--output", str(folder / "out")]
    return ["x", "--recipe", "align-dinov2-s", *places, "--seeds", "0", *more, *settings]


def test_the_table_is_made_once(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    scored = []

    def masks(path: Path, _: object) -> dict[str, float]:
        scored.append(path.parent.name)
        return {"panoptic": 0.01 * len(scored)}

    monkeypatch.setattr(align_ablation, "ProcessPoolExecutor", Here)
    monkeypatch.setattr(align_ablation, "masks", masks)
    rows = ("--rows", "words", "groups-mask", "--bindings", "slot", "--photos", "0", "16")
    given = command(photos, tmp_path, *rows)
    monkeypatch.setattr(sys, "argv", [*given, "--budget", "-1"])
    assert align_ablation.main() == 143 and not scored
    monkeypatch.setattr(sys, "argv", given)
    assert align_ablation.main() == 0
    assert scored == ["words-positions-0-0", "groups-mask-slot-0-0", "words-positions-16-0"]
    shown = capsys.readouterr().out
    assert "| groups-mask | slot | all |" in shown and "| words | positions | 16 |" in shown
    assert "if it held: CC3M" in shown
    assert (tmp_path / "out" / "growth.svg").read_text().startswith("<svg")
    table = json.loads((tmp_path / "out" / "table.json").read_text())
    assert [row["trained"] for row in table] == [32, 32, 16]
    assert all(0 <= row["image to text R@1"] <= 1 for row in table)
    assert align_ablation.main() == 0 and len(scored) == 3


def test_seeds_are_brought_together() -> None:
    cells = {
        align_ablation.Cell("words", "positions", 0, seed): {"photos": 9, "panoptic": value}
        for seed, value in ((0, 0.1), (1, 0.3))
    }
    (row,) = align_ablation.summarise(cells)
    assert row["seeds"] == 2 and row["panoptic"] == pytest.approx(0.2)
    assert row["panoptic_deviation"] == pytest.approx(math.sqrt(0.02))
    assert align_ablation.names_of(row) == ["panoptic"]


def test_growth_is_a_line_in_the_logarithm() -> None:
    start, slope = align_ablation.fitted([100, 1000, 10_000], [0.02, 0.05, 0.08])
    assert (start, slope) == (pytest.approx(-0.04), pytest.approx(0.03))


def test_masks_are_scored_as_eval_scores_them(tmp_path: Path) -> None:
    write_panoptic(tmp_path)
    config = small_aligned(reading={"rule": "softmax", "background": ("sky", "wall"), "scale": 9.0})
    model = write_tiny(tmp_path / "model.safetensors", config)
    options = argparse.Namespace(coco=tmp_path, split="val2017", limit=None, score_on="cpu")
    found = align_ablation.masks(model, options)
    for name, benchmark in (("panoptic", "coco-panoptic"), ("COCO-Object", "coco-object")):
        result = evaluate(
            benchmark, tmp_path, model, split="val2017", labels=None, protocol="own", fresh=True
        )
        assert found[name] == pytest.approx(result.scores.mean_iou, nan_ok=True)
    assert found["stuff"] == 1.0  # one kind alone, at its own pixels
