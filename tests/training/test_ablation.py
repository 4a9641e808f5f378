"""The table of the ablations and the evaluation between epochs, on a handful of scenes."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from ovseg.data.cutouts.build import build_cutouts
from ovseg.data.cutouts.request import CutoutsRequest
from ovseg_cli.__main__ import run
from tests.data.cutouts.conftest import SHAPES, polygon, save
from tools import ablation, diagnose_losses

TINY = (
    "model.image.width=16",
    "model.image.heads=2",
    "model.image.depths=[1, 1]",
    "model.image.image_size=32",
    "model.image.patch=8",
    "model.text.width=16",
    "model.text.depth=1",
    "model.text.heads=2",
    "model.text.mlp_width=32",
    "model.entity.heads=2",
    "loss.mask.resolution=32",
    "schedule.max_steps=2",
    "schedule.warmup_epochs=0.0",
    "data.batch_size=4",
    "data.workers=0",
    "train.precision=fp32",
    "train.log_every=1",
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`scenes` with ground truth, and `shards` made of their training half."""
    import cv2

    folder = tmp_path_factory.mktemp("made")
    for number, (name, corners) in enumerate(SHAPES.items()):
        word = ("A cat.", "A dog.", "A kite.")[number % 3]
        colour = (40 * number, 200 - 30 * number, 90)
        save(folder / f"cutouts/{name}.png", polygon(corners, colour), word)
    (folder / "photographs").mkdir()
    random = np.random.default_rng(5)
    for number in range(3):
        coarse = random.integers(0, 255, (6, 8, 3), dtype=np.uint8)
        path = folder / f"photographs/{number}.jpg"
        cv2.imwrite(str(path), cv2.resize(coarse, (400, 300)))
    request = CutoutsRequest(
        folder / "cutouts", folder / "photographs", folder / "scenes", 20, 0, 64, 0.3
    )
    build_cutouts(request)
    images, words = folder / "scenes/images/train", folder / "scenes/classes.txt"
    command = ["build-dataset", str(images), "--output", str(folder / "shards")]
    more = ["--entities", str(words), "--image-size", "64", "--workers", "1"]
    assert run([*command, *more]) == 0
    return folder


def test_the_table_is_made_once(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = [part for change in TINY for part in ("--set", change)]
    folders = ["--shards", str(made / "shards"), "--scenes", str(made / "scenes")]
    more = ["--output", str(tmp_path), "--seeds", "0", *settings]
    monkeypatch.setattr(sys, "argv", ["ablation.py", *folders, *more, "--part", "2/2"])
    assert ablation.main() == 0
    assert "4 of 8 runs are done" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["ablation.py", *folders, *more])
    assert ablation.main() == 0
    table = json.loads((tmp_path / "table.json").read_text())
    assert [(row["losses"], row["binding"]) for row in table] == [
        (losses, binding) for losses in ablation.LOSSES for binding in ablation.BINDINGS
    ]
    assert all(0 <= row["cutouts-objects"] <= 1 and row["seeds"] == 1 for row in table)
    assert all(0 <= row[ablation.PRESENCE] <= 1 for row in table)
    shown = capsys.readouterr().out
    assert "| mask | slot |" in shown

    path = tmp_path / "mask-slot-0" / "last.safetensors"
    monkeypatch.setattr(sys, "argv", ["diagnose_losses.py", str(path)])
    monkeypatch.setattr(diagnose_losses, "STEPS", 1)
    assert diagnose_losses.main() == 0
    assert "their targets on at 100.0% of the pixels" in capsys.readouterr().out  # as good as new
    monkeypatch.setattr(sys, "argv", ["ablation.py", *folders, *more])

    second = [*folders, *more[:1], str(tmp_path / "second"), *more[2:], "--losses", "mask"]
    monkeypatch.setattr(sys, "argv", ["ablation.py", *second, "--stage-1", str(tmp_path)])
    assert ablation.main() == 0
    capsys.readouterr()
    for binding in ablation.BINDINGS:
        log = (tmp_path / f"second/mask-{binding}-0/recipe.toml").read_text()
        assert f"entity-{binding}-0" in log
    monkeypatch.setattr(sys, "argv", ["ablation.py", *folders, *more])

    def never(*arguments: object, **more: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(ablation, "train", never)
    assert ablation.main() == 0
    assert capsys.readouterr().out == shown


def test_area_under_roc_by_hand() -> None:
    """Of the pairs (3, 2), (3, 0), (1, 2), (1, 0) three have the larger value first."""
    there = np.array([True, False, True, False])
    assert ablation.area_under_roc(np.array([3.0, 2.0, 1.0, 0.0]), there) == 0.75


def test_epochs_are_scored_and_the_best_is_kept(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = [*TINY, f'data.shards=["{made / "shards"}"]']
    settings = [part for change in changes for part in ("--set", change)]
    command = ["pretrain", "ablation-mask", *settings, "--data-root", str(made / "scenes")]
    assert run([*command, "--output", str(tmp_path / "run")]) == 0
    shown = capsys.readouterr()
    assert "mIoU" in shown.out and "mIoU" in shown.err
    assert (tmp_path / "run" / "best.safetensors").is_file()
    wrong = [*command[:-1], str(tmp_path / "nowhere"), "--output", str(tmp_path / "other")]
    assert run(wrong) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1
