"""The training transform: repeatable, in bounds, and safe with the libraries installed."""

import random

import numpy as np
import pytest

from ovseg.config.schema import AugmentationConfig
from ovseg.errors import RecipeError
from ovseg.training.feed.augmentation import Augmentation, augmentation_of, self_check

PAPER = "rand-m9-mstd0.5-inc1"


def image(height: int = 60, width: int = 90) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)


@pytest.mark.parametrize("policy", ["", PAPER])
def test_the_seed_decides_everything_and_nothing_outside_changes(policy: str) -> None:
    augment = Augmentation(32, policy=policy, erasing=1.0)
    random.seed(1)
    np.random.seed(1)
    outside = random.getstate(), np.random.get_state()[1].tolist()
    first, again, other = (augment(image(), seed) for seed in (5, 5, 6))
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    assert first.shape == (32, 32, 3) and first.dtype == np.uint8
    assert (random.getstate(), np.random.get_state()[1].tolist()) == outside


def test_crops_cover_the_share_they_should() -> None:
    augment = Augmentation(32, crop_scale=(0.4, 1.0), policy="")
    choose = np.random.default_rng(0)
    shares = []
    for _ in range(300):
        top, left, height, width = augment._box(60, 90, choose)
        assert 0 <= top <= 60 - height and 0 <= left <= 90 - width
        shares.append(height * width / 5400)
        assert 0.7 < width / height < 1.4
    assert min(shares) > 0.37 and max(shares) > 0.8


def test_a_shape_that_no_crop_fits_takes_the_middle() -> None:
    augment = Augmentation(32, crop_scale=(1.0, 1.0), policy="")
    assert augment._box(10, 100, np.random.default_rng(0)) == (0, 43, 10, 13)


def test_flips_and_nothing_else() -> None:
    augment = Augmentation(32, (1.0, 1.0), (1.0, 1.0), 1.0, 0.0, "", 0.0)
    square = image(32, 32)
    assert np.array_equal(augment(square, 0), square[:, ::-1])


def test_erased_pixels_are_noise_round_the_mean() -> None:
    plain = Augmentation(64, (1.0, 1.0), (1.0, 1.0), 0.0, 0.0, "", 0.0)
    erased = Augmentation(64, (1.0, 1.0), (1.0, 1.0), 0.0, 0.0, "", 1.0)
    constant = np.zeros((64, 64, 3), np.uint8)
    changed = [(erased(constant, s) != plain(constant, s)).any(2).mean() for s in range(40)]
    assert min(changed) > 0.015 and max(changed) < 0.34


def test_the_papers_policy_works_with_the_libraries_installed() -> None:
    augment = augmentation_of(AugmentationConfig(), 32)
    assert self_check(augment) == []
    for seed in range(60):
        augment(image(), seed)


def test_posterize_at_the_highest_magnitude_keeps_a_bit() -> None:
    augment = Augmentation(32, policy="rand-m10-inc1")
    operations = [op for op in augment.policy.ops if op.name.startswith("Posterize")]
    assert operations
    from PIL import Image

    operations[0].prob = 1.0
    assert np.asarray(operations[0](Image.fromarray(image()))).max() == 128


def test_the_check_finds_an_operation_that_crashes() -> None:
    augment = Augmentation(32, policy=PAPER)

    def crash(*arguments: object, **options: object) -> None:
        raise ValueError("not today")

    augment.policy.ops[0].aug_fn = crash
    name = augment.policy.ops[0].name
    assert self_check(augment) == [f"{name} at magnitude 0: not today"]


def test_an_unknown_policy_is_an_error_of_the_recipe() -> None:
    with pytest.raises(RecipeError, match=r"augmentation\.rand_augment"):
        Augmentation(32, policy="rand-q9")
