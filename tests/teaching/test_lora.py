"""Updates of the tower: what they learn, whether they are used, and the file that holds them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import ovseg
from ovseg.errors import ModelError, UsageError
from ovseg.evaluation.sets.catalogue import open_set
from ovseg.models.description import describe
from ovseg.models.registry import load_model
from ovseg.models.starter.model import StarterModel
from ovseg.models.taught.factors import Factors, Updates, digest_of
from ovseg.models.taught.file import TeachingNote, base_hash, read_note, write_taught
from ovseg.models.taught.head import LearnedHead
from ovseg.models.taught.low_rank import merged, require_tunable
from ovseg.models.taught.taught_model import TaughtModel
from ovseg.models.tensor_files import read_arrays
from ovseg.teaching import tower_updates
from ovseg.teaching.fitting import Fitting
from ovseg.teaching.lessons import Curriculum, Lesson, LessonStore, Teacher
from ovseg.teaching.mixture import ALONE
from ovseg.teaching.settings import TeachingSettings
from ovseg.teaching.tower_training import train_updates
from ovseg.teaching.tower_updates import AS_IT_IS, UPDATED, TowerUpdating
from ovseg_cli.__main__ import run
from tests.models.aligned.tiny import write_tiny
from tests.models.clip.tiny import write_folder
from tests.teaching.photos import painted, painted_set
from tests.teaching.updates import random_updates

QUICK = {"hidden": 0, "folds": 2, "lora": 2, "lora_steps": 4, "lora_batch": 2}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_tiny(tmp_path_factory.mktemp("base") / "base.safetensors"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return painted_set(tmp_path_factory.mktemp("set"), range(4))


@pytest.fixture
def welcome(monkeypatch: pytest.MonkeyPatch) -> None:
    """Updates are used whatever they gain."""
    monkeypatch.setattr(tower_updates, "is_worth_it", lambda *_: True)


def test_a_tower_learns_what_helps_on_other_photos(folder: Path, tmp_path: Path) -> None:
    settings = TeachingSettings(
        hidden=0, folds=2, lora=4, lora_steps=20, lora_batch=2, lora_rate=1e-2
    )
    curriculum = Curriculum.of(open_set("folder", folder), None)
    teacher = Teacher(load_model(f"clip:{write_folder(tmp_path / 'clip')}", "cpu"), curriculum)
    store = LessonStore(tmp_path, curriculum.evaluated.samples, Lesson)
    store.make(teacher, lambda *_: None)
    fitting = Fitting(4, store.read, settings, True, lambda *_: None)
    ground = fitting.ground()
    head = TowerUpdating(fitting, store, teacher)._start(ground, ground.total, ALONE)
    told: list[tuple[int, int]] = []

    def learned(settings: TeachingSettings) -> Updates:
        return train_updates(
            teacher, store.samples, head, settings, lambda *step: told.append(step)
        )

    updates = learned(settings)
    assert told == [(step + 1, 20) for step in range(20)]
    unseen = open_set("folder", painted_set(tmp_path / "unseen", range(10, 12)))
    judge = Teacher(teacher.model, replace(curriculum, evaluated=unseen))
    before = _surprise(store, judge, settings)
    with merged(require_tunable(teacher.model).tower, updates):
        changed = replace(store, folder=tmp_path / "changed")
        changed.make(teacher, lambda *_: None)
        assert _surprise(changed, judge, settings) < 0.95 * before
    short = replace(settings, lora_steps=2)
    first, second = learned(short), learned(short)  # by their seed
    assert digest_of(first) == digest_of(second)


def _surprise(store: LessonStore[Lesson], judge: Teacher, settings: TeachingSettings) -> float:
    """Cross entropy of a closed form of lessons on the photos of a judge."""
    fitting = Fitting(len(store.samples), store.read, settings, True, lambda *_: None)
    ground = fitting.ground()
    linear, bias = ground.total.discriminant(settings.shrinkage)
    total, count = 0.0, 0.0
    for _, lesson, _ in judge.lessons(judge.curriculum.evaluated.samples):
        logits = ground.spread.standardised(lesson.seen) @ linear + bias
        likely = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        total -= float((lesson.shares * likely).sum())
        count += float(lesson.shares.sum())
    return total / count


@pytest.mark.usefixtures("welcome")
def test_updates_are_in_the_file_and_taken_up_after_an_interruption(
    base: str, folder: Path, tmp_path: Path
) -> None:
    """What was learned before is not learned again, and the result is the same."""
    whole, mine = tmp_path / "whole.safetensors", tmp_path / "mine.safetensors"
    done = ovseg.teach(base, folder, whole, **QUICK)
    assert done.lora["used"] and done.lora["photos"] == 2
    assert done.held_out[AS_IT_IS] == done.lora["miou_without"]
    assert done.held_out[UPDATED] == done.lora["miou_with"]

    class Killed(Exception):
        pass

    def stop(step: str, number: int, total: int | None) -> None:
        if step == "reading with the tower updated" and number == 3:
            raise Killed

    with pytest.raises(Killed):
        ovseg.teach(base, folder, mine, on_step=stop, **QUICK)
    with pytest.raises(UsageError, match="other photos, classes or settings"):
        ovseg.teach(base, folder, mine, resume=True, **{**QUICK, "lora": 3})
    steps: list[str] = []
    again = ovseg.teach(
        base, folder, mine, resume=True, on_step=lambda step, *_: steps.append(step), **QUICK
    )
    assert steps.count("updating the tower") == 4  # on all photos
    assert steps.count("reading with the tower updated") == 1 + 4
    assert again.lora == done.lora
    first, second = (read_arrays(path)[0] for path in (whole, mine))
    assert set(first) == set(second)
    assert all(np.array_equal(first[key], second[key]) for key in first)
    note = read_note(mine)
    assert note.format == 2 and note.data["lora"] == done.lora
    assert describe(str(mine))["model"]["recipe"]["settings"]["lora"] == 2
    assert not list(tmp_path.glob("*.teaching"))
    found = ovseg.segment(painted(12)[0], ["zonk", "blop", "cat"], mine)
    assert found.labels.shape == (96, 96)


def test_what_gains_nothing_is_not_used(
    base: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain, mine = tmp_path / "plain.safetensors", tmp_path / "mine.safetensors"
    ovseg.teach(base, folder, plain, hidden=0, folds=2)
    asked = ["teach", base, "--data", str(folder), "-o", str(mine), "--hidden", "0", "--folds", "2"]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(tower_updates, "is_worth_it", lambda *_: False)
        patched.setattr(TeachingSettings.__init__, "__defaults__", _few_steps())
        assert run([*asked, "--lora", "2"]) == 0
    told = capsys.readouterr().out
    assert "updates of the tower of rank 2: not used: " in told
    assert "on 2 photos that were held out" in told
    first, second = (read_arrays(path)[0] for path in (plain, mine))
    assert set(first) == set(second)
    assert all(np.array_equal(first[key], second[key]) for key in first)
    assert read_note(mine).format == 1


def _few_steps() -> tuple[object, ...]:
    names = list(TeachingSettings.__dataclass_fields__)
    values = list(TeachingSettings.__init__.__defaults__ or ())
    values[names.index("lora_steps")] = 2
    return tuple(values)


def test_refuses_what_cannot_be_had(base: str, folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "x.safetensors"
    with pytest.raises(UsageError, match="--lora and --unlabelled"):
        ovseg.teach(base, folder, output, unlabelled=folder / "images", lora=2)
    with pytest.raises(UsageError, match="two with masks at least"):
        ovseg.teach(base, folder, output, limit=1, lora=2)
    with pytest.raises(UsageError, match="a step at least"):
        ovseg.teach(base, folder, output, lora=2, lora_steps=0)


def test_a_named_base_is_updated_when_it_is_loaded(tmp_path: Path) -> None:
    path, wrong = tmp_path / "mine.safetensors", tmp_path / "wrong.safetensors"
    starter = StarterModel()
    updates = random_updates(starter.tower, 0.02)
    head = _flat_head(1032)
    note = TeachingNote("starter", base_hash("starter", starter), (("zonk",),), 0.1)
    write_taught(path, note, head, None, updates)
    loaded = load_model(path, "cpu")
    assert isinstance(loaded, TaughtModel) and isinstance(loaded.base, StarterModel)
    pixels = loaded.from_numpy(np.full((1, 3, 64, 64), 0.3, np.float32))
    before = starter.encode_image(pixels).stages
    with merged(starter.tower, updates):
        wanted = starter.encode_image(pixels).stages
    found = loaded.base.encode_image(pixels).stages
    np.testing.assert_array_equal(found, wanted)
    assert not np.array_equal(found, before)
    name = next(iter(updates))
    damaged = {**updates, name: Factors(updates[name].up[:-1], updates[name].down)}
    write_taught(wrong, note, head, None, damaged)
    with pytest.raises(ModelError, match=rf"wrong\.safetensors: the update of {name} is of"):
        load_model(wrong)


def _flat_head(seen: int) -> LearnedHead:
    """Of one class, which says nothing."""
    nothing = np.zeros((seen, 2), np.float32)
    units = np.zeros((seen, 0), np.float32)
    ends = np.zeros(2, np.float32), units, units[0], np.zeros((0, 2), np.float32)
    mean, one = nothing[:, 0], np.ones(1, np.float32)
    return LearnedHead(mean, mean + 1, nothing, *ends, one)
