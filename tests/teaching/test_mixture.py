"""The temperature makes odds as likely as they say, however sure a head is of itself."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ovseg.models.taught.scoring import taught_scores
from ovseg.teaching.closed_form import ABSENT
from ovseg.teaching.fitting import NO_HINTS, Fitting, assembled
from ovseg.teaching.lessons import Floats, Lesson
from ovseg.teaching.mixture import ALONE, HeldOutLogits, Mixture, doubted, fitted, mean_iou, worth
from ovseg.teaching.position_head import HiddenLayers
from ovseg.teaching.settings import TeachingSettings


@pytest.mark.parametrize("too_sure", [1.0, 4.0, 14.0])
def test_a_head_that_is_too_sure_is_cooled(too_sure: float) -> None:
    chance = np.random.default_rng(0)
    likely = chance.dirichlet((1.0, 1.0, 1.0), 4000).astype(np.float32)  # [N, C]
    true = (likely.cumsum(axis=1) < chance.random((4000, 1))).sum(axis=1)
    held_out = HeldOutLogits(
        linear=too_sure * np.log(likely),
        hidden=np.zeros_like(likely),
        priors=np.full(3, 1 / 3, np.float32),
        words=np.zeros((4000, 2), np.float32),
        shares=np.eye(3, dtype=np.float32)[true],
    )
    found = fitted([held_out], Mixture(linear=1.0), background=True)
    assert found.linear * found.temperature == pytest.approx(1 / too_sure, rel=0.2)


def test_words_that_know_better_than_masks_are_left_to_decide() -> None:
    chance = np.random.default_rng(1)
    true = chance.integers(3, size=2000)
    shares = np.eye(3, dtype=np.float32)[true]
    held_out = HeldOutLogits(
        linear=chance.normal(0, 200, (2000, 3)).astype(np.float32),
        hidden=chance.normal(0, 2, (2000, 3)).astype(np.float32),
        priors=np.full(3, 1 / 3, np.float32),
        words=4 * shares[:, 1:] - 2,
        shares=shares,
    )
    for start in (ALONE, Mixture()):
        assert mean_iou([held_out], fitted([held_out], start, True), True) > 0.95


def _three_columns(trained: int, told: list[float], words: list[list[float]]) -> HeldOutLogits:
    """Positions of which a head says the same, trained on the first classes; words differ."""
    count = len(words)
    linear = np.full((count, 3), ABSENT, np.float32)
    linear[:, : 1 + trained] = told
    return HeldOutLogits(
        linear, np.zeros((count, 3), np.float32), np.full(3, 1 / 3, np.float32),
        np.float32(words), np.zeros((count, 3), np.float32),
    )  # fmt: skip


@pytest.mark.parametrize("doubt", [0.0, 0.5, 2.0])
def test_held_out_positions_are_judged_as_segmenting_scores_them(doubt: float) -> None:
    """Of two classes the head was trained on the first; the second has its words alone."""
    chance = np.random.default_rng(2)
    words = chance.uniform(-5, 5, (500, 2)).astype(np.float32)
    linear = np.concatenate(
        [chance.normal(0, 2, (500, 2)), np.full((500, 1), ABSENT)], axis=1
    ).astype(np.float32)
    found = replace(_three_columns(1, [0, 0], words.tolist()), linear=linear)
    mixture = Mixture(linear=1.0, text=0.5, temperature=0.8, doubt=doubt)
    base = np.pad(1 / (1 + np.exp(-words)), ((0, 0), (1, 0)), constant_values=0.5)
    odds = 0.8 * (linear[:, 1:2] - linear[:, :1])
    classes = np.float32([[1, 1], [1, 0]])
    scores = taught_scores(
        base[None].astype(np.float32), odds[None], classes, 0.4, 0.5, doubt=doubt
    )
    np.testing.assert_array_equal(mixture.winners(found, True), scores[0].argmax(axis=1))


def test_words_of_untaught_classes_are_doubted_where_they_were_wrong_before() -> None:
    """Masks find the first class everywhere, words the second in half; they are right, or not."""
    words = [[0.0, -5.0]] * 50 + [[0.0, 4.0]] * 50
    found = _three_columns(1, [0.0, 3.0], words)
    doubts = []
    for contested in (2, 1):
        column = [0] * 2 + [1] * 48 + [contested] * 50
        held_out = replace(found, shares=np.eye(3, dtype=np.float32)[column])
        mixture = doubted([held_out], Mixture(linear=1.0), True)
        assert (mixture.winners(held_out, True)[50:] == contested).all()
        doubts.append(mixture.doubt)
    assert doubts[0] < doubts[1]


def test_classes_that_were_taught_play_untaught_where_no_others_do() -> None:
    """Masks know the first two classes, whose words are wrong wherever masks see the other one."""
    column = np.array([0] * 4 + [1] * 48 + [2] * 48)
    words = np.float32([[-5, -5]] * 4 + [[-1, 4]] * 48 + [[4, -1]] * 48)
    found = _three_columns(2, [0.0, 0.0, 0.0], words.tolist())
    shares = np.eye(3, dtype=np.float32)[column]
    found = replace(found, linear=3 * shares, shares=shares)
    assert doubted([found], Mixture(linear=1.0, text=0.1, doubt=0.0), True).doubt > 0


def test_a_flooded_background_is_no_gain() -> None:
    """Mean IoU alone would have the position head find a rare class, and another one all around."""
    column = [0] * 96 + [1] * 2 + [2] * 2
    hidden = 2 * np.eye(3, dtype=np.float32)[[1] * 98 + [2] * 2]
    found = replace(
        _three_columns(2, [0.0, -1.0, -1.0], [[0.0, 0.0]] * 100),
        hidden=hidden,
        shares=np.eye(3, dtype=np.float32)[column],
    )
    dry, flooded = Mixture(linear=1.0, hidden=0.0), Mixture(linear=1.0, hidden=1.0)
    assert mean_iou([found], flooded, True) > mean_iou([found], dry, True)
    assert worth([found], flooded, True) < worth([found], dry, True)


def test_classes_without_words_are_taken_to_say_what_others_say() -> None:
    """The first class is background, the second has words, and the third is unknown."""
    chance = np.random.default_rng(3)
    words = np.float32([0, -4, 0]) * np.ones((20, 1), np.float32)
    shares = np.eye(4, dtype=np.float32)[np.arange(20) % 4]
    lessons = [Lesson(chance.normal(size=(20, 6)).astype(np.float32), shares, words)] * 3
    settings = TeachingSettings(hidden=0)
    fitting = Fitting(3, lessons.__getitem__, settings, True, lambda *_: None, stuff=(0,))
    assert fitting.ground().unknown.tolist() == [0, 0, -4]
    found = fitting.fit()
    plain = Fitting(3, lessons.__getitem__, settings, True, lambda *_: None, stuff=(0, 2)).ground()
    layers = fitting.closed_form(plain, None, NO_HINTS)
    head = assembled(layers, plain, found.mixture, True)
    less = found.head.bias - head.bias
    assert less == pytest.approx([0, 0, 0, -4 * found.text])


def test_a_head_is_trained_no_longer_than_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the steps find the classes; with all of them this head would know nothing."""
    taken: list[int] = []

    def train(values: Floats, shares: Floats, *told: Any) -> HiddenLayers:
        settings = told[2]
        taken.append(settings.steps)
        none = HiddenLayers.none(values.shape[1], shares.shape[1])
        return none._replace(outer_bias=np.float32([0, 3, 0] if settings.steps > 5 else [0, 0, 3]))

    monkeypatch.setattr("ovseg.teaching.fitting.train_head", train)
    chance = np.random.default_rng(4)
    shares = np.eye(3, dtype=np.float32)[[2] * 18 + [0, 1]]
    lessons = [
        Lesson(
            chance.normal(size=(20, 4)).astype(np.float32), shares, np.zeros((20, 2), np.float32)
        )
        for _ in range(2)
    ]
    settings = TeachingSettings(hidden=4, steps=10, folds=2, shrinkage=1.0)
    found = Fitting(2, lessons.__getitem__, settings, True, lambda *_: None).fit()
    assert taken == [5, 5, 10, 10] + [5] * (found.mixture.hidden > 0)
