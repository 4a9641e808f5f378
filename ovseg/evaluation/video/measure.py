"""A model on videos with masks: by words, or by following the first frame's mask."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ovseg.data.class_list import ClassList
from ovseg.data.video import open_video
from ovseg.evaluation.video.davis import Sequence
from ovseg.evaluation.video.masks import contour_accuracy, region_similarity
from ovseg.evaluation.video.steadiness import (
    AffinityConsistency,
    FlowConsistency,
    VideoConsistency,
    flicker,
)
from ovseg.inference.segmenter import Segmenter
from ovseg.inference.video.frames import (
    SegmentedFrame,
    VideoSettings,
    follow_mask,
    segment_frames,
    to_follow,
)

Progress = Callable[[int], None]


@dataclass(frozen=True)
class FollowedObject:
    """J and F of an object, means over the frames but the first and the last, 0..1."""

    sequence: str
    object: int
    j: float
    f: float


@dataclass(frozen=True)
class Followed:
    """How well objects are followed from their masks in the first frame."""

    objects: tuple[FollowedObject, ...]

    @property
    def j(self) -> float:
        return float(np.mean([each.j for each in self.objects]))

    @property
    def f(self) -> float:
        return float(np.mean([each.f for each in self.objects]))

    def to_dict(self) -> dict[str, Any]:
        """All figures by name; `j_and_f` is DAVIS' main one."""
        mean = (self.j + self.f) / 2
        found = [asdict(each) for each in self.objects]
        return {"j_and_f": mean, "j": self.j, "f": self.f, "objects": found}


@dataclass(frozen=True)
class Asked:
    """How good and how steady the labels of a sequence are, shares in 0..1.

    Attributes:
        sequence: its name.
        miou: mean IoU of object and background over the frames.
        flicker: share of the pixels that change their label where the true one stays.
        vc8, vc16: video consistency; None for shorter videos.
        flow: agreement with the labels before, brought along by optical flow.
        affinity: the same, brought along by the model's own features.
    """

    sequence: str
    miou: float
    flicker: float
    vc8: float | None
    vc16: float | None
    flow: float | None
    affinity: float | None


MEASURES = ("miou", "flicker", "vc8", "vc16", "flow", "affinity")


@dataclass(frozen=True)
class AskedVideos:
    """The same of all sequences."""

    sequences: tuple[Asked, ...]

    def mean(self, name: str) -> float | None:
        """Of one of `MEASURES` over the sequences that have it."""
        found = [getattr(each, name) for each in self.sequences]
        known = [each for each in found if each is not None]
        return float(np.mean(known)) if known else None

    def to_dict(self) -> dict[str, Any]:
        """All figures by name."""
        means = {name: self.mean(name) for name in MEASURES}
        return {**means, "sequences": [asdict(each) for each in self.sequences]}


def measure_following(
    segmenter: Segmenter,
    sequences: Iterable[Sequence],
    settings: VideoSettings,
    progress: Progress,
    **changes: Any,
) -> Followed:
    """Follow the objects of each first mask.

    Args:
        segmenter: with the model whose features are compared.
        sequences: with masks.
        settings: how frames are compared.
        progress: called with 1 after each frame.
        changes: fields of the protocol.
    """
    protocol = to_follow(segmenter.model, **changes)
    found = []
    for sequence in sequences:
        first = _without_void(sequence.mask(0))
        numbers = [int(each) for each in np.unique(first) if each]
        scores: dict[int, list[tuple[float, float]]] = {each: [] for each in numbers}
        frames = open_video(sequence.frames)
        last = len(sequence.masks) - 1
        followed = follow_mask(frames, first, segmenter.model, protocol, settings)
        for at, result in enumerate(followed):
            progress(1)
            if 0 < at < last:
                true = _without_void(sequence.mask(at))
                for number in numbers:
                    pair = result.track_map == number, true == number
                    scores[number].append((region_similarity(*pair), contour_accuracy(*pair)))
        for number, pairs in scores.items():
            j, f = np.mean(pairs, axis=0)
            found.append(FollowedObject(sequence.name, number, float(j), float(f)))
    return Followed(tuple(found))


def measure_words(
    segmenter: Segmenter,
    sequences: Iterable[Sequence],
    words: Mapping[str, ClassList],
    settings: VideoSettings,
    progress: Progress,
    **changes: Any,
) -> AskedVideos:
    """Ask for what each sequence shows.

    Args:
        words: of each sequence; all its objects are what they name, whichever word wins.
        segmenter, sequences, settings, progress, changes: as `measure_following`.
    """
    found = []
    for sequence in sequences:
        labeller = segmenter.labeller(words[sequence.name], **changes)
        frames = open_video(sequence.frames)
        results = segment_frames(frames, labeller, settings)
        found.append(_asked(sequence, _counted(results, progress)))
    return AskedVideos(tuple(found))


def _asked(sequence: Sequence, results: Iterator[SegmentedFrame]) -> Asked:
    overlaps, changes = [], []
    vc8, vc16 = VideoConsistency(8), VideoConsistency(16)
    flow, affinity = FlowConsistency(), AffinityConsistency()
    before: tuple[NDArray[Any], NDArray[Any]] | None = None
    for at, each in enumerate(results):
        found, true = each.result.labels > 0, _without_void(sequence.mask(at)) > 0
        overlaps.append((region_similarity(found, true) + region_similarity(~found, ~true)) / 2)
        if before is not None:
            changes.append(flicker(before[0], found, before[1], true))
        for measure in (vc8, vc16):
            measure.add(found, true)
        flow.add(each.frame.pixels, found)
        affinity.add(each.features, found)
        before = found, true
    return Asked(
        sequence.name,
        float(np.mean(overlaps)),
        float(np.mean(changes)) if changes else 0.0,
        vc8.mean,
        vc16.mean,
        flow.mean,
        affinity.mean,
    )


def _counted(results: Iterator[SegmentedFrame], progress: Progress) -> Iterator[SegmentedFrame]:
    for each in results:
        progress(1)
        yield each


def _without_void(mask: NDArray[np.integer]) -> NDArray[np.integer]:
    """255 is nobody's."""
    return np.where(mask == 255, 0, mask)
