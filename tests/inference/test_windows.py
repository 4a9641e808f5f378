"""Windows, their averaged scores, and the segmenter that uses them."""

import tracemalloc

import numpy as np
import pytest

from ovseg.errors import UsageError
from ovseg.inference.prompts import check_templates
from ovseg.inference.resize import resize_bilinear
from ovseg.inference.score_maps import Box, ScoredWindows, windowed_label_map
from ovseg.inference.windows import (
    SlidingWindow,
    boxes_of,
    parse_window,
    score_windows,
    window_shape,
)
from ovseg.models.interface import GroupedImage, Preprocessing

RULE = Preprocessing((0, 0, 0), (1, 1, 1), short_side=448, multiple_of=16)


def test_windows_at_the_border_are_shifted_inwards() -> None:
    boxes = boxes_of(464, 688, SlidingWindow(448, 224))
    assert {(box.height, box.width) for box in boxes} == {(448, 448)}
    assert [(box.top, box.left) for box in boxes] == [
        (0, 0),
        (0, 224),
        (0, 240),
        (16, 0),
        (16, 224),
        (16, 240),
    ]


@pytest.mark.parametrize("size", [(448, 448), (448, 449), (448, 2048), (100, 700)])
def test_windows_cover_every_pixel(size: tuple[int, int]) -> None:
    covered = np.zeros(size, int)
    for box in boxes_of(*size, SlidingWindow(448, 224)):
        covered[box.slices] += 1
    assert covered.min() >= 1


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((331, 471), (448, 637)),  # not rounded: windows need not end at a patch
        ((471, 331), (637, 448)),
        ((500, 5000), (208, 2048)),  # the longer side at most 2048; 204.8 does not hold a window
        ((448, 448), (448, 448)),
    ],
)
def test_images_are_resized_as_the_protocol_says(
    size: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert window_shape(*size, SlidingWindow(448, 224), RULE, 448) == expected


def test_a_window_that_the_model_cannot_take_is_named() -> None:
    with pytest.raises(UsageError, match="multiple of 16, such as 448"):
        window_shape(500, 500, SlidingWindow(450, 224), RULE, 448)


def test_reading_the_option() -> None:
    assert parse_window("auto") == "auto" and parse_window("none") == "none"
    assert parse_window("448/112") == SlidingWindow(448, 112)
    assert parse_window("320") == SlidingWindow(320, 160)
    for wrong in ("", "x", "448/", "448/x", "-3", "448/0", "448/449", "0"):
        if wrong == "448/":
            assert parse_window(wrong) == SlidingWindow(448, 224)
            continue
        with pytest.raises(UsageError, match="window"):
            parse_window(wrong)


def test_templates_have_one_place_for_the_class() -> None:
    assert check_templates(["a {}.", "{}"]) == ("a {}.", "{}")
    for wrong in ("a photo", "{} and {}", "{0}", "{", "{{}}"):
        with pytest.raises(UsageError, match="exactly one"):
            check_templates([wrong])


def windows(columns: int, groups: int | None = 3, seed: int = 0) -> ScoredWindows:
    """Six windows of 8 pixels on an image of 10x14; dense if `groups` is None."""
    random = np.random.default_rng(seed)
    boxes = boxes_of(10, 14, SlidingWindow(8, 4))
    scores = random.random((len(boxes), groups or 4, columns))
    shares = random.random((len(boxes), groups, 4)) if groups else None
    return ScoredWindows(boxes, scores, (2, 2), shares)


def naive(given: ScoredWindows, size: tuple[int, int]) -> np.ndarray:
    """All columns of all windows at once."""
    total, count = np.zeros((given.scores.shape[-1], 10, 14)), np.zeros((10, 14))
    for index, box in enumerate(given.boxes):
        rows, columns = box.slices
        if given.assignment is None:
            grids = given.scores[index].T.reshape(-1, 2, 2)
            total[:, rows, columns] += resize_bilinear(grids, (8, 8))
        else:
            shares = resize_bilinear(given.assignment[index].reshape(-1, 2, 2), (8, 8))
            total[:, rows, columns] += given.scores[index].T[:, shares.argmax(axis=0)]
        count[rows, columns] += 1
    return resize_bilinear(total / count, size)


@pytest.mark.parametrize("kind", ["numpy", "torch"])
@pytest.mark.parametrize("groups", [3, None])
@pytest.mark.parametrize("piece", [10**9, 500])
def test_equals_averaging_everything_at_once(
    kind: str, groups: int | None, piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ovseg.inference.score_maps.PIECE", piece)
    given = windows(11, groups)
    expected = naive(given, (13, 9))
    if kind == "torch":
        torch = pytest.importorskip("torch")
        shares = None if given.assignment is None else torch.from_numpy(given.assignment)
        given = ScoredWindows(given.boxes, torch.from_numpy(given.scores), given.grid, shares)
    found = windowed_label_map(given, (10, 14), (13, 9))
    assert np.array_equal(np.asarray(found.labels), expected.argmax(axis=0))
    np.testing.assert_allclose(np.asarray(found.scores), expected.max(axis=0))
    assert np.asarray(found.groups).shape == (13, 9)


def test_of_equal_scores_the_first_column_wins() -> None:
    given = windows(4)
    given.scores[...] = 0.5
    assert np.unique(windowed_label_map(given, (10, 14), (13, 9)).labels).tolist() == [0]
    given.scores[..., 0] = -np.inf  # no background asked for
    assert np.unique(windowed_label_map(given, (10, 14), (13, 9)).labels).tolist() == [1]


def test_a_pixel_names_its_group_in_the_nearest_window() -> None:
    given = windows(2)
    assert given.assignment is not None
    given.assignment[...] = 0
    given.assignment[:, 1] = 1  # group 1 everywhere
    found = windowed_label_map(given, (10, 14), (10, 14)).groups
    owners = found // 3
    assert (found % 3 == 1).all()
    assert owners[0, 0] == 0 and owners[-1, -1] == len(given.boxes) - 1


def test_a_thousand_classes_do_not_take_a_map_each(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    boxes = boxes_of(200, 300, SlidingWindow(200, 100))
    scores = np.zeros((len(boxes), 8, 1001), np.float32)
    scores[..., 1:6] = random.random((len(boxes), 8, 5))  # as five likely classes leave it
    shares = random.random((len(boxes), 8, 16)).astype(np.float32)
    tracemalloc.start()
    found = windowed_label_map(ScoredWindows(boxes, scores, (4, 4), shares), (200, 300), (400, 600))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert set(np.unique(found.labels)) <= {1, 2, 3, 4, 5}
    assert peak < 1001 * 400 * 600 * 4 / 20


def test_windows_of_all_images_are_encoded_together_and_in_pieces() -> None:
    pixels = np.random.default_rng(0).random((2, 3, 10, 14)).astype(np.float32)
    sizes = []

    def encode(crops: np.ndarray) -> GroupedImage:
        sizes.append(len(crops))
        return GroupedImage(crops.mean(axis=(1, 2, 3))[:, None, None], (1, 1))

    whole = score_windows(pixels, SlidingWindow(8, 4), encode, lambda g: g.embedding)
    assert sizes == [12]
    pieces = score_windows(pixels, SlidingWindow(8, 4), encode, lambda g: g.embedding, batch=5)
    assert sizes == [12, 5, 5, 2]
    for image in range(2):
        assert len(whole[image].boxes) == 6
        np.testing.assert_allclose(pieces[image].scores, whole[image].scores)
        for index, box in enumerate(whole[image].boxes):
            crop = pixels[image, :, box.slices[0], box.slices[1]]
            assert whole[image].scores[index].item() == pytest.approx(crop.mean(), rel=1e-5)


@pytest.mark.parametrize("size", [(7, 5), (3, 11), (4, 6), (1, 1)])
def test_bilinear_resizing_is_torchs(size: tuple[int, int]) -> None:
    torch = pytest.importorskip("torch")
    maps = np.random.default_rng(0).random((3, 4, 6))
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(maps)[None], size=size, mode="bilinear", align_corners=False
    )[0]
    np.testing.assert_allclose(resize_bilinear(maps, size), expected.numpy())
    np.testing.assert_allclose(resize_bilinear(torch.from_numpy(maps), size), expected.numpy())


def test_a_box_indexes_rows_then_columns() -> None:
    assert np.zeros((10, 20))[Box(1, 2, 3, 4).slices].shape == (3, 4)
