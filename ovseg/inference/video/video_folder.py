"""What is written of a segmented video: the video with its labels, label maps, tracks."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ovseg.data.annotations import coco
from ovseg.data.annotations.formats import Format, RunFile, run_file
from ovseg.data.annotations.region import AnnotatedImage, Region
from ovseg.data.images import Pixels
from ovseg.data.video import Video, VideoWriter
from ovseg.errors import DataError
from ovseg.files import local_path, remove_leftovers, replacing
from ovseg.inference.overlay import legend, painted
from ovseg.inference.video.frames import SegmentedFrame
from ovseg.locks import holding

OPACITY = 0.55


class VideoFolder:
    """Writes NAME.overlay.mp4, NAME.labels/ (a PNG a frame) and NAME.video.json.

    The last is a COCO dataset whose images are frames: each has a `video_id` and a `frame_id`, and
    each annotation a `track_id` that stays the same from frame to frame.

    Args:
        folder: where; made if it is not there.
        video: what is segmented.
        names: of the classes, without the background.
        numbers: whether tracks have their numbers in the picture.

    Raises:
        UsageError: the folder is no path of this machine.
        DataError: it cannot be made.
    """

    def __init__(
        self, folder: Path, video: Video, names: Sequence[str], *, numbers: bool = False
    ) -> None:
        self._folder = local_path(folder)
        self._video = video
        self._numbers = numbers
        self._names = tuple(names)
        self._legend = legend(video.size[1], names)
        self._name = video.path.name if video.path.is_dir() else video.path.stem
        self._written: VideoWriter | None = None
        self._annotations: RunFile | None = None
        try:
            (folder / self._labels_folder).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(
                f"{folder}: cannot make the output folder ({error.strerror})"
            ) from error

    @property
    def _labels_folder(self) -> str:
        return f"{self._name}.labels"

    @property
    def files(self) -> list[Path]:
        """What is there at the end."""
        names = (f"{self._name}.overlay.mp4", self._labels_folder, f"{self._name}.video.json")
        return [self._folder / name for name in names]

    @contextmanager
    def run(self, rate: Fraction) -> Iterator[None]:
        """Files are open within, and in their places when the block is left.

        On Ctrl-C or an error the video plays up to there; the tracks are written if all is well.
        """
        video = {
            "id": 1, "name": self._name, "file_name": self._video.path.name,
            "height": self._video.size[0], "width": self._video.size[1],
        }  # fmt: skip
        overlay, labels, tracks = self.files
        with ExitStack() as opened:
            opened.enter_context(holding(self._folder))
            remove_leftovers(self._folder)
            for stale in labels.glob("*.png"):
                stale.unlink()
            writer = partial(coco.Writer, videos=[video])
            format = Format("coco", tracks.name, writer, coco.read)
            self._annotations = opened.enter_context(run_file(tracks, format, self._names, None))
            self._written = opened.enter_context(VideoWriter(overlay, rate))
            yield

    def write(self, found: SegmentedFrame) -> None:
        """Take the next frame."""
        assert self._written is not None and self._annotations is not None
        self._written.add(self._picture(found), found.frame.seconds)
        name = f"{self._labels_folder}/{found.frame.number:06d}.png"
        try:
            with replacing(self._folder / name) as temporary:
                found.result.label_image().save(temporary, optimize=False)
        except OSError as error:
            raise DataError(f"{self._folder / name}: cannot write ({error.strerror})") from error
        self._annotations.add(_annotated(found, name))

    def _picture(self, found: SegmentedFrame) -> Pixels:
        shown = np.arange(len(found.result.classes))
        picture = painted(found.frame.pixels, found.result.labels, shown, OPACITY)
        if self._numbers:
            picture = _numbered(picture, found)
        return np.concatenate([picture, self._legend])


def _annotated(found: SegmentedFrame, name: str) -> AnnotatedImage:
    """The frame's tracks as regions."""
    regions = []
    for track in found.tracks.values():
        inside = found.track_map == track.number
        score = float(found.result.scores[inside].mean(dtype=np.float64))
        region = Region.of(track.label, found.result.classes[track.label], inside, score)
        regions.append(replace(region, track=track.number))
    height, width = found.result.labels.shape
    number, seconds = found.frame.number + 1, round(found.frame.seconds, 4)
    return AnnotatedImage(name, height, width, regions, number, seconds)


def _numbered(picture: Pixels, found: SegmentedFrame) -> Pixels:
    """The number of each track on its region."""
    page = Image.fromarray(picture)
    draw = ImageDraw.Draw(page)
    font = ImageFont.load_default(size=max(page.height / 32, 10))
    for track in found.tracks.values():
        rows, columns = np.nonzero(found.track_map == track.number)
        middle = len(rows) // 2  # a pixel of the region itself, unlike its centre
        draw.text(
            (float(columns[middle]), float(rows[middle])), f"#{track.number}", "white", font,
            anchor="mm", stroke_width=2, stroke_fill="black",
        )  # fmt: skip
    return np.array(page)
