"""How positions share what the classifier says of them, and what of it counts."""

import numpy as np
import pytest
import torch
from torch import Tensor

from ovseg.models.mixing import cosines
from ovseg.models.starter import reader
from ovseg.models.starter.captions import at_keys
from ovseg.models.starter.model import StarterModel
from ovseg.models.starter.reader import (
    EPSILON,
    Pairs,
    ReadingRule,
    alike,
    apart,
    evidence,
    finer,
    mixed,
    pulled,
)

RULE = ReadingRule()
KEYS = RULE.keys


def pull_of(features: Tensor, salience: Tensor | None = None) -> Pairs:
    """How places pull by their features and by a map of salience, none by default."""
    size = [2 * side for side in features.shape[-2:]]
    salience = features.new_zeros(1, 1, *size) if salience is None else salience
    return pulled(apart(salience, RULE), (RULE.sharpness, alike(features, KEYS)))


def test_places_pull_by_all_likenesses_less_what_keeps_them_apart() -> None:
    one, other, distance = (
        Pairs(torch.full((1, 2, 2), value), torch.full((1, 3, 2), value + 1))
        for value in (0.5, 0.25, 1.0)
    )
    found = pulled(distance, (4.0, one), (8.0, other))
    assert torch.equal(found.among, torch.full((1, 2, 2), 3.0))
    assert torch.equal(found.taken, torch.full((1, 3, 2), 14.0))


