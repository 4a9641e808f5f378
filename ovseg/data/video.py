"""Videos: frames of a file or of a folder of pictures, and the file that frames are written to."""

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Protocol

import numpy as np

from ovseg.data.images import MAX_PIXELS, SUFFIXES, Pixels, read_image
from ovseg.errors import DataError, MissingDependencyError, UsageError
from ovseg.files import local_path, replacing

VIDEO_SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("3gp", "avi", "flv", "m2ts", "m4v", "mkv", "mov", "mp4", "mpeg", "mpg", "mts", "ogv"),
        *("ts", "webm", "wmv", "y4m"),
    )
)
FRAMES_PER_SECOND = 25
"""Of folders of pictures, which do not say."""

_CLOCK = Fraction(1, 90_000)  # seconds; the smallest step of most containers
# Formats that hold pictures; of the others some open further files or addresses.
_FORMATS = "mov,matroska,webm,avi,mpeg,mpegts,flv,ogg,asf,yuv4mpegpipe,mpegvideo,h264,hevc"
_PROTOCOLS = "file"


class Frame(NamedTuple):
    """A picture of a video: its number from 0, when it is shown, and RGB, uint8 [H, W, 3]."""

    number: int
    seconds: float
    pixels: Pixels


@dataclass(frozen=True)
class Clip:
    """Which frames are wanted: every so manieth of those from `start` to before `end`, in seconds.

    Raises:
        UsageError: there can be no such frames.
    """

    every: int = 1
    start: float = 0.0
    end: float | None = None

    def __post_init__(self) -> None:
        if self.every < 1:
            raise UsageError(f"every {self.every}: give 1 for each frame, 2 for every second one")
        if self.start < 0 or (self.end is not None and self.end <= self.start):
            raise UsageError(f"start {self.start}, end {self.end}: give seconds, the start first")


ALL = Clip()


class Video(Protocol):
    """Frames to go through once, of one size.

    Attributes:
        path: of the file or folder.
        size: rows and columns (H, W), upright.
        rate: frames a second, on average.
        count: frames that are expected, or None.
        broken: frames that could not be decoded so far.
    """

    path: Path
    size: tuple[int, int]
    rate: Fraction
    count: int | None
    broken: int

    def __iter__(self) -> Iterator[Frame]: ...


def open_video(path: Path, clip: Clip = ALL) -> Video:
    """A video file, or a folder of pictures as one, in the order of the numbers in their names.

    Raises:
        DataError: there is none, it is damaged, holds no frames, or they are too large.
        MissingDependencyError: PyAV is not installed.
    """
    return _Pictures(path, clip) if path.is_dir() else _File(path, clip)


def is_video(path: Path) -> bool:
    """Whether a path is named like a video file."""
    return path.suffix.lower() in VIDEO_SUFFIXES


class _Pictures:
    """Numbered pictures in a folder."""

    def __init__(self, path: Path, clip: Clip) -> None:
        self.path = path
        self.rate = Fraction(FRAMES_PER_SECOND)
        self.broken = 0
        files = sorted(
            (file for file in path.iterdir() if file.suffix.lower() in SUFFIXES), key=_by_number
        )
        first = _first_from(clip.start)
        last = None if clip.end is None else _first_from(clip.end)
        self._files = list(enumerate(files))[first : last : clip.every]
        self.count: int | None = len(self._files)
        if not files:
            raise DataError(f"{path}: no pictures in this folder; give numbered frames, or a video")
        if not self._files:
            raise DataError(f"{path}: none of its {len(files)} frames is in the part asked for")
        pixels = read_image(self._files[0][1])
        self.size = pixels.shape[0], pixels.shape[1]

    def __iter__(self) -> Iterator[Frame]:
        for number, file in self._files:
            try:
                pixels = read_image(file)
            except DataError:
                self.broken += 1
                continue
            _check_size(str(file), pixels, self.size)
            yield Frame(number, float(number / self.rate), pixels)


def _first_from(seconds: float) -> int:
    """Number of the first picture that is not shown before."""
    return math.ceil(seconds * FRAMES_PER_SECOND - 1e-6)


def _by_number(file: Path) -> tuple[list[int], str]:
    return [int(digits) for digits in re.findall(r"\d{1,18}", file.stem)], file.name


