"""Recipes and switches through the real training loop."""

import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ovseg.config.load import load_recipe
from ovseg.config.schema import Recipe, ScheduleConfig
from ovseg.training.run import train
from tests.models.clip.tiny import write_folder
from tests.training.runs import log_of, recipe

TINY_CLIP = (
    "model.embedding_width=8",
    "model.projector_width=16",
    "model.entity.heads=2",
    "model.image.width=32",
    "model.image.heads=2",
    "model.image.depths=[1,1]",
    "model.image.image_size=32",
    "model.image.group_tokens=8",
    "model.image.groups=4",
    "model.text.encoder=",
    "model.text.tokenizer=bytes",
    "model.text.architecture=bert",
    "model.text.width=32",
    "model.text.depth=1",
    "model.text.heads=2",
    "model.text.mlp_width=32",
    "model.text.vocab_size=261",
    "model.text.max_positions=64",
    "model.text.max_tokens=64",
    "schedule.max_steps=30",
    "schedule.warmup_epochs=0.0",
    "schedule.reference_batch=16",
    "schedule.learning_rate=3e-3",
    "data.batch_size=16",
    "data.workers=0",
    "augmentation.rand_augment=",
    "augmentation.color_jitter=0.0",
    "augmentation.erasing=0.0",
    "train.precision=fp32",
    "train.log_every=1",
    "train.save_every=0",
    "train.overlays_every=0",
    "train.tracker=none",
    "train.evaluate_on=",
)


def test_grouping_is_trained_on_a_clip_tower_that_stays_as_it_is(
    scenes: Path, tmp_path: Path
) -> None:
    tower = f"model.image.init=clip:{write_folder(tmp_path / 'clip')}"
    target = load_recipe("clip-groups", [*TINY_CLIP, tower, f'data.shards=["{scenes}"]'])
    before = train(target.model_copy(update={"schedule": _one_step(target)}), tmp_path / "one")
    after = train(target, tmp_path / "run")
    first, last = (load_file(each.output / "last.safetensors") for each in (before, after))
    frozen = [name for name in first if ".tower." in name or name.startswith("text_encoder.")]
    assert any(".tower." in name for name in frozen)
    assert all(torch.equal(first[name], last[name]) for name in frozen)
    assert not torch.equal(first["image_encoder.group_tokens"], last["image_encoder.group_tokens"])
    losses = [line["contrastive"] for line in log_of(after.output)]
    assert sum(losses[-5:]) < 0.97 * sum(losses[:5])


def _one_step(target: Recipe) -> ScheduleConfig:
    return target.schedule.model_copy(update={"max_steps": 1})


@pytest.mark.slow
@pytest.mark.skipif(
    not any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "clang++")),
    reason="torch.compile needs a C++ compiler",
)
def test_compiled_equals_eager(scenes: Path, tmp_path: Path) -> None:
    """The same losses but for rounding; masks are left out, whose hard choices magnify it.

    Compiled code draws noise of its own (drop path, dropout, Gumbel) unless told to use eager's.
    """
    from torch._inductor import config

    changes = ("schedule.max_steps=4", "loss.mask.enabled=false")
    runs = [train(recipe(scenes, *changes), tmp_path / "eager")]
    torch.compiler.reset()
    with config.patch(fallback_random=True):
        compiling = recipe(scenes, *changes, "train.compile=true")
        runs.append(train(compiling, tmp_path / "compiled"))
    eager, compiled = (log_of(each.output) for each in runs)
    for ours, expected in zip(compiled, eager, strict=True):
        for name in ("contrastive", "entity", "gradient_norm"):
            assert ours[name] == pytest.approx(expected[name], rel=2e-3), (name, ours["step"])
