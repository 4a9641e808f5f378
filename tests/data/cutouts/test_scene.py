import numpy as np
import pytest

from ovseg.data.cutouts import annotations, scene
from ovseg.data.cutouts.caption import article, colour_words, describe, noun_phrase, subjects_of
from ovseg.data.cutouts.library import CutOut
from ovseg.data.cutouts.naming import NameTable
from ovseg.data.cutouts.scene import Instance, Placed, Scene, Sprite

TABLE = NameTable()


def cutout(name: str, several: bool = False) -> CutOut:
    return CutOut(f"{name}.png", name, name, several, "object", True, "", "")


def square(name: str, side: int, colour: tuple[int, int, int]) -> Sprite:
    rgba = np.full((side, side, 4), 255, np.uint8)
    rgba[..., :3] = colour
    return Sprite(cutout(name), rgba, None)


def flat_scene(*boxes: tuple[str, tuple[int, int, int, int], tuple[int, int, int]]) -> Scene:
    """A white scene of 100 x 100 with coloured boxes (top, left, bottom, right)."""
    image, labels = np.full((100, 100, 3), 255, np.uint8), np.full((100, 100), -1, np.int16)
    for number, (_, (top, left, bottom, right), colour) in enumerate(boxes):
        image[top:bottom, left:right] = colour
        labels[top:bottom, left:right] = number
    return Scene(image, labels, tuple(Instance(cutout(name), 1.0, None) for name, *_ in boxes))


RED, BLUE, BLACK = (220, 20, 20), (20, 40, 220), (5, 5, 5)


def captions(composed: Scene) -> set[str]:
    return {describe(np.random.default_rng(seed), composed, TABLE) for seed in range(200)}


def test_masks_are_what_is_visible_and_the_nearer_object_hides() -> None:
    placed = [
        Placed(square("cat", 40, RED), 10, 10),
        Placed(square("dog", 40, BLUE), 20, 30),  # covers 30 x 20 of the cat
    ]
    labels, instances = scene._look(placed, (100, 100))
    assert (labels == 0).sum() == 1600 - 600
    assert (labels == 1).sum() == 1600
    assert instances[0].visible == pytest.approx(1000 / 1600)
    assert instances[0].hidden_by == 1
    assert instances[1] == Instance(placed[1].sprite.cutout, 1.0, None)


def test_what_is_outside_the_scene_is_not_visible() -> None:
    labels, instances = scene._look([Placed(square("cat", 40, RED), -10, 80)], (100, 100))
    assert (labels == 0).sum() == 30 * 20
    assert instances[0].visible == pytest.approx(600 / 1600)


def test_crowded_objects_are_placed_anew_or_dropped_and_the_rest_is_seen() -> None:
    sprites = [square("cat", 70, RED) for _ in range(6)]
    composed, placed = scene.place(np.random.default_rng(0), sprites, (100, 100))
    assert composed.dropped > 0
    assert composed.redrawn >= composed.dropped * scene._TRIES
    assert len(placed) == len(composed.instances) == 6 - composed.dropped
    assert all(instance.visible >= scene.MIN_VISIBLE for instance in composed.instances)
    assert set(np.unique(composed.labels)) - {-1} == set(range(len(placed)))


def test_pixels_of_the_picture_agree_with_the_mask() -> None:
    rng = np.random.default_rng(1)
    sprites = [square("cat", 30, RED), square("dog", 30, BLUE)]
    composed, placed = scene.place(rng, sprites, (80, 100))
    ground = np.full((80, 100, 3), 128, np.uint8)
    painted = scene.paint(rng, ground, composed, placed)
    for number, instance in enumerate(painted.instances):
        mean = painted.image[painted.labels == number].mean(0)
        assert mean.argmax() == (0 if instance.cutout.name == "cat" else 2)


def test_turning_keeps_the_whole_object() -> None:
    rgba = square("cat", 40, RED).rgba
    turned = scene.turn(rgba, 30)
    assert turned.shape[0] > 50
    assert (turned[..., 3] >= 128).sum() == pytest.approx(1600, rel=0.03)
    solid = turned[turned[..., 3] > 250]
    assert np.abs(solid[:, :3].astype(int) - RED).max() <= 3


@pytest.mark.parametrize(
    ("rgb", "word"),
    [
        (RED, "red"), (BLUE, "blue"), (BLACK, "black"), ((250, 250, 250), "white"),
        ((128, 128, 128), "gray"), ((250, 150, 20), "orange"), ((120, 70, 20), "brown"),
        ((240, 230, 30), "yellow"), ((30, 150, 40), "green"), ((130, 30, 180), "purple"),
        ((250, 150, 180), "pink"),
    ],
)  # fmt: skip
def test_colours_have_their_names(rgb: tuple[int, int, int], word: str) -> None:
    assert colour_words(np.full((50, 3), rgb, np.uint8)) == word


