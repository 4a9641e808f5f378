import numpy as np

from ovseg.data.cutouts.duplicates import group, join, signature
from ovseg.data.cutouts.library import CutOut
from ovseg.data.cutouts.split import TEST, TRAIN, split_backgrounds, split_cutouts
from tests.data.cutouts.conftest import SHAPES, polygon


def signatures(*pictures: np.ndarray) -> np.ndarray:
    return np.stack([signature(picture) for picture in pictures])


def test_recoloured_and_mirrored_drawings_are_one() -> None:
    bolt = polygon(SHAPES["bolt"], (200, 30, 30))
    blue = polygon(SHAPES["bolt"], (30, 60, 220))
    other = polygon(SHAPES["hourglass"], (200, 30, 30))
    assert group(signatures(bolt, other, blue, bolt[:, ::-1])) == [0, 1, 0, 0]


def test_balls_and_boxes_need_more_than_their_outline() -> None:
    rows, columns = np.mgrid[:120, :120]
    disc = (rows - 60) ** 2 + (columns - 60) ** 2 < 3600
    striped = np.where(rows[..., None] // 20 % 2, 250, 10) * np.ones(3)
    split = np.where(columns[..., None] > 60, 250, 10) * np.ones(3)
    first, second = (
        np.dstack([colours, disc * 255]).astype(np.uint8) for colours in (striped, split)
    )
    assert group(signatures(first, second, first)) == [0, 1, 0]


def test_join_is_the_finest_common_grouping() -> None:
    assert join([0, 1, 1, 3, 4], [0, 1, 2, 2, 4]) == [0, 1, 1, 1, 4]


def cutout(source: str, name: str, raw: np.ndarray) -> CutOut:
    return CutOut(source, name, "", False, "object", True, "", signature(raw).tobytes().hex())


def test_no_drawing_is_on_both_sides() -> None:
    pictures = {name: polygon(points, (200, 30, 30)) for name, points in SHAPES.items()}
    cutouts = [cutout(f"{name}.png", "thing", picture) for name, picture in pictures.items()]
    cutouts += [cutout(f"{name}-again.png", "copy", p[:, ::-1]) for name, p in pictures.items()]
    cutouts += [cutout("bolt.svg", "thing", polygon(SHAPES["bar"], (1, 1, 1)))]
    for seed in range(20):
        split = split_cutouts(cutouts, 0.3, seed)
        sides: dict[int, set[str]] = {}
        for where, number in zip(split.sides, split.groups, strict=True):
            sides.setdefault(number, set()).add(where)
        assert all(len(where) == 1 for where in sides.values())
        assert {TRAIN, TEST} == set(split.sides)
        # The same path in another format is the same drawing.
        assert split.groups[list(pictures).index("bolt")] == split.groups[-1]


def test_a_single_drawing_is_for_training() -> None:
    only = [cutout("a.png", "kite", polygon(SHAPES["bolt"], (9, 9, 9)))]
    assert split_cutouts(only, 0.5, 0).sides == (TRAIN,)
    assert split_cutouts(only * 2, 0, 0).sides == (TRAIN, TRAIN)


def test_photographs_are_divided_too() -> None:
    train, test = split_backgrounds(10, 0.2, 0)
    assert len(test) == 2
    assert sorted(train + test) == list(range(10))
    assert split_backgrounds(1, 0.2, 0) == ([0], [0])
