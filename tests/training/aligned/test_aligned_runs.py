"""Recipes of aligned models through the real loop, with tiny random towers."""

import json
import math
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ovseg.api import plan_pretraining, pretrain
from ovseg.errors import OvsegError
from ovseg.evaluation.held_out import HeldOut
from ovseg.models.aligned.aligner import read_aligned
from ovseg.training.log import Observer
from ovseg.training.run import train
from tests.training.aligned.tiny_recipes import GROUPING, tiny
from tests.training.runs import finish, kill_after, log_of, start
from tests.training.scenes import make_scenes
from tools import diagnose_losses


@pytest.mark.parametrize("name", ["align-flickr8k", "align-dinov2-s", "talk2dino"])
def test_recipes_run_from_end_to_end(name: str, photos: Path, tmp_path: Path) -> None:
    vision = "model.aligned.vision.tower=vit_small_patch14_reg4_dinov2.lvd142m"
    recipe = tiny(name, photos, tmp_path / "cache", vision)
    outcome = pretrain(recipe, tmp_path / "run")
    lines = log_of(tmp_path / "run")
    assert outcome.steps == len(lines) == 2 * recipe_steps(name)
    assert all(math.isfinite(line["loss"]) for line in lines)
    model = read_aligned(tmp_path / "run" / "last.safetensors")
    words = model.encode_text(["circle", "square"], model.templates)
    assert words.shape == (2, recipe.model.embedding_width)
    if name != "talk2dino":
        scores = (tmp_path / "run" / "scores.jsonl").read_text().splitlines()
        assert json.loads(scores[-1])["step"] == outcome.steps and outcome.best is not None
        assert all(line["words"] > 0 for line in lines)


def recipe_steps(name: str) -> int:
    """Of an epoch: 32 photos, or their 96 pairs, by eight."""
    return 12 if name == "talk2dino" else 4


def test_a_head_learns_shapes_from_captions(tmp_path: Path) -> None:
    data = make_scenes(tmp_path / "data", pairs=80, captions=2)
    more = ("schedule.epochs=25", "schedule.learning_rate=1e-2", "data.views=1")
    recipe = tiny("align-dinov2-s", data, tmp_path / "cache", *more, "data.batch_size=24")
    train(recipe, tmp_path / "run")
    losses = [line["contrastive"] for line in log_of(tmp_path / "run")]
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])


@pytest.mark.parametrize("binding", ["released", "slot"])
def test_a_grouping_has_all_losses_of_the_paper(binding: str, photos: Path, tmp_path: Path) -> None:
    more = (*GROUPING, f"model.image.binding={binding}", "loss.structure.enabled=true")
    train(tiny("align-dinov2-s", photos, tmp_path / "cache", *more), tmp_path / "run")
    for line in log_of(tmp_path / "run"):
        for name in ("contrastive", "words", "entity", "mask"):
            assert line[name] > 0 and math.isfinite(line[name]), name
        assert 0 <= line["assignment_entropy"] <= 1
    assert log_of(tmp_path / "run")[-1]["structure"] > 0
    path = tmp_path / "run" / "last.safetensors"
    grouped = read_aligned(path).encode_image(torch.zeros(1, 3, 32, 32))
    assert grouped.embedding.shape[0] == 1
    for found in diagnose_losses.findings(path):
        assert found.right > 0 and found.other > 0 and 0 < found.on <= 1


@pytest.mark.parametrize(
    "changes",
    [
        ["loss.contrastive.form=sigmoid", "loss.words.form=sigmoid"],
        ["loss.contrastive.score=maximum", "loss.words.pooling=maximum"],
        ["loss.contrastive.score=mean", "loss.words.absent=similar"],
        ["data.captions=all", "loss.words.absent=top"],
        ["loss.words.enabled=false", "data.captions=pairs"],
        ["loss.contrastive.enabled=false"],
    ],
)
def test_losses_and_captions_by_choice(changes: list[str], photos: Path, tmp_path: Path) -> None:
    short = ("schedule.max_steps=3", "data.views=1")
    train(tiny("align-dinov2-s", photos, tmp_path / "cache", *short, *changes), tmp_path / "run")
    assert all(math.isfinite(line["loss"]) for line in log_of(tmp_path / "run"))


def test_the_towers_stay_as_they_are(photos: Path, tmp_path: Path) -> None:
    recipe = tiny("align-dinov2-s", photos, tmp_path / "cache")
    train(recipe, tmp_path / "one")
    longer = tiny("align-dinov2-s", photos, tmp_path / "cache", "schedule.epochs=3")
    train(longer, tmp_path / "two")
    one, two = (load_file(tmp_path / run / "last.safetensors") for run in ("one", "two"))
    towers = [name for name in one if not name.startswith("head.")]
    assert towers and all(torch.equal(one[name], two[name]) for name in towers)
    trained = [name for name in one if name.startswith("head.") and one[name].ndim == 2]
    assert trained and not any(torch.equal(one[name], two[name]) for name in trained)