def test_two_colours_are_said_and_many_are_not() -> None:
    zebra = np.array([[250] * 3, [5] * 3] * 50, np.uint8)
    assert colour_words(zebra) == "black and white"
    many = np.array([RED, BLUE, BLACK, (250, 250, 250), (30, 150, 40)] * 10, np.uint8)
    assert colour_words(many) == ""
    assert colour_words(np.zeros((0, 3), np.uint8)) == ""


def test_positions_are_said_as_the_viewer_sees_them() -> None:
    said = captions(flat_scene(("cat", (40, 5, 60, 25), RED), ("umbrella", (40, 70, 60, 90), BLUE)))
    assert "A red cat to the left of a blue umbrella." in said
    assert any("umbrella on the right of a" in text for text in said)
    assert not any("cat on the right of" in text or "umbrella on the left" in text for text in said)
    assert not any("cat to the right" in text or "above" in text for text in said)


def test_counts_plurals_and_shared_colours() -> None:
    said = captions(flat_scene(("knife", (40, 5, 60, 25), RED), ("knife", (40, 70, 60, 90), RED)))
    assert "Two red knives." in said
    mixed = captions(flat_scene(("cat", (40, 5, 60, 25), RED), ("cat", (40, 70, 60, 90), BLUE)))
    assert "Two cats." in mixed
    assert not any("red" in text or "blue" in text for text in mixed)


def test_the_colour_of_clothes_is_not_said() -> None:
    said = captions(flat_scene(("police officer", (20, 20, 80, 80), BLUE)))
    assert "A police officer." in said
    assert not any("blue" in text and "background" not in text for text in said)


def test_what_hides_is_in_front() -> None:
    composed = flat_scene(("cat", (30, 30, 60, 50), RED), ("box", (40, 40, 70, 80), BLUE))
    composed.instances[0].__dict__["hidden_by"] = 1
    said = captions(composed)
    assert "A box in front of a cat." in said
    assert any("cat partly hidden behind a" in text for text in said)
    assert not any("cat in front of" in text or "left of" in text for text in said)


@pytest.mark.parametrize(
    ("name", "several", "phrase"),
    [
        ("scissors", False, "a pair of scissors"),
        ("garlic", False, "some garlic"),
        ("cherry", True, "some cherries"),
        ("owl", False, "an owl"),
        ("unicorn", False, "a unicorn"),
        ("orange", False, "an orange"),
        ("sun", False, "the sun"),
    ],
)
def test_noun_phrases(name: str, several: bool, phrase: str) -> None:
    labels = np.full((100, 100), -1, np.int16)
    labels[30:60, 30:60] = 0
    instance = Instance(cutout(name, several), 1.0, None)
    colours = np.random.default_rng(0).integers(0, 255, (100, 100, 3), dtype=np.uint8)
    subject = subjects_of(Scene(colours, labels, (instance,)))[0]
    assert noun_phrase(np.random.default_rng(0), subject, TABLE) == phrase


def test_a_place_is_said_once() -> None:
    said = captions(flat_scene(("cat", (40, 5, 60, 25), RED)))
    assert any(text.endswith("cat on the left.") for text in said)
    assert any(text.endswith("on a white background.") for text in said)
    assert not any("on the left on a" in text for text in said)


def test_articles_follow_the_sound() -> None:
    words = ("apple", "hourglass", "ukulele", "bear", "eucalyptus")
    assert [article(word) for word in words] == ["an", "an", "a", "a", "a"]


def test_panoptic_colours_and_segments_agree() -> None:
    labels = np.full((20, 30), -1, np.int16)
    labels[2:5, 3:9], labels[10:20, 0:4] = 0, 1
    rgb = annotations.encode(labels).astype(np.uint32)
    ids = rgb[..., 0] + 256 * rgb[..., 1] + 65536 * rgb[..., 2]
    first, second = annotations.segments(labels, [7, 4])
    assert first == {
        "id": annotations.segment_id(0),
        "category_id": 7,
        "iscrowd": 0,
        "bbox": [3, 2, 6, 3],
        "area": 18,
    }
    assert second["bbox"] == [0, 10, 4, 10]
    np.testing.assert_array_equal(ids == first["id"], labels == 0)
    np.testing.assert_array_equal(ids == 0, labels == -1)
    assert len({annotations.segment_id(number) for number in range(50)} - {0}) == 50
