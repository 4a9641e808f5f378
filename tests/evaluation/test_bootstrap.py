"""The bootstrap: against a plain loop, and on cases where the answer is known."""

import numpy as np
import pytest

from ovseg.evaluation.bootstrap import mean_iou_interval, paired_difference


def random_areas(images: int, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    common = generator.integers(0, 100, (images, 4))
    true = common + generator.integers(0, 50, common.shape)
    predicted = common + generator.integers(0, 50, common.shape)
    return np.stack([common, true, predicted], axis=-1)


def test_interval_equals_a_loop_over_resamples() -> None:
    areas = random_areas(30, seed=1)
    generator = np.random.default_rng(5)
    values = []
    for _ in range(200):
        drawn = generator.multinomial(30, np.full(30, 1 / 30))
        summed = sum(n * image for n, image in zip(drawn, areas, strict=True))
        common, true, predicted = summed.T
        values.append(np.mean(common / (true + predicted - common)))
    interval = mean_iou_interval(areas, resamples=200, seed=5)
    assert interval.low == pytest.approx(np.percentile(values, 2.5))
    assert interval.high == pytest.approx(np.percentile(values, 97.5))


def test_equal_images_leave_no_doubt() -> None:
    interval = mean_iou_interval(np.repeat(random_areas(1, seed=2), 20, axis=0))
    assert interval.low == pytest.approx(interval.high)


def test_a_run_differs_from_itself_by_nothing() -> None:
    areas = random_areas(30, seed=3)
    result = paired_difference(areas, areas)
    assert (result.value, result.interval.low, result.interval.high) == (0, 0, 0)
    assert result.p_value == 1


def test_pairing_finds_a_small_steady_gain() -> None:
    first = random_areas(50, seed=4)
    second = first.copy()
    second[..., 0] += 1  # one more right pixel of every class in every image
    second[..., 2] += 1
    second[..., 1] = np.maximum(second[..., 1], second[..., 0])
    result = paired_difference(first, second)
    assert 0 < result.interval.low < result.value < result.interval.high
    assert result.p_value == pytest.approx(1e-3)
    wide = mean_iou_interval(first)
    assert result.interval.high - result.interval.low < (wide.high - wide.low) / 5


def test_a_class_absent_everywhere_is_left_out() -> None:
    areas = random_areas(10, seed=6)
    padded = np.pad(areas, ((0, 0), (0, 1), (0, 0)))
    assert mean_iou_interval(padded) == mean_iou_interval(areas)
