"""Runs from end to end: what they learn, write, leave out and refuse."""

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ovseg.errors import DataError, MissingDependencyError, RecipeError
from ovseg.models.ovsegmentor.predictor import Predictor
from ovseg.training.faults import DivergedError
from ovseg.training.log import Observer
from ovseg.training.plan import plan_run
from ovseg.training.run import train
from ovseg.training.step import TrainingStep
from tests.training.runs import log_of, recipe
from tests.training.scenes import make_scenes


def test_a_small_model_learns(scenes: Path, tmp_path: Path) -> None:
    """Contrast on 64 pairs of 4 shapes and 4 colours falls clearly below chance."""
    target = recipe(
        scenes,
        "schedule.max_steps=90",
        "schedule.learning_rate=3e-3",
        "loss.mask.enabled=false",
        "loss.entity.enabled=false",
        "data.batch_size=16",
        "augmentation.rand_augment=",
        "augmentation.color_jitter=0.0",
        "augmentation.erasing=0.0",
        "augmentation.crop_scale=[0.7, 1.0]",
        "train.log_every=10",
        "train.save_every=0",
        "train.tracker=tensorboard",
        "train.overlays_every=30",
    )
    outcome = train(target, tmp_path / "run")
    losses = [line["contrastive"] for line in log_of(tmp_path / "run")]
    assert outcome.steps == 90 and losses[-1] < 0.8 * losses[0]
    assert len(list((tmp_path / "run" / "overlays").glob("*.png"))) == 3
    assert list((tmp_path / "run" / "tensorboard").rglob("events.*"))


def test_the_best_of_the_epochs_is_kept(scenes: Path, tmp_path: Path) -> None:
    scores = iter([0.2, 0.5, 0.3])
    seen: list[tuple[int, float]] = []
    weights = []

    class Watch(Observer):
        def evaluated(self, step: int, score: float) -> None:
            seen.append((step, score))

    def evaluate(model: Predictor) -> dict[str, float]:
        assert not model.model.training
        torch.rand(7)  # whatever it draws must not change the training
        weights.append(model.model.image_encoder.position.detach().clone())
        return {"mIoU": next(scores)}

    target = recipe(scenes, "data.batch_size=16", "schedule.max_steps=12")
    outcome = train(target, tmp_path / "a", evaluate=evaluate, observer=Watch())
    assert seen == [(4, 0.2), (8, 0.5), (12, 0.3)] and outcome.best == 0.5
    best = load_file(tmp_path / "a" / "best.safetensors")
    assert torch.equal(best["image_encoder.position"], weights[1])
    train(target, tmp_path / "b")
    assert log_of(tmp_path / "a") == log_of(tmp_path / "b")


def test_a_second_stage_starts_from_the_first(scenes: Path, tmp_path: Path) -> None:
    first = train(recipe(scenes, "loss.mask.enabled=false"), tmp_path / "one")
    second = recipe(
        scenes,
        f"train.start_from={first.output}",
        "train.freeze_text=true",
        "data.partners=exact",
    )
    outcome = train(second, tmp_path / "two")
    before, after = (load_file(o.output / "last.safetensors") for o in (first, outcome))
    text = [name for name in before if name.startswith("text_encoder.")]
    assert text and all(torch.equal(before[name], after[name]) for name in text)
    assert not torch.equal(before["image_encoder.position"], after["image_encoder.position"])


def test_in_parts_and_in_half_precision(scenes: Path, tmp_path: Path) -> None:
    for precision in ("bf16", "fp16"):
        target = recipe(
            scenes,
            "data.accumulation=2",
            f"train.precision={precision}",
            "model.image.checkpointing=true",
        )
        train(target, tmp_path / precision)
        assert all(math.isfinite(line["loss"]) for line in log_of(tmp_path / precision))