class _File:
    """A file of any container and codec that FFmpeg reads."""

    def __init__(self, path: Path, clip: Clip) -> None:
        self.path = path
        self.broken = 0
        self._clip = clip
        with _opened(path) as container:
            stream = _pictures_of(container, path)
            self.rate = Fraction(stream.average_rate or FRAMES_PER_SECOND)
            first = next(self._decoded(container, stream), None)
            if first is None:
                raise DataError(f"{path}: no frame of it can be decoded")
            pixels = _upright(first)
            self.size = pixels.shape[0], pixels.shape[1]
            self.count = self._expected(container, stream)
        self.broken = 0

    def _expected(self, container: Any, stream: Any) -> int | None:
        if container.duration is None and not stream.frames:
            return None
        seconds = float(
            container.duration / 1e6 if container.duration else stream.frames / self.rate
        )
        end = seconds if self._clip.end is None else min(self._clip.end, seconds)
        length = max(end - self._clip.start, 0)
        return max(round(length * float(self.rate) / self._clip.every), 1)

    def __iter__(self) -> Iterator[Frame]:
        clip, taken, shown = self._clip, 0, -1.0
        with _opened(self.path) as container:
            stream = _pictures_of(container, self.path)
            zero = float((stream.start_time or 0) * (stream.time_base or 1))
            if clip.start:
                container.seek(int((clip.start + zero) / stream.time_base), stream=stream)
            for number, frame in enumerate(self._decoded(container, stream)):
                known = frame.time
                seconds = shown + float(1 / self.rate) if known is None else float(known) - zero
                seconds = number / float(self.rate) if seconds < 0 else seconds
                if clip.end is not None and seconds >= clip.end:
                    break
                if seconds < clip.start or seconds <= shown:
                    continue
                shown = seconds
                if taken % clip.every == 0:
                    pixels = _upright(frame)
                    _check_size(f"{self.path}, second {seconds:.2f}", pixels, self.size)
                    yield Frame(taken, seconds, pixels)
                taken += 1
        if not taken:
            raise DataError(f"{self.path}: no frame of it is in the part asked for")

    def _decoded(self, container: Any, stream: Any) -> Iterator[Any]:
        """Frames as they come; those that are damaged are counted."""
        import av

        packets = container.demux(stream)
        while True:
            try:
                frames = next(packets).decode()
            except StopIteration:
                return
            except av.error.EOFError:
                return
            except av.error.InvalidDataError:
                self.broken += 1
                continue
            except av.error.FFmpegError:  # the container itself ends here
                self.broken += 1
                return
            for frame in frames:
                if frame.is_corrupt:
                    self.broken += 1
                else:
                    yield frame


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A container whose file alone is read."""
    av = _av(f"reading {path.name}")
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    if path.stat().st_size == 0:
        raise DataError(f"{path}: the file is empty")
    options = {"protocol_whitelist": _PROTOCOLS, "format_whitelist": _FORMATS}
    try:
        container = av.open(str(local_path(path)), container_options=options)
    except (av.error.FFmpegError, ValueError, OSError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(f"{path}: damaged, or no video ({reason})") from error
    with container:
        yield container


def _pictures_of(container: Any, path: Path) -> Any:
    """The first stream of pictures."""
    if not container.streams.video:
        raise DataError(f"{path}: holds no pictures, only sound or text")
    stream = container.streams.video[0]
    width, height = stream.codec_context.width, stream.codec_context.height
    if width * height > MAX_PIXELS:
        raise DataError(f"{path}: frames of {width}×{height} pixels are too large")
    stream.codec_context.thread_count = 1  # ending several in the middle of a file may hang
    return stream


def _upright(frame: Any) -> Pixels:
    """A decoded frame as RGB, turned as its file says."""
    pixels = frame.to_ndarray(format="rgb24")
    turns = round(frame.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(pixels, turns)) if turns else pixels


def _check_size(where: str, pixels: Pixels, size: tuple[int, int]) -> None:
    if pixels.shape[:2] != size:
        raise DataError(
            f"{where}: {pixels.shape[1]}×{pixels.shape[0]} pixels, but the video began with "
            f"{size[1]}×{size[0]}: cut it there and segment each part"
        )


class VideoWriter:
    """An H.264 file that browsers play, written frame by frame.

    The file appears when the block is left: whole, or up to where an exception or Ctrl-C came.

    Args:
        path: ends with `.mp4`.
        rate: frames a second, on average; each is shown from the second that it is added with.

    Raises:
        MissingDependencyError: PyAV is not installed.
        DataError: the file cannot be written.
    """

    def __init__(self, path: Path, rate: Fraction) -> None:
        self.path = path
        self._av = _av(f"writing {path.name}")
        self._rate = rate
        self._replacing = replacing(path)
        self._stream: Any = None

    def __enter__(self) -> "VideoWriter":
        self._container = self._av.open(
            str(self._replacing.__enter__()), "w", format="mp4", options={"movflags": "faststart"}
        )
        return self

    def add(self, pixels: Pixels, seconds: float) -> None:
        """Write a frame, uint8 [H, W, 3]; an odd last row or column is left out."""
        height, width = (side - side % 2 for side in pixels.shape[:2])
        if self._stream is None:
            self._stream = self._new_stream(width, height)
        even = np.ascontiguousarray(pixels[:height, :width])
        frame = self._av.VideoFrame.from_ndarray(even, format="rgb24")
        frame.pts, frame.time_base = round(seconds / _CLOCK), _CLOCK
        self._write(frame)

    def _new_stream(self, width: int, height: int) -> Any:
        stream = self._container.add_stream(
            "libx264", rate=self._rate, options={"crf": "20", "bf": "0"}
        )
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.time_base = _CLOCK
        stream.codec_context.thread_count = 1  # the model is at work beside it
        return stream

    def _write(self, frame: Any) -> None:
        try:
            for packet in self._stream.encode(frame):
                packet.duration = packet.duration or round(1 / self._rate / packet.time_base)
                self._container.mux(packet)
        except (self._av.error.FFmpegError, OSError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise DataError(f"{self.path}: cannot be written ({reason})") from error

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._stream is not None:
            self._write(None)
            self._container.close()
            self._replacing.__exit__(None, None, None)  # what is there can be played
            return
        # Without a frame there is no file; a container without a stream cannot be closed.
        self._replacing.__exit__(kind or DataError, error or DataError("no frames"), traceback)


def _av(purpose: str) -> Any:
    try:
        import av
    except ImportError as error:
        raise MissingDependencyError("av", "video", purpose) from error
    av.logging.set_level(av.logging.PANIC)  # damage is counted, not printed
    return av
