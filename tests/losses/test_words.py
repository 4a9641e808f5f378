"""Words that captions do not name, and how often they name the others."""

import math

import pytest
import torch

from ovseg.losses.words import frequency_offsets, surely_absent

PRESENT = torch.tensor([[True, False, False, False], [False, True, False, False]])
SCORES = torch.tensor([[0.9, 0.1, 0.8, 0.3], [0.2, 0.9, 0.4, 0.6]])
TEXTS = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 0.3], [-1.0, -1.0]])  # word 2 is like word 0


def absent(how: str, left_out: float = 0.4) -> list[list[bool]]:
    return surely_absent(PRESENT, SCORES, TEXTS, how, 0.9, left_out).tolist()


def test_every_word_that_is_missing_is_wrong() -> None:
    assert absent("negative") == (~PRESENT).tolist()


def test_words_like_a_named_one_are_left_out() -> None:
    assert absent("similar") == [[False, True, False, True], [True, False, True, True]]


def test_the_likeliest_are_left_out() -> None:
    # 40 % of three missing words is one: word 2 of the first photo, word 3 of the second.
    assert absent("top") == [[False, True, False, True], [True, False, True, False]]
    assert absent("top", 0.0) == (~PRESENT).tolist()


def test_offsets_are_logarithms_of_smoothed_shares() -> None:
    offsets = frequency_offsets(torch.tensor([3, 0]), 2.0)
    expected = [2 * math.log(4 / 5), 2 * math.log(1 / 5)]
    assert offsets.tolist() == pytest.approx(expected, rel=1e-6)
    assert frequency_offsets(torch.tensor([3, 0]), 0.0).tolist() == [0, 0]