def test_objects_are_kept_apart_from_what_is_none() -> None:
    salience = torch.zeros(1, 1, 2 * KEYS, 2 * KEYS)
    salience[..., :KEYS] = 1.0  # the left half is an object
    object_, none = KEYS * (KEYS // 2), KEYS * (KEYS // 2) + KEYS - 1  # ends of a row
    for distance in apart(salience, RULE):
        assert distance[0, object_, none] == distance[0, none, object_] == RULE.apartness
        assert distance[0, object_, object_] == distance[0, none, none] == 0


def test_mixing_spreads_logits_among_like_positions() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.zeros(1, 2, KEYS, KEYS)
    half = KEYS // 2
    features[:, 0, :, :half], features[:, 1, :, half:] = 1.0, 1.0  # left and right look different
    logits = torch.randn(1, 3, KEYS, KEYS, generator=generator)
    found = mixed(at_keys(logits, KEYS), pull_of(features), RULE).reshape(KEYS, KEYS, 3)
    left, right = (part.mean(dim=(1, 2)) for part in logits[0].split(half, dim=2))
    assert torch.allclose(found[:, :half], left.expand(KEYS, half, 3), atol=1e-4)
    assert torch.allclose(found[:, half:], right.expand(KEYS, half, 3), atol=1e-4)


def test_mixing_is_rounds_of_averages() -> None:
    """The power of the shares among keys does what as many rounds do."""
    generator = torch.Generator().manual_seed(1)
    features, logits = (torch.rand(1, width, KEYS, KEYS, generator=generator) for width in (4, 3))
    pull = pull_of(features, torch.rand(1, 1, 2 * KEYS, 2 * KEYS, generator=generator))
    assert torch.allclose(pull.among, pull.taken, atol=1e-5)  # positions are the keys here
    expected = at_keys(logits, KEYS)
    for _ in range(RULE.rounds):  # so that the last round is like the others
        expected = pull.among.softmax(dim=-1) @ expected
    assert torch.allclose(mixed(at_keys(logits, KEYS), pull, RULE), expected, atol=1e-5)


def test_mixing_a_large_image_takes_no_square_of_its_positions() -> None:
    positions = 256 * 384  # of 4096x6144 pixels; their square in float32 would be 38 GB
    pull, found = pull_of(torch.randn(1, 4, 256, 384)), torch.randn(1, KEYS**2, 3)
    assert mixed(found, pull, RULE).shape == (1, positions, 3)
    assert [each.numel() for each in pull] == [KEYS**4, positions * KEYS**2]


def test_likenesses_are_cosines() -> None:
    """Of keys with each other too, though their products are taken from those of positions."""
    features = torch.randn(2, 5, 9, 12, generator=torch.Generator().manual_seed(0))
    found, common = alike(features, 4), features.mean(dim=(2, 3))[:, None]
    keys, positions = at_keys(features, 4) - common, features.flatten(2).mT - common
    torch.testing.assert_close(found.among, cosines(keys, keys))
    torch.testing.assert_close(found.taken, cosines(positions, keys))


def test_evidence_is_relative_to_the_image() -> None:
    logits = torch.full((1, 4, 5), -1e4)
    logits[0, :, 0] = torch.tensor([3.0, 5.0, 3.0, 5.0])  # energies: a mean of 4, a deviation of 1
    strong = 1 / (1 + np.exp(-RULE.contrast / (1 + EPSILON)))
    expected = [1 - strong, strong, 1 - strong, strong]
    assert evidence(logits, RULE.contrast)[0, :, 0].tolist() == pytest.approx(expected, abs=1e-5)
    assert torch.allclose(
        evidence(logits + 100, RULE.contrast), evidence(logits, RULE.contrast), atol=1e-4
    )
    assert evidence(torch.zeros(1, 4, 5), RULE.contrast).flatten().tolist() == pytest.approx(
        [0.5] * 4
    )


def test_enlarging_keeps_rows_and_columns() -> None:
    values = torch.arange(6.0).reshape(1, 6, 1)  # two rows of three
    found = finer(values, (4, 6)).reshape(4, 6)
    assert found[0, 0] == 0 and found[3, 5] == 5
    assert found[1, 0] == pytest.approx(0.75)  # a quarter of the way to the second row, 3
    assert found[0, 1] == pytest.approx(0.25)


def test_objects_count_by_how_they_stand_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steeply between a little and all, and what surrounds them the other way round."""
    model, pixels = StarterModel(), torch.zeros(1, 3, 64, 64)
    read = {}
    for salience in (0.0, 0.5, 1.0):
        constant = lambda x, s=salience: x.new_full((1, 1, 8, 8), s)  # noqa: E731
        monkeypatch.setattr(model.reader.saliency, "forward", constant)
        read[salience] = model.encode_image(pixels)
    for salience, found in read.items():
        assert found.weights is not None and found.weights.shape == (1, 64, 3)
        assert torch.allclose(found.embedding, read[1.0].embedding, atol=1e-4)
        rising, falling = RULE.floor + (1 - RULE.floor) * salience, 1 - (1 - RULE.floor) * salience
        things = rising**RULE.steepness
        expected = torch.tensor([things, RULE.alone * things, RULE.usual * falling])
        assert torch.allclose(found.weights, expected, atol=1e-6)


def test_a_sharpened_edge_has_more_contrast() -> None:
    pixels = torch.zeros(1, 3, 5, 6)
    pixels[..., 3:] = 0.9  # a blur takes 0.3 from one side of the edge to the other
    found = reader.sharpened(pixels, RULE.sharpening)
    steps = [0, 0, -0.3 * RULE.sharpening, 0.9 + 0.3 * RULE.sharpening, 0.9, 0.9]
    assert torch.allclose(found, torch.tensor(steps).expand(1, 3, 5, 6), atol=1e-6)


def test_the_two_scales_have_their_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is mixed are the logits of both scales, each by its share."""
    seen: list[Tensor] = []

    def remembering(found: Tensor, pull: Pairs, rule: ReadingRule) -> Tensor:
        seen.append(found)
        return mixed(found, pull, rule)

    monkeypatch.setattr(reader, "mixed", remembering)
    model = StarterModel()
    pixels = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(2)) * 2 - 1
    model.encode_image(pixels)
    with torch.inference_mode():
        half = reader.sharpened(torch.nn.functional.avg_pool2d(pixels, 2), RULE.sharpening)
        fine, coarse = (
            at_keys(model.network.classify(model.network.features(x)), KEYS) for x in (pixels, half)
        )
    expected = (1 - RULE.coarse_share) * fine + RULE.coarse_share * coarse
    assert torch.allclose(seen[0][..., : expected.shape[-1]], expected, atol=1e-3)
