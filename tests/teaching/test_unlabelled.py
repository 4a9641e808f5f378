"""Photos without masks: which place is which, what is sure enough, and whether they help."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import ovseg
from ovseg.errors import DataError, UsageError
from ovseg.evaluation.sets.catalogue import open_set
from ovseg.models.taught.file import read_note
from ovseg.teaching.fitting import Fitted, Fitting
from ovseg.teaching.lessons import Curriculum, Lesson, LessonStore
from ovseg.teaching.mixture import HeldOutLogits, Mixture
from ovseg.teaching.pseudo_labels import PRECISIONS, calibrated, guess, one_hot, taken
from ovseg.teaching.semi_supervised import WITH_THEM, SemiSupervised
from ovseg.teaching.settings import TeachingSettings
from ovseg.teaching.unlabelled import (
    UnlabelledLesson,
    UnlabelledTeacher,
    photos_without_masks,
)
from ovseg.teaching.worth import WORTH_IT
from ovseg_cli.__main__ import run
from tests.evaluation.fakes import FakeModel
from tests.evaluation.sets.tiny import photo
from tests.inference.fakes import ColourModel
from tests.models.aligned.tiny import write_tiny
from tests.teaching.photos import painted, painted_set


def _gradient(rows: int, columns: int) -> np.ndarray:
    """A photo whose red tells the row and whose green the column."""
    down, right = np.mgrid[:rows, :columns]
    return np.stack([down * 255 // rows, right * 255 // columns, 0 * down], axis=2).astype(np.uint8)


def test_twins_show_the_same_place(tmp_path: Path) -> None:
    curriculum = Curriculum.of(open_set("folder", painted_set(tmp_path / "set", [0])), None)
    for number in range(6):  # mirrored or not, of other places
        photo(tmp_path / f"more/{number}.png", _gradient(64, 96))
    samples, left_out = photos_without_masks(tmp_path / "more", curriculum.evaluated.samples)
    assert (len(samples), sum(left_out.values())) == (6, 0)
    store = LessonStore(tmp_path / "lessons", samples, UnlabelledLesson)
    store.make(UnlabelledTeacher(ColourModel(), curriculum), lambda *_: None)
    for lesson in map(store.read, range(6)):
        assert not lesson.shares.any() and lesson.twins.min() >= 0
        apart = np.abs(lesson.part - lesson.seen[lesson.twins])[:, :2]
        assert apart.max() < 1 / 4 and apart.mean() < 1 / 12  # of sides of 4 to 6 cells


def test_groups_have_twins_too(tmp_path: Path) -> None:
    curriculum = Curriculum.of(open_set("folder", painted_set(tmp_path / "set", [0])), None)
    photo(tmp_path / "more/1.png", painted(1)[0])
    samples, _ = photos_without_masks(tmp_path / "more", ())
    ((_, lesson, _),) = UnlabelledTeacher(FakeModel(grouped=True), curriculum).lessons(samples)
    assert isinstance(lesson, UnlabelledLesson)
    assert len(lesson.twins) == len(lesson.part) and lesson.twins.max() < len(lesson.seen)


def test_what_is_left_out_is_counted(tmp_path: Path) -> None:
    labelled = open_set("folder", painted_set(tmp_path / "set", range(2))).samples
    photo(tmp_path / "more/deep/copy.png", painted(1)[0])
    (tmp_path / "more/broken.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match="1 have masks, 1 cannot be read"):
        photos_without_masks(tmp_path / "more", labelled)
    photo(tmp_path / "more/new.png", painted(5)[0])
    samples, left_out = photos_without_masks(tmp_path / "more", labelled)
    assert [each.name for each in samples] == ["new"]
    assert left_out == {"have masks": 1, "cannot be read": 1}
    with pytest.raises(DataError, match="no such folder"):
        photos_without_masks(tmp_path / "gone", labelled)


def test_bars_are_where_held_out_positions_were_right() -> None:
    """Class 1 is right where its logit exceeds 2; class 2 is a coin's toss."""
    random = np.random.default_rng(0)
    count = 2000
    logits = np.zeros((count, 3), np.float32)
    truth = np.zeros(count, np.int64)
    strength = random.uniform(0.5, 4, count)
    first = np.arange(count) % 2 == 0
    logits[first, 1], logits[~first, 2] = strength[first], strength[~first]
    truth[first] = np.where(strength[first] > 2, 1, random.integers(0, 2, first.sum()))
    truth[~first] = np.where(random.random((~first).sum()) < 0.5, 2, 0)
    shares = np.eye(3, dtype=np.float32)[truth]
    words = np.zeros((count, 2), np.float32)
    fold = HeldOutLogits(logits, 0 * logits, np.full(3, 1 / 3, np.float32), words, shares)
    bars = calibrated([fold], Mixture(linear=1, text=0), background=True)
    levels = [PRECISIONS.index(share) for share in (0.95, 0.9, 0.8)]
    assert bars[levels[0]][1] > bars[levels[1]][1] > bars[levels[2]][1]
    assert all(np.isinf(each[2]) for each in bars)  # never as precise as 70 %
    guessed = guess(logits, True)
    chosen = taken(guessed, bars[levels[1]])
    assert 0.9 <= shares[chosen, 1].mean() < 0.93 and not chosen[~first].any()
    assert one_hot(guessed, chosen, 3).sum(axis=1).tolist() == chosen.tolist()


