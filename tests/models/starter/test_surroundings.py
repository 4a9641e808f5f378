"""What ImageNet has no class for, by its look."""

import pytest
import torch

from ovseg.models.starter.surroundings import (
    MEASURES,
    Surroundings,
    means_of_cells,
    probability,
)
from ovseg.models.starter.words import WordTable


@pytest.mark.parametrize(
    ("colour", "rows", "kind"),
    [
        ((150, 190, 235), slice(0, 2), "sky"),
        ((90, 125, 50), slice(6, 8), "grass"),
        ((235, 238, 245), slice(6, 8), "snow"),
        ((110, 110, 112), slice(6, 8), "road"),
    ],
)
def test_surroundings_are_told_by_colour_and_place(
    colour: tuple[int, int, int], rows: slice, kind: str
) -> None:
    words = WordTable()
    pixels = (torch.tensor(colour).reshape(1, 3, 1, 1) / 127.5 - 1).expand(1, 3, 128, 64)
    found = probability(Surroundings(words.surroundings, 16)(pixels)).reshape(8, 4, -1)[rows]
    kinds = list(words.surroundings)
    assert {kinds[index] for index in found.argmax(dim=-1).flatten().tolist()} == {kind}
    assert found.max() > 0.3


def test_measures_of_a_cell() -> None:
    pixels = torch.zeros(1, 3, 32, 16)
    pixels[:, 0, 16:, :8] = 1.0  # red, 0.5 and 1 in equal parts, in the lower cell
    look = {"any": {name: [0.0, 1.0] for name in MEASURES}}
    upper, lower = Surroundings(look, 16).measure(pixels)[0].tolist()
    assert upper == pytest.approx([0.5, 0, 0, 0, 0.25], abs=1e-6)
    assert lower == pytest.approx([1.75 / 3, -0.125, -0.125, 0.25 / 3, 0.75], abs=1e-6)
    fits = Surroundings(look, 16)(pixels)[0, 0]
    assert fits.tolist() == pytest.approx([-(0.25 + 0.0625) / 2])


def test_means_of_cells_are_those_of_pooling() -> None:
    maps = torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    expected = torch.nn.functional.avg_pool2d(maps, 16)
    assert torch.allclose(means_of_cells(maps, 16), expected, atol=1e-6)
