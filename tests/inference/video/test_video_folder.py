"""What is written of a video, read back."""

import json
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from ovseg.data.annotations import coco
from ovseg.data.video import Frame, open_video
from ovseg.inference.result import Segmentation
from ovseg.inference.video.frames import SegmentedFrame
from ovseg.inference.video.memory import Features
from ovseg.inference.video.tracks import Tracker
from ovseg.inference.video.video_folder import VideoFolder

pytest.importorskip("av")
SIZE = (48, 64)


class Made:
    """A video that exists in memory alone."""

    path = Path("clip.mp4")
    size = SIZE
    rate = Fraction(25)
    broken = 0

    def __init__(self, count: int) -> None:
        self.count: int | None = count

    def __iter__(self) -> Iterator[Frame]:
        for number in range(self.count or 0):
            yield Frame(number, number / 25, np.full((*SIZE, 3), 90, np.uint8))


def results(video: Made) -> Iterator[SegmentedFrame]:
    """A square of the first class that moves to the right."""
    tracker, features = Tracker(), Features(np.zeros((1, 1, 1), np.float32), (1, 1))
    for frame in video:
        labels = np.zeros(SIZE, np.uint16)
        labels[10:30, frame.number % 40 : frame.number % 40 + 20] = 1
        found = Segmentation(
            frame.pixels, ("background", "a cat", "dog"), labels,
            np.full(SIZE, 0.5, np.float32), lambda: np.zeros(SIZE, np.int32),
            np.zeros((1, 3), np.float32),
        )  # fmt: skip
        yield SegmentedFrame(frame, found, False, *tracker.update(labels), features)


def test_all_that_is_written_can_be_read(tmp_path: Path) -> None:
    video = Made(5)
    folder = VideoFolder(tmp_path / "out", video, ("a cat", "dog"), numbers=True)
    with folder.run(video.rate):
        for found in results(video):
            folder.write(found)
    overlay, labels, tracks = folder.files
    frames = list(open_video(overlay))
    assert len(frames) == 5
    assert frames[0].pixels.shape[1] == 64 and frames[0].pixels.shape[0] > 48  # with a legend
    for number, path in enumerate(sorted(labels.iterdir())):
        assert np.asarray(Image.open(path))[15, number + 5] == 1
    dataset = COCO(str(tracks))
    assert [each["frame_id"] for each in dataset.loadImgs([1, 2, 3, 4, 5])] == [0, 1, 2, 3, 4]
    assert {each["track_id"] for each in dataset.anns.values()} == {1}
    assert dataset.annToMask(dataset.anns[3])[15, 10] == 1
    assert json.loads(tracks.read_text())["videos"][0]["name"] == "clip"
    back = list(coco.read(tracks))
    assert [image.regions[0].track for image in back] == [1] * 5
    assert back[2].seconds == 0.08


def test_an_interrupted_run_leaves_a_video_that_plays(tmp_path: Path) -> None:
    video = Made(30)
    folder = VideoFolder(tmp_path / "out", video, ("a cat", "dog"))
    with pytest.raises(KeyboardInterrupt), folder.run(video.rate):
        for found in results(video):
            folder.write(found)
            if found.frame.number == 7:
                raise KeyboardInterrupt
    overlay, labels, tracks = folder.files
    assert len(list(open_video(overlay))) == 8
    assert len(list(labels.iterdir())) == 8
    assert not tracks.exists()


@pytest.mark.slow
def test_memory_does_not_grow_with_the_length(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.fsync", lambda _: None)  # of 3,000 files
    video, held = Made(3000), []
    folder = VideoFolder(tmp_path / "out", video, ("a cat", "dog"))
    with folder.run(video.rate):
        for found in results(video):
            folder.write(found)
            if found.frame.number in (600, 2999):
                held.append(int(Path("/proc/self/statm").read_text().split()[1]) * 4096)
    assert held[1] - held[0] < 8 << 20
    assert folder.files[2].stat().st_size > 500_000


def test_labels_of_an_earlier_run_go(tmp_path: Path) -> None:
    for count in (5, 3):
        video = Made(count)
        folder = VideoFolder(tmp_path / "out", video, ("a cat", "dog"))
        with folder.run(video.rate):
            for found in results(video):
                folder.write(found)
    assert len(list(folder.files[1].iterdir())) == 3
