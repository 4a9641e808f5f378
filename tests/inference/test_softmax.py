"""The shortcut for sums under a softmax, against all maps at once in float64."""

import numpy as np
import pytest
import torch

from ovseg.inference.labels import PixelRule, label_pixels
from ovseg.inference.maps import PositionMaps
from ovseg.inference.softmax import ERROR, log_sum_exp, log_sum_exp_at, nodes_needed
from tests.inference.test_grid import cosines, whole


def step(maps: np.ndarray) -> float:
    """Root mean square difference of neighbours."""
    return max(np.sqrt(np.square(np.diff(maps, axis=axis)).mean()) for axis in (0, 1))


@pytest.mark.parametrize("phrases", [40, 500])
@pytest.mark.parametrize("wanted", [0.3, 0.5, 1.0, 1.5, 2.0])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_log_sum_exp_keeps_its_error(phrases: int, wanted: float, seed: int) -> None:
    maps = cosines(phrases, seed=seed)
    scale = 0.999 * wanted / step(maps)
    shape = (190, 250)
    nodes = nodes_needed(maps, scale, shape)
    assert nodes is not None
    expected = np.log(np.exp(scale * whole(maps, shape)).sum(axis=0))
    np.testing.assert_allclose(log_sum_exp(maps, scale, shape, nodes), expected, atol=ERROR)
    rows, columns = np.array([0, 3, 189, 100]), np.array([0, 249, 249, 77])
    found = log_sum_exp_at(maps, scale, shape, rows, columns)
    np.testing.assert_allclose(found, expected[rows, columns], atol=1e-12)


def test_no_shortcut_where_it_would_not_be_one() -> None:
    maps = cosines(500)
    assert nodes_needed(maps, 100.0, (150, 190)) is None, "neighbours too far apart"
    assert nodes_needed(maps, 5.0, (40, 60)) is None, "hardly more pixels than nodes"
    assert nodes_needed(maps[..., :32], 5.0, (150, 190)) is None, "few phrases"


@pytest.mark.parametrize(
    ("rule", "threshold"),
    [(PixelRule(5), 0.02), (PixelRule(5, 0.05), 0.02), (PixelRule(60), 0.1)],
)
def test_labels_with_and_without_the_shortcut(
    rule: PixelRule, threshold: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    maps = PositionMaps.on_grid(torch.from_numpy(cosines(60).astype(np.float32)), (150, 190))
    classes = tuple(range(60))
    quick = label_pixels(maps, classes, rule, [threshold])
    monkeypatch.setattr("ovseg.inference.labels.nodes_needed", lambda *_: None)
    plain = label_pixels(maps, classes, rule, [threshold])
    assert torch.equal(quick.at(threshold), plain.at(threshold))
    assert quick.dropped == plain.dropped
    torch.testing.assert_close(quick.probability, plain.probability, atol=0, rtol=2e-4)
    assert (plain.at(threshold) == 0).sum() > 0 or threshold == 0.1