def test_a_run_goes_on_after_a_kill(photos: Path, tmp_path: Path) -> None:
    changes = (
        "train.save_every=2",
        "schedule.epochs=4",
        "model.aligned.text_projection.dropout=0.2",
    )
    recipe = tiny("align-dinov2-s", photos, tmp_path / "cache", *changes)
    train(recipe, tmp_path / "whole")
    started = start(recipe, tmp_path / "killed")
    kill_after(started, tmp_path / "killed", 5)
    assert finish(started) == [-signal.SIGKILL]
    outcome = train(recipe, tmp_path / "killed", resume="auto")
    assert outcome.steps == 16 and log_of(tmp_path / "killed") == log_of(tmp_path / "whole")
    whole, again = (load_file(tmp_path / run / "last.safetensors") for run in ("whole", "killed"))
    assert all(torch.equal(whole[name], again[name]) for name in whole)


@pytest.mark.slow
def test_two_processes_train_as_one(photos: Path, tmp_path: Path) -> None:
    """The same losses, but for the noise of dropout, which is off here."""
    plain = (
        "model.aligned.text_projection.dropout=0.0",
        "model.aligned.position_projection.dropout=0.0",
        "model.aligned.image_projection.dropout=0.0",
        "augmentation.text_noise=0.0",
        "train.evaluate_on=",
    )
    alone = tiny("align-dinov2-s", photos, tmp_path / "a", *plain)
    train(alone, tmp_path / "one")
    shared = tiny("align-dinov2-s", photos, tmp_path / "b", *plain, "data.batch_size=4")
    assert finish(start(shared, tmp_path / "two", processes=2)) == [0, 0]
    for one, two in zip(log_of(tmp_path / "one"), log_of(tmp_path / "two"), strict=True):
        for name in ("contrastive", "words", "gradient_norm"):
            assert two[name] == pytest.approx(one[name], rel=1e-4), (name, one["step"])


def test_retrieval_is_that_of_the_checkpoint(photos: Path, tmp_path: Path) -> None:
    recipe = tiny("align-dinov2-s", photos, tmp_path / "cache")
    seen: dict[int, dict[str, float]] = {}

    class Watch(Observer):
        def scored(self, step: int, scores: dict[str, float]) -> None:
            seen[step] = dict(scores)

    pretrain(recipe, tmp_path / "run", observer=Watch())
    assert list(seen) == [8]
    found = HeldOut(recipe)(read_aligned(tmp_path / "run" / "last.safetensors"))
    assert found == pytest.approx(seen[8])
    assert found["image to text R@10"] >= found["image to text R@1"]


def test_the_plan_says_what_is_needed(photos: Path, tmp_path: Path) -> None:
    recipe = tiny("align-dinov2-s", photos, tmp_path / "cache")
    plan = plan_pretraining(recipe)
    assert plan.cache is not None and plan.cache.missing == plan.cache.total > 0
    assert plan.cache.photos == 80 and plan.steps == 8 and plan.trained < plan.parameters
    assert plan.flops > 0 and plan.memory > 0
    train(recipe, tmp_path / "run")
    again = plan_pretraining(recipe)
    assert again.cache is not None and again.cache.missing == 0 and again.flops < plan.flops


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["loss.entity.enabled=true"], "need groups: set model.aligned.grouping"),
        (["data.held_out=0"], "needs photos that are not trained on"),
        (["data.photos=100"], "40 photos, fewer than"),
        (["data.accumulation=2"], "data.accumulation is for the paper's model"),
        (["train.overlays_every=5"], "train.overlays_every is for the paper's model"),
        (['data.shards=["a.tar"]', "schedule.max_steps=2"], "names .tar files"),
        ([*GROUPING, "data.captions=one"], "needs data.partners"),
        (["loss.contrastive.score=heads", "loss.structure.enabled=true"], "mean of the positions"),
    ],
)
def test_what_cannot_run_says_why(
    changes: list[str], message: str, photos: Path, tmp_path: Path
) -> None:
    with pytest.raises(OvsegError, match=message):
        pretrain(tiny("align-dinov2-s", photos, tmp_path / "cache", *changes), tmp_path / "run")


def test_unreadable_photos_are_counted(tmp_path: Path) -> None:
    data = make_scenes(tmp_path / "data", pairs=40, captions=2, bad=(3, 9))
    recipe = tiny("align-dinov2-s", data, tmp_path / "cache", "data.held_out=1", "data.views=1")
    outcome = pretrain(recipe, tmp_path / "run")
    assert 0 < outcome.unreadable <= 4
    lines = (tmp_path / "run" / "unreadable.jsonl").read_text().splitlines()
    assert len(lines) == outcome.unreadable and "not an image" in lines[0]
