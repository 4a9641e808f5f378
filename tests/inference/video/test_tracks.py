"""Numbers of regions from frame to frame."""

import numpy as np

from ovseg.inference.video.tracks import PATIENCE, Tracker


def labels(*boxes: tuple[int, int, int]) -> np.ndarray:
    """A map with squares of 10 pixels: label, top, left."""
    found = np.zeros((60, 80), np.uint16)
    for label, top, left in boxes:
        found[top : top + 10, left : left + 10] = label
    return found


def test_moving_regions_keep_their_numbers() -> None:
    tracker = Tracker()
    for step in range(10):
        numbers, tracks = tracker.update(labels((1, 5, 3 * step), (2, 30, 60 - 3 * step)))
        assert {track.number: track.label for track in tracks.values()} == {1: 1, 2: 2}
        assert numbers[10, 3 * step + 5] == 1 and numbers[35, 65 - 3 * step] == 2


def test_two_of_a_class_have_two_numbers() -> None:
    tracker = Tracker()
    _, tracks = tracker.update(labels((1, 5, 5), (1, 5, 40)))
    assert len(tracks) == 2


def test_what_is_hidden_for_a_while_comes_back() -> None:
    tracker = Tracker()
    tracker.update(labels((1, 5, 5)))
    for _ in range(PATIENCE):
        assert tracker.update(labels())[1] == {}
    assert list(tracker.update(labels((1, 5, 7)))[1]) == [1]


def test_what_was_away_too_long_is_new() -> None:
    tracker = Tracker()
    tracker.update(labels((1, 5, 5)))
    for _ in range(PATIENCE + 1):
        tracker.update(labels())
    assert list(tracker.update(labels((1, 5, 5)))[1]) == [2]


def test_another_class_is_another_thing() -> None:
    tracker = Tracker()
    tracker.update(labels((1, 5, 5)))
    _, tracks = tracker.update(labels((2, 5, 5)))
    assert [track.label for track in tracks.values()] == [2]
    assert list(tracks) == [2]


def test_specks_have_no_number_and_cuts_begin_anew() -> None:
    tracker = Tracker()
    speck = labels((1, 5, 5))
    speck[50, 70] = 1
    numbers, tracks = tracker.update(speck)
    assert len(tracks) == 1 and numbers[50, 70] == 0
    tracker.forget()
    assert list(tracker.update(labels((1, 5, 5)))[1]) == [2]
