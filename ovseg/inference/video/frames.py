"""From the frames of a video to labels, by words or by a mask of the first frame.

Letters: M window, N position, L label, h w grid, H W frame.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from ovseg.data.class_list import BACKGROUND
from ovseg.data.images import Pixels
from ovseg.data.video import Frame
from ovseg.errors import DataError, UsageError
from ovseg.inference.encode import EncodedView, PositionEncoder, encode_views
from ovseg.inference.groups import nearest_position
from ovseg.inference.labeller import Grid, Labeller
from ovseg.inference.labels import strongest
from ovseg.inference.maps import PositionMaps
from ovseg.inference.protocol import Protocol, own
from ovseg.inference.refine.chain import Step
from ovseg.inference.refinement import guide_of
from ovseg.inference.result import Segmentation
from ovseg.inference.video.correspondence import Correspondence, Remembered
from ovseg.inference.video.cuts import CutDetector
from ovseg.inference.video.memory import Features, Memory
from ovseg.inference.video.tracks import Track, Tracker
from ovseg.inference.views import View, views_of
from ovseg.models.interface import Array, SegmentationModel, to_numpy

DINO = Correspondence()
FOR_WORDS = Correspondence(last=2, radius=6, top=10)
"""Each frame says itself what it shows: fewer others suffice (docs/video.md)."""

_SIDE_TO_FOLLOW = 640
"""Pixels: outlines and small objects need a finer grid than classes do (docs/video.md)."""


@dataclass(frozen=True)
class VideoSettings:
    """How frames have to do with each other.

    Attributes:
        steadiness: share of what other frames say, 0 (each frame alone) to 1; for words.
        look_ahead: frames that follow that count, too; the result comes as many frames later.
        features: timm model whose features frames are compared by, as NAME or NAME@FILE; empty for
            the model's own.
        words: how they are compared where labels are of words.
        masks: how they are compared where a first mask is followed.

    Raises:
        UsageError: a number is out of range.
    """

    steadiness: float = 0.9
    look_ahead: int = 0
    features: str = ""
    words: Correspondence = FOR_WORDS
    masks: Correspondence = DINO

    def __post_init__(self) -> None:
        if not 0 <= self.steadiness <= 1:
            raise UsageError(f"steadiness {self.steadiness}: give 0 (each frame alone) to 1")
        if self.look_ahead < 0:
            raise UsageError(f"look-ahead {self.look_ahead}: give a number of frames")


class SegmentedFrame(NamedTuple):
    """A frame and what is in it.

    Attributes:
        frame: as it was read.
        result: its labels.
        cut: whether another scene begins with it.
        track_map: number of the track of each pixel, int32 [H, W]; 0 for none.
        tracks: by number.
        features: what it is compared with other frames by.
    """

    frame: Frame
    result: Segmentation
    cut: bool
    track_map: NDArray[np.int32]
    tracks: dict[int, Track]
    features: Features


class _Encoded(NamedTuple):
    frame: Frame
    cut: bool
    views: list[EncodedView]
    features: list[Features]


class _Encoder:
    """Frames as the model sees them, and what they are compared by."""

    def __init__(
        self, model: SegmentationModel, settings: VideoSettings, protocol: Protocol
    ) -> None:
        self.model = model
        self.protocol = protocol
        named = settings.features
        self._guide: PositionEncoder | None = (
            guide_of(Step("affinity", named), model) if named else None
        )
        self._cuts = CutDetector()

    def __call__(self, frame: Frame) -> _Encoded:
        looks = views_of(frame.pixels, self.protocol, self.model.preprocessing)
        views = encode_views(self.model, looks)
        return _Encoded(frame, self._cuts.is_cut(frame.pixels), views, self._features(looks, views))

    def _features(self, looks: Sequence[View], views: list[EncodedView]) -> list[Features]:
        seen = views if self._guide is None else encode_views(self._guide, looks)
        return [Features.of(each) for each in seen]


def segment_frames(
    frames: Iterable[Frame], labeller: Labeller, settings: VideoSettings
) -> Iterator[SegmentedFrame]:
    """Label frames in order, each when its result is asked for.

    Args:
        frames: of one size.
        labeller: with the classes and the way to look at a frame.
        settings: how frames have to do with each other.
    """
    encode = _Encoder(labeller.model, settings, labeller.protocol)
    scale = labeller.protocol.scale if labeller.protocol.rule == "probability" else 0.0
    memory = Memory(settings.words, settings.steadiness, scale)
    tracker = Tracker()
    waiting: deque[_Encoded] = deque()
    for frame in frames:
        waiting.append(encode(frame))
        if len(waiting) > settings.look_ahead:
            yield _labelled(labeller, memory, tracker, waiting)
    while waiting:
        yield _labelled(labeller, memory, tracker, waiting)


def _labelled(
    labeller: Labeller, memory: Memory, tracker: Tracker, waiting: deque[_Encoded]
) -> SegmentedFrame:
    """The first of the frames that wait, by those before and those behind it in its scene."""
    now = waiting.popleft()
    if now.cut:
        memory.forget()
        tracker.forget()
    memory.begin()
    ahead = []
    for each in waiting:
        if each.cut:
            break
        ahead.append((each, labeller.patch_scores(each.views, each.frame.pixels.shape[:2])))

    def steadied(view: int, scores: Array, grid: Grid) -> Array:
        later = [(each.features[view], found[view][0]) for each, found in ahead]
        return memory.steadied(view, now.features[view], scores, grid, later)

    steady = steadied if memory.steadiness else None
    result = labeller.segment(now.frame.pixels, now.views, steady)
    track_map, tracks = tracker.update(result.labels)
    return SegmentedFrame(now.frame, result, now.cut, track_map, tracks, now.features[0])


def to_follow(model: SegmentationModel, **changes: Any) -> Protocol:
    """How a model looks at frames whose objects are followed; `changes` are fields."""
    side = changes.get("short_side") or _SIDE_TO_FOLLOW
    return own(**{**changes, "short_side": side}).for_model(model)


def follow_mask(
    frames: Iterable[Frame],
    first_mask: NDArray[np.integer],
    model: SegmentationModel,
    protocol: Protocol,
    settings: VideoSettings,
) -> Iterator[SegmentedFrame]:
    """Carry the objects of the first frame's mask through a video, without any words.

    Args:
        frames: of one size.
        first_mask: number of the object at each pixel of the first frame, [H, W]; 0 is background.
        model: whose features frames are compared by, if the settings name no other.
        protocol: how the model looks at a frame, as `to_follow` says; its windows are not used.
        settings: `masks` and `features` count.

    Raises:
        DataError: the mask is not of the frames' size, or empty.
    """
    encode = _Encoder(model, settings, protocol)
    follower = MaskFollower(settings.masks, first_mask)
    for frame in frames:
        seen = encode(frame)
        yield follower.labelled(frame, seen.features[0], seen.cut)


class MaskFollower:
    """The objects of a mask from frame to frame.

    Args:
        settings: how frames are compared.
        first_mask: number of the object at each pixel of the first frame, [H, W]; 0 is background.

    Raises:
        DataError: it holds no object.
    """

    def __init__(self, settings: Correspondence, first_mask: NDArray[np.integer]) -> None:
        self._settings = settings
        self._mask = first_mask
        self._numbers = np.unique(np.append(first_mask, 0))  # of the objects, background first
        if len(self._numbers) < 2:
            raise DataError("the first mask holds no object: paint each with a number of its own")
        self._first: Remembered | None = None
        self._last: deque[Remembered] = deque(maxlen=max(settings.last, 1))

    def labelled(self, frame: Frame, features: Features, cut: bool) -> SegmentedFrame:
        """The objects in the next frame; in the first one the mask itself."""
        size, is_first = (frame.pixels.shape[0], frame.pixels.shape[1]), self._first is None
        maps = self._maps(features, size)  # [h*w, L]
        on_pixels = PositionMaps.on_grid(maps.reshape(*features.grid, -1), size)
        scores, winner = (to_numpy(each) for each in strongest(on_pixels))
        if is_first:
            winner = np.searchsorted(self._numbers, self._mask)
        return self._result(frame, cut, winner, scores, to_numpy(maps), features)

    def _maps(self, features: Features, size: tuple[int, int]) -> Array:
        window = features.windows[0]
        if self._first is None:
            if self._mask.shape != size:
                raise DataError(
                    f"the first mask has {self._mask.shape[1]}×{self._mask.shape[0]} pixels, but "
                    f"the video {size[1]}×{size[0]}"
                )
            shares = shares_of(self._mask, self._numbers, features.grid)
            self._first = Remembered(window, _like(shares, window))
            return self._first.maps
        context = [self._first, *(self._last if self._settings.last else ())]
        maps = self._settings.carry(window, context, features.grid)
        self._last.append(Remembered(window, maps))
        return maps

    def _result(
        self,
        frame: Frame,
        cut: bool,
        winner: NDArray[Any],
        scores: NDArray[Any],
        maps: NDArray[Any],
        features: Features,
    ) -> SegmentedFrame:
        size = frame.pixels.shape[0], frame.pixels.shape[1]
        names = (BACKGROUND, *(f"object {number}" for number in self._numbers[1:]))
        result = Segmentation(
            image=frame.pixels,
            classes=names,
            labels=winner.astype(np.uint16),
            scores=scores.astype(np.float32),
            group_map=lambda: nearest_position(features.grid, size).astype(np.int32),
            group_scores=maps.astype(np.float32),
        )
        there = np.unique(winner[winner > 0]).tolist()
        tracks = {int(self._numbers[each]): Track(int(self._numbers[each]), each) for each in there}
        track_map = self._numbers[winner].astype(np.int32)
        return SegmentedFrame(frame, result, cut, track_map, tracks, features)


def shares_of(
    mask: NDArray[Any], numbers: Sequence[int] | NDArray[np.integer], grid: Grid
) -> NDArray[np.float32]:
    """Share of each of the numbers in the cells of a grid over a mask [H, W], float [h*w, L]."""
    shares = [
        cv2.resize(
            (mask == number).astype(np.float32), (grid[1], grid[0]), interpolation=cv2.INTER_AREA
        ).ravel()
        for number in numbers
    ]
    return np.stack(shares, axis=1)


def _like(values: NDArray[np.float32], array: Array) -> Array:
    if isinstance(array, np.ndarray):
        return values
    import torch

    return torch.from_numpy(values).to(array)


def as_frames(pixels: Iterable[Pixels], rate: float = 25.0) -> Iterator[Frame]:
    """Arrays, uint8 [H, W, 3], as frames."""
    size: tuple[int, int] | None = None
    for number, each in enumerate(pixels):
        size = size or (each.shape[0], each.shape[1])
        if each.shape[:2] != size:
            raise DataError(f"frame {number} is not of the first one's size, {size[1]}×{size[0]}")
        yield Frame(number, number / rate, each)
