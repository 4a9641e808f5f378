"""Reading and writing videos."""

import struct
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ovseg.data.images import Pixels
from ovseg.data.video import Clip, VideoWriter, is_video, open_video
from ovseg.errors import DataError, UsageError

av = pytest.importorskip("av")
RATE = Fraction(25)


def picture(number: int, height: int = 48, width: int = 64) -> Pixels:
    """Grey, with a bright bar that moves to the right."""
    pixels = np.full((height, width, 3), 60, np.uint8)
    pixels[:, 2 * number : 2 * number + 8] = 220
    return pixels


def write(path: Path, count: int = 20, seconds: list[float] | None = None) -> Path:
    with VideoWriter(path, RATE) as writer:
        for number in range(count):
            writer.add(picture(number), seconds[number] if seconds else number / 25)
    return path


def test_frames_come_back(tmp_path: Path) -> None:
    video = open_video(write(tmp_path / "a.mp4"))
    frames = list(video)
    assert (video.size, video.count, video.broken, len(frames)) == ((48, 64), 20, 0, 20)
    for frame in frames:
        assert frame.seconds == pytest.approx(frame.number / 25, abs=1e-3)
        assert np.abs(frame.pixels.astype(int) - picture(frame.number)).mean() < 6


def test_times_and_length_are_kept(tmp_path: Path) -> None:
    times = [0.0, 0.04, 0.2, 0.24, 0.5, 0.9]
    path = write(tmp_path / "a.mp4", 6, times)
    assert [frame.seconds for frame in open_video(path)] == pytest.approx(times, abs=1e-3)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert float(stream.duration * stream.time_base) == pytest.approx(0.94, abs=0.01)


@pytest.mark.parametrize(
    ("clip", "numbers"),
    [
        (Clip(every=7), [0, 7, 14]),
        (Clip(start=0.3, end=0.5), [8, 9, 10, 11, 12]),
        (Clip(every=3, start=0.6), [15, 18]),
    ],
)
def test_parts(clip: Clip, numbers: list[int], tmp_path: Path) -> None:
    for path in (write(tmp_path / "a.mp4"), _pictures(tmp_path / "frames")):
        video = open_video(path, clip)
        found = [round(frame.seconds * 25) for frame in video]
        assert found == numbers
        assert video.count is not None and abs(video.count - len(numbers)) <= 1


def _pictures(folder: Path, count: int = 20) -> Path:
    folder.mkdir()
    for number in range(count):  # 10 comes after 9
        Image.fromarray(picture(number)).save(folder / f"frame{number}.png")
    return folder


def test_pictures_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for frame in open_video(_pictures(tmp_path / "frames")):
        assert np.array_equal(frame.pixels, picture(frame.number))


def test_rotation(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", 3)
    turned = (0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)
    content = bytearray(path.read_bytes())
    at = content.index(b"tkhd") + 4 + 40  # behind version, times, id, duration, layer, volume
    content[at : at + 36] = struct.pack(">9i", *turned)
    path.write_bytes(bytes(content))
    video = open_video(path)
    (first, *_) = video
    assert video.size == first.pixels.shape[:2] == (64, 48)
    upright = np.rot90(picture(0), -1)
    assert np.abs(first.pixels.astype(int) - upright).mean() < 6


def test_odd_sides_lose_a_row(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "a.mp4", RATE) as writer:
        writer.add(picture(0, 47, 65), 0.0)
    assert open_video(tmp_path / "a.mp4").size == (46, 64)


def test_broken_frames_are_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", 20)
    content = bytearray(path.read_bytes())
    start = content.index(b"mdat") + 4
    middle = start + (len(content) - start) // 2
    content[middle : middle + 40] = bytes(40)
    path.write_bytes(bytes(content))
    video = open_video(path)
    assert len(list(video)) + video.broken >= 19


def test_an_interrupted_video_plays(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), VideoWriter(tmp_path / "a.mp4", RATE) as writer:
        for number in range(5):
            writer.add(picture(number), number / 25)
        raise KeyboardInterrupt
    assert len(list(open_video(tmp_path / "a.mp4"))) == 5
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


def test_no_frame_no_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError), VideoWriter(tmp_path / "a.mp4", RATE):
        raise ValueError
    with VideoWriter(tmp_path / "b.mp4", RATE):
        pass
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_read(tmp_path: Path) -> None:
    whole = write(tmp_path / "a.mp4").read_bytes()
    cases = {
        "empty.mp4": (b"", "empty"),
        "junk.mp4": (b"no video" * 50, "damaged, or no video"),
        "half.mp4": (whole[: len(whole) // 3], "decoded|damaged"),
        "list.mp4": (b"ffconcat version 1.0\nfile a.mp4\n", "damaged, or no video"),
    }
    for name, (content, message) in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=message):
            list(open_video(tmp_path / name))
    with pytest.raises(DataError, match="no such file"):
        open_video(tmp_path / "none.mp4")


def test_sound_alone(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(DataError, match="no pictures"):
        open_video(tmp_path / "a.mp4")


def test_pictures_of_several_sizes(tmp_path: Path) -> None:
    folder = _pictures(tmp_path / "frames", 3)
    Image.fromarray(picture(0, 30, 40)).save(folder / "frame9.png")
    with pytest.raises(
        DataError, match=r"frame9.png: 40×30 pixels, but the video began with 64×48"
    ):
        list(open_video(folder))
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="no pictures in this folder"):
        open_video(tmp_path / "none")


def test_a_damaged_picture_is_counted(tmp_path: Path) -> None:
    folder = _pictures(tmp_path / "frames", 3)
    (folder / "frame1.png").write_bytes(b"x")
    video = open_video(folder)
    assert [frame.number for frame in video] == [0, 2]
    assert video.broken == 1


def test_parts_that_make_no_sense() -> None:
    for wrong in ({"every": 0}, {"start": -1.0}, {"start": 2.0, "end": 1.0}):
        with pytest.raises(UsageError):
            Clip(**wrong)  # type: ignore[arg-type]


def test_names() -> None:
    assert is_video(Path("a/clip.MP4")) and not is_video(Path("clip.jpg"))
