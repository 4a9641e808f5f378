"""The built-in model with one thing changed, as it is measured."""

from dataclasses import replace

import numpy as np
import torch

from ovseg.models.interface import GroupedImage
from ovseg.models.starter.model import StarterModel
from tools.starter_variants import VARIANTS, variant


def test_a_variant_changes_one_thing() -> None:
    shipped = StarterModel()
    for name, changes in VARIANTS.items():
        assert set(changes) <= {"threshold", "odds", "trust", *vars(shipped.reader.rule)}, name
    changed = variant("rounds-7")
    assert changed.reader.rule == replace(shipped.reader.rule, rounds=7)
    assert changed.threshold == shipped.threshold
    assert shipped.card.content_hash and not changed.card.content_hash, "no cache mixes them up"
    assert variant("threshold-0.4").threshold == 0.4


def test_odds_are_those_of_the_probabilities() -> None:
    shipped, odds = StarterModel(), variant("odds")
    positions = torch.rand(1, 4, shipped.words.width).repeat(1, 9, 1)
    grouped = GroupedImage(positions, (6, 6))
    words = shipped.encode_text(["dog", "sky"], shipped.templates)
    likely = shipped.score(grouped, words, 0.5)
    assert (likely[..., 1:] > 0).any()
    assert torch.allclose(odds.score(grouped, words, 0.5), likely / (1 - likely))
    assert odds.score(grouped, words, None)[..., 0].isneginf().all()


def test_captions_can_be_trusted_about_all_words_alike() -> None:
    even, shipped = variant("even-trust").words, StarterModel().words
    first = len(shipped.classes)
    for word in ("dog", "zebra"):
        changed, kept = even.embedding(word), shipped.embedding(word)
        around = slice(first + shipped.captions, None)
        assert np.array_equal(changed[:first], kept[:first])
        assert np.array_equal(changed[around], kept[around])
        assert changed[first + shipped.captions - 1] == np.float32(0.6)
