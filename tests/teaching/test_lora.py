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
from ovseg.models.taught.factors import Factors
from ovseg.models.taught.file import read_note, write_taught
from ovseg.models.taught.low_rank import merged, require_tunable, weights_of
from ovseg.models.tensor_files import read_arrays
from ovseg.teaching import tower_updates
from ovseg.teaching.fitting import Fitting
from ovseg.teaching.lessons import Curriculum, Lesson, LessonStore, Teacher
from ovseg.teaching.mixture import ALONE
from ovseg.teaching.settings import TeachingSettings
from ovseg.teaching.tower_training import crop_loss, train_updates
from ovseg.teaching.tower_updates import AS_IT_IS, UPDATED, TowerUpdating
from ovseg_cli.__main__ import run
from tests.models.aligned.tiny import write_tiny
from tests.teaching.photos import painted, painted_set
from tests.teaching.updates import with_updates

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


def test_a_tower_learns_what_helps_on_other_photos(base: str, folder: Path, tmp_path: Path) -> None:
    settings = TeachingSettings(hidden=0, folds=2, lora=4, lora_steps=30, lora_rate=1e-2)
    curriculum = Curriculum.of(open_set("folder", folder), None)
    teacher = Teacher(load_model(base, "cpu"), curriculum)
    store = LessonStore(tmp_path, curriculum.evaluated.samples, Lesson)
    store.make(teacher, lambda *_: None)
    fitting = Fitting(4, store.read, settings, True, lambda *_: None)
    ground = fitting.ground()
    head = TowerUpdating(fitting, store, teacher)._start(ground, ground.total, ALONE)
    told: list[tuple[int, int]] = []
    learned = [
        train_updates(teacher, store.samples, head, settings, lambda *step: told.append(step))
        for _ in range(2)
    ]
    assert told == [*[(step + 1, 30) for step in range(30)] * 2]
    for name, factors in learned[0].items():  # by its seed
        np.testing.assert_array_equal(factors.up, learned[1][name].up)
    unseen = open_set("folder", painted_set(tmp_path / "unseen", range(10, 14)))
    judge = Teacher(teacher.model, replace(curriculum, evaluated=unseen))
    model = require_tunable(teacher.model)

    def loss() -> float:
        chance = np.random.default_rng(1)
        said = _fixed(model, head)
        losses = [crop_loss(model, judge, each, said, chance) for each in unseen.samples * 3]
        return float(sum(each.detach() for each in losses)) / len(losses)

    before = loss()
    with merged(model.tower, learned[0]):
        assert loss() < 0.9 * before
    assert loss() == before


def _fixed(model, head):  # type: ignore[no-untyped-def]
    spread = [model.from_numpy(each) for each in (head.spread.mean, head.spread.deviation)]
    linear, bias = model.from_numpy(head.linear), model.from_numpy(head.bias)
    return lambda seen: ((seen - spread[0]) / spread[1]).clamp(-5, 5) @ linear + bias


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


def test_a_named_base_is_updated_when_it_is_loaded(folder: Path, tmp_path: Path) -> None:
    plain, path = tmp_path / "plain.safetensors", tmp_path / "mine.safetensors"
    ovseg.teach("starter", folder, plain, hidden=0, folds=2, limit=2)
    updates = with_updates(plain, path)
    loaded = load_model(path, "cpu")
    assert isinstance(loaded.base, StarterModel)
    pixels = loaded.from_numpy(np.zeros((1, 3, 64, 64), np.float32) + 0.3)
    starter = StarterModel()
    with merged(starter.tower, updates):
        wanted = starter.encode_image(pixels).stages
    np.testing.assert_array_equal(loaded.base.encode_image(pixels).stages, wanted)
    assert not np.array_equal(starter.encode_image(pixels).stages, wanted)
    arrays = read_arrays(path)[0]
    name = next(iter(weights_of(starter.tower)))
    head = load_model(plain).taught.head
    wrong = {**updates, name: Factors(updates[name].up[:-1], updates[name].down)}
    other = tmp_path / "wrong.safetensors"
    write_taught(other, read_note(plain), head, None, wrong)
    with pytest.raises(ModelError, match=rf"wrong\.safetensors: the update of {name} is of"):
        load_model(other)
    assert len(arrays) == 8 + 2 * len(updates)