def test_steps_that_are_not_finite_are_skipped_and_written_down(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real, calls = TrainingStep.__call__, []

    def sometimes_bad(self: TrainingStep, parts: list, scale: float = 1.0) -> object:
        calls.append(parts)
        losses = real(self, parts, scale)
        if len(calls) in (3, 4):
            self.model.image_encoder.position.grad.fill_(math.nan)
        return losses

    monkeypatch.setattr(TrainingStep, "__call__", sometimes_bad)
    with caplog.at_level("WARNING", "ovseg"):
        outcome = train(recipe(scenes), tmp_path)
    assert outcome.skipped == 2 and "2 steps were not finite" in caplog.text
    lines = [json.loads(line) for line in (tmp_path / "skipped.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [3, 4]
    assert lines[0]["keys"] == list(calls[2][0].keys)
    state = load_file(tmp_path / "last.safetensors")
    assert all(tensor.isfinite().all() for tensor in state.values())


def test_a_run_that_diverged_stops(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = TrainingStep.__call__

    def bad(self: TrainingStep, parts: list, scale: float = 1.0) -> object:
        losses = real(self, parts, scale)
        self.model.image_encoder.position.grad.fill_(math.inf)
        return losses

    monkeypatch.setattr(TrainingStep, "__call__", bad)
    with pytest.raises(DivergedError, match="3 steps in a row"):
        train(recipe(scenes, "train.max_skipped=3", "train.log_every=100"), tmp_path)


def test_unreadable_samples_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = make_scenes(tmp_path / "data", bad=(1, 30, 31))
    with caplog.at_level("WARNING", "ovseg"):
        outcome = train(recipe(data, "schedule.max_steps=16"), tmp_path / "run")
    lines = (tmp_path / "run" / "unreadable.jsonl").read_text().splitlines()
    assert outcome.unreadable == 3 == len(lines)
    assert "samples could not be read" in caplog.text


def test_too_many_unreadable_in_a_row_stop_the_run(tmp_path: Path) -> None:
    data = make_scenes(tmp_path / "data", bad=tuple(range(64)))
    target = recipe(data, "data.max_bad_samples=10")
    with pytest.raises(DataError, match="10 samples in a row could not be read"):
        train(target, tmp_path / "run")


def test_a_shard_that_vanishes_stops_the_run_with_one_line(tmp_path: Path) -> None:
    data = make_scenes(tmp_path / "data", shards=16)  # most are not open yet after a step

    class Remove(Observer):
        def logged(self, record: object) -> None:
            for shard in data.glob("*.tar"):
                shard.unlink()

    with pytest.raises(DataError, match=r"\.tar: No such file.*--resume auto"):
        train(recipe(data, "data.batch_size=2"), tmp_path / "run", observer=Remove())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.shards=[]"], "data.shards is empty"),
        (["data.batch_size=128"], "fewer than one step takes"),
        (["data.batch_size=3"], "is odd: in-batch partners come in twos"),
        (['data.shards=["a.tar"]'], "a stream of .tar files"),
        (['data.shards=["nowhere"]'], "nowhere/index.parquet does not exist"),
        (["train.start_from=nowhere.safetensors"], "nowhere.safetensors"),
        (["augmentation.rand_augment=rand-q1"], "is no policy of timm"),
    ],
)
def test_what_cannot_run_says_why(
    overrides: list[str], message: str, scenes: Path, tmp_path: Path
) -> None:
    from ovseg.errors import OvsegError

    with pytest.raises(OvsegError, match=message):
        train(recipe(scenes, *overrides), tmp_path / "run")


def test_an_unwritable_folder_is_found_before_training(scenes: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written: Not a directory"):
        train(recipe(scenes), tmp_path / "file" / "run")


def test_wandb_that_is_not_installed(scenes: Path, tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    if __import__("importlib").util.find_spec("wandb"):
        pytest.skip("wandb is installed")
    with pytest.raises(MissingDependencyError, match="wandb"):
        train(recipe(scenes, "train.tracker=wandb"), tmp_path)


@pytest.mark.slow
def test_wandb_writes_without_a_network(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    run = tmp_path / "run"
    train(recipe(scenes, "train.tracker=wandb", "schedule.max_steps=2"), run)
    (written,) = (run / "wandb").glob("offline-run-*/*.wandb")
    data = written.read_bytes()
    assert b"assignment_entropy" in data and b"optimizer.weight_decay" in data


def test_a_stream_trains_and_goes_on(tmp_path: Path) -> None:
    data = make_scenes(tmp_path / "data")
    names = ["loss.mask.enabled=false", "schedule.max_steps=6", "data.workers=1"]
    words = f"model.text.tokenizer={save_tokenizer(tmp_path / 'words')}"
    whole = recipe(data, *names, words, f'data.shards=["{data}/{{000000..000001}}.tar"]')
    train(whole, tmp_path / "a")
    lines = log_of(tmp_path / "a")
    assert len(lines) == 6 and all(line["entity"] > 0 for line in lines)
    with pytest.raises(RecipeError, match=r"schedule\.max_steps"):
        endless = recipe(data, *names, "schedule.max_steps=0", f'data.shards=["{data}/000000.tar"]')
        train(endless, tmp_path / "b")


def save_tokenizer(folder: Path) -> Path:
    from ovseg.training.feed.vocabulary import learn_tokenizer

    learn_tokenizer(["a red circle on grey ground"], 300).save_pretrained(folder)
    return folder


def test_the_plan_counts(scenes: Path) -> None:
    plan = plan_run(recipe(scenes, "data.accumulation=2", "schedule.max_steps=0"), 2)
    assert (plan.pairs, plan.global_batch, plan.epoch_steps) == (64, 16, 4)
    assert (plan.steps, plan.samples) == (4, 64)
    assert plan.flops == pytest.approx(plan.cost.total * 64)
    assert plan.memory > 0 and plan.seconds > 0 and plan.trained == plan.parameters
