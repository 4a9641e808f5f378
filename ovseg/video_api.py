"""The verbs for videos: what the command line does with them, as functions of Python."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ovseg.errors import UsageError

if TYPE_CHECKING:
    from ovseg.data.video import Clip, Video
    from ovseg.evaluation.video.measure import AskedVideos, Followed
    from ovseg.inference.segmenter import Classes
    from ovseg.inference.video.frames import SegmentedFrame, VideoSettings
    from ovseg.inference.video.video_folder import VideoFolder
    from ovseg.teaching.examples import Example


@dataclass
class SegmentedVideo:
    """The frames of a video in order, computed as they are taken; to be gone through once.

    Attributes:
        video: what is segmented.
        frames: one by one.
        folder: where each is written before it is handed over; None for nowhere.
        cuts: numbers of the frames with which another scene began, so far.
    """

    video: "Video"
    frames: "Iterator[SegmentedFrame]"
    folder: "VideoFolder | None" = None
    rate: Fraction = Fraction(25)
    cuts: list[int] = field(default_factory=list)

    def __iter__(self) -> "Iterator[SegmentedFrame]":
        with self.folder.run(self.rate) if self.folder else nullcontext():
            for found in self._written():
                if found.cut:
                    self.cuts.append(found.frame.number)
                yield found

    def _written(self) -> "Iterator[SegmentedFrame]":
        """Frames after they were written, which a thread does while the next one is computed."""
        folder = self.folder
        if folder is None:
            yield from self.frames
            return
        from concurrent.futures import ThreadPoolExecutor

        from ovseg.data.workers import map_chunks

        def write(found: "SegmentedFrame") -> "SegmentedFrame":
            folder.write(found)
            return found

        with ThreadPoolExecutor(1) as pool:
            for written in map_chunks(pool, write, ([each] for each in self.frames), ahead=2):
                yield from written

    @property
    def files(self) -> list[Path]:
        """What is written."""
        return self.folder.files if self.folder else []


def segment_video(
    video: str | Path,
    classes: "Classes | None" = None,
    model: str | Path = "starter",
    device: str = "auto",
    *,
    first_mask: str | Path | None = None,
    output: str | Path | None = None,
    clip: "Clip | None" = None,
    settings: "VideoSettings | None" = None,
    numbers: bool = False,
    examples: "Sequence[str | Example]" = (),
    **options: Any,
) -> SegmentedVideo:
    """Segment a video, by any classes one can name or by a mask of its first frame.

    Args:
        video: a file, or a folder of numbered pictures.
        classes: as `segment` takes them; None with a first mask.
        model, device: as `segment` takes them.
        first_mask: a label map of the first frame, whose objects are followed without any words.
        output: folder for the video with its labels, a label map a frame, and tracks; None for
            none.
        clip: which frames.
        settings: how frames have to do with each other.
        numbers: whether tracks have their numbers in the picture.
        examples: as `segment` takes them.
        options: fields of `Protocol`, such as `background=False`.

    Returns:
        the frames, computed as they are taken.

    Raises:
        UsageError: neither classes nor a mask are given, or both; or an option makes no sense.
        DataError: the video or the mask cannot be read, or do not go together.
        MissingDependencyError: PyAV is not installed.
    """
    from ovseg.data.video import ALL, open_video
    from ovseg.data.workers import read_ahead
    from ovseg.inference.segmenter import as_class_list
    from ovseg.inference.video.frames import (
        VideoSettings,
        follow_mask,
        segment_frames,
        to_follow,
    )
    from ovseg.inference.video.video_folder import VideoFolder
    from ovseg.teaching.shown import shown

    if (classes is None) == (first_mask is None):
        raise UsageError("give classes, or a mask of the first frame")
    if first_mask is not None and examples:
        raise UsageError("give examples of classes, or a mask of the first frame, not both")
    settings, clip = settings or VideoSettings(), clip or ALL
    opened = open_video(Path(video), clip)
    segmenter = shown(model, device, examples)
    frames = read_ahead(opened)
    if classes is not None:
        labeller = segmenter.labeller(as_class_list(classes), **options)
        segmenter.warn_of_unknown(labeller.classes)
        names, found = labeller.classes.names, segment_frames(frames, labeller, settings)
    else:
        from ovseg.evaluation.sets.label_files import read_index_png

        mask = read_index_png(Path(str(first_mask)))
        protocol = to_follow(segmenter.model, **options)
        found = follow_mask(frames, mask, segmenter.model, protocol, settings)
        names = tuple(f"object {number}" for number in np.unique(mask[mask > 0]))
    folder = VideoFolder(Path(output), opened, names, numbers=numbers) if output else None
    return SegmentedVideo(opened, found, folder, opened.rate / clip.every)


def evaluate_video(
    data: str | Path,
    model: str | Path = "starter",
    device: str = "auto",
    *,
    words: str | Path | None = None,
    first_mask: bool = False,
    settings: "VideoSettings | None" = None,
    limit: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> "Followed | AskedVideos":
    """Evaluate a model on videos with a mask for every frame, in DAVIS' layout.

    Args:
        data: folder with `JPEGImages` and `Annotations`.
        model, device, options: as `segment_video` takes them.
        words: file that says what to ask for in each sequence, as lines `dog: dog;puppy`;
            `words.txt` in the folder by default.
        first_mask: follow the objects of each sequence's first mask instead: J and F.
        settings: how frames have to do with each other.
        limit: only the first sequences, for a trial.
        on_progress: called with frames done and in all.

    Raises:
        DataError: sequences or words are missing or damaged.
    """
    from ovseg.evaluation.video.davis import WORDS_FILE, check_words, read_davis, read_words
    from ovseg.evaluation.video.measure import measure_following, measure_words
    from ovseg.inference.segmenter import Segmenter
    from ovseg.inference.video.frames import VideoSettings

    sequences = read_davis(Path(data))[:limit]
    total, done = sum(len(each.masks) for each in sequences), 0

    def progress(frames: int) -> None:
        nonlocal done
        done += frames
        if on_progress:
            on_progress(done, total)

    segmenter = Segmenter.from_pretrained(model, device)
    chosen = settings or VideoSettings()
    if first_mask:
        return measure_following(segmenter, sequences, chosen, progress, **options)
    path = Path(words) if words else Path(data) / WORDS_FILE
    asked = read_words(path)
    check_words(asked, sequences, path)
    return measure_words(segmenter, sequences, asked, chosen, progress, **options)