def _worlds(seen: int, photos: int, each: int, seed: int) -> list[Lesson]:
    """Lessons of three columns that differ a little along every direction."""
    random = np.random.default_rng(seed)
    means = np.random.default_rng(7).normal(0, 0.55, (3, seen))
    lessons = []
    for _ in range(photos):
        truth = random.integers(0, 3, each)
        values = (means[truth] + random.normal(0, 1, (each, seen))).astype(np.float32)
        shares = np.eye(3, dtype=np.float32)[truth]
        lessons.append(Lesson(values, shares, np.zeros((each, 2), np.float32)))
    return lessons


def _without_masks(lesson: Lesson, seed: int) -> UnlabelledLesson:
    noise = np.random.default_rng(seed).normal(0, 0.3, lesson.seen.shape).astype(np.float32)
    twins = np.arange(len(noise), dtype=np.int32)
    return UnlabelledLesson(
        lesson.seen, 0 * lesson.shares, lesson.words, lesson.seen + noise, twins
    )


@pytest.mark.parametrize("hidden", [0, 16])
def test_many_photos_without_masks_help_a_few_with_masks(hidden: int) -> None:
    few = _worlds(40, photos=6, each=18, seed=1)
    many = [_without_masks(each, n) for n, each in enumerate(_worlds(40, 8, 200, seed=2))]
    settings = TeachingSettings(hidden=hidden, steps=60, batch=128, folds=3)
    plain = Fitting(len(few), few.__getitem__, settings, True, lambda *_: None)
    found, worth = SemiSupervised(plain, len(many), many.__getitem__).fit()
    assert worth.used and worth.miou_with > worth.miou_without + 0.01
    assert 0.1 < worth.taken <= 1 and worth.photos == 8
    assert found.scores[WITH_THEM] == worth.miou_with
    assert found.scores["all"] == plain.fit().scores["all"] == worth.miou_without
    unseen = _worlds(40, 4, 200, seed=3)

    def right(fitted: Fitted) -> float:
        guessed = [fitted.head.logits(each.seen[None])[0].argmax(axis=1) for each in unseen]
        return float(np.mean([
            each.shares[np.arange(200), columns].mean()
            for each, columns in zip(unseen, guessed, strict=True)
        ]))  # fmt: skip

    assert right(found) > right(plain.fit()) + 0.01


def test_photos_of_another_world_are_not_used() -> None:
    few = _worlds(12, photos=6, each=60, seed=1)
    random = np.random.default_rng(0)
    other = [
        replace(each, seen=random.normal(0, 3, each.seen.shape).astype(np.float32)) for each in few
    ]
    strange = [_without_masks(each, n) for n, each in enumerate(other)]
    settings = TeachingSettings(hidden=0)
    plain = Fitting(len(few), few.__getitem__, settings, True, lambda *_: None)
    found, worth = SemiSupervised(plain, len(strange), strange.__getitem__).fit()
    assert not worth.used and worth.miou_with < worth.miou_without + WORTH_IT
    alone = plain.fit()
    assert found.mixture == alone.mixture
    np.testing.assert_array_equal(found.head.linear, alone.head.linear)


def test_the_file_says_what_they_were_worth(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = painted_set(tmp_path / "set", range(3))
    for seed in (0, 20, 21):
        photo(tmp_path / f"more/{seed}.png", painted(seed)[0])
    base = str(write_tiny(tmp_path / "base.safetensors"))
    settings = {"unlabelled": tmp_path / "more", "hidden": 8, "steps": 5, "folds": 2}
    done = ovseg.teach(base, folder, tmp_path / "mine.safetensors", **settings)
    assert done.unlabelled["photos"] == 2 and done.unlabelled["left_out"]["have masks"] == 1
    assert done.held_out[WITH_THEM] == done.unlabelled["miou_with"]
    note = read_note(tmp_path / "mine.safetensors")
    assert note.data["unlabelled"] == done.unlabelled
    assert note.held_out["mIoU"] == done.held_out
    with pytest.raises(UsageError, match="two with masks"):
        ovseg.teach(base, folder, tmp_path / "x.safetensors", limit=1, **settings)
    again = ["teach", base, "--data", str(folder), "--unlabelled", str(tmp_path / "more")]
    again += ["-o", str(tmp_path / "again.safetensors"), "--hidden", "0"]
    capsys.readouterr()
    assert run(again) == 0
    out = capsys.readouterr().out
    assert WITH_THEM in out
    assert "2 photos without masks: not used" in out and "left out: 1 have masks" in out
