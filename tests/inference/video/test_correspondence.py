"""Maps carried to the next frame, against a loop over positions."""

import numpy as np
import pytest
import torch

from ovseg.inference.refine.affinity import unit_rows
from ovseg.inference.video.correspondence import Correspondence, Remembered, near

GRID = (4, 5)
N = GRID[0] * GRID[1]


def frames(count: int, seed: int = 0) -> tuple[np.ndarray, list[Remembered]]:
    draw = np.random.default_rng(seed)
    features = unit_rows(draw.normal(size=(N, 8)).astype(np.float32))
    context = [
        Remembered(
            unit_rows(draw.normal(size=(N, 8)).astype(np.float32)),
            draw.random((N, 3)).astype(np.float32),
        )
        for _ in range(count)
    ]
    return features, context


def naive(settings: Correspondence, features: np.ndarray, context: list[Remembered]) -> np.ndarray:
    """As the protocol says it, a position at a time."""
    carried = np.zeros((N, 3))
    for target in range(N):
        alike, maps = [], []
        for frame in context:
            for source in range(N):
                apart = [
                    abs(a - b) for a, b in zip(divmod(target, 5), divmod(source, 5), strict=True)
                ]
                if not settings.radius or max(apart) <= settings.radius:
                    cosine = float(features[target] @ frame.features[source])
                    alike.append(np.exp(cosine / settings.temperature))
                    maps.append(frame.maps[source])
        best = np.argsort(alike)[-settings.top :]
        weights = np.array(alike)[best]
        carried[target] = weights @ np.array(maps)[best] / weights.sum()
    return carried


@pytest.mark.parametrize(
    "settings",
    [Correspondence(3, 2), Correspondence(3, 0), Correspondence(1, 1, 4, 0.5)],
)
def test_carrying_is_what_the_protocol_says(settings: Correspondence) -> None:
    features, context = frames(3)
    found = settings.carry(features, context, GRID)
    assert found == pytest.approx(naive(settings, features, context), abs=1e-5)
    tensors = [Remembered(torch.from_numpy(f.features), torch.from_numpy(f.maps)) for f in context]
    of_torch = settings.carry(torch.from_numpy(features), tensors, GRID)
    assert of_torch.numpy() == pytest.approx(found, abs=1e-5)


def test_of_equals_all_are_taken() -> None:
    features, (one,) = frames(1)
    again = Remembered(one.features, one.maps + 1)
    chosen, shares = Correspondence(1, 0, top=1).affinity(features, [one, again], GRID)
    assert len(chosen) == 2
    assert sum(shares) == pytest.approx(1)
    assert shares[1] == pytest.approx(0.5)


def test_more_places_are_asked_for_than_there_are() -> None:
    features, context = frames(1)
    found = Correspondence(1, 0, top=100).carry(features, context, GRID)
    assert np.isfinite(found).all()


def test_near() -> None:
    table = near((2, 3), 1)
    assert table[0].tolist() == [True, True, False, True, True, False]
