"""How steady the labels of a video are. Constant wrong labels are perfectly steady: mIoU belongs
beside every figure.
"""

from collections import deque

import cv2
import numpy as np
from numpy.typing import NDArray

from ovseg.inference.video.correspondence import Correspondence, Remembered
from ovseg.inference.video.frames import shares_of
from ovseg.inference.video.memory import Features
from ovseg.models.interface import to_numpy

Labels = NDArray[np.integer] | NDArray[np.bool_]  # [H, W]


def flicker(before: Labels, now: Labels, true_before: Labels, true_now: Labels) -> float:
    """Share of the pixels whose true label stays that change their label."""
    stays = true_before == true_now
    return float((before != now)[stays].mean()) if stays.any() else 0.0


class VideoConsistency:
    """VC_n (Miao et al., VSPW, CVPR 2021): of the pixels whose true label stays for n frames, the
    share that has the right label in all of them; the mean over all runs of n frames.
    """

    def __init__(self, frames: int) -> None:
        self.frames = frames
        self._found: deque[Labels] = deque(maxlen=frames)
        self._true: deque[Labels] = deque(maxlen=frames)
        self._shares: list[float] = []

    def add(self, found: Labels, true: Labels) -> None:
        """Take the next frame."""
        self._found.append(found)
        self._true.append(true)
        if len(self._true) < self.frames:
            return
        first = self._true[0]
        stays = np.all([each == first for each in self._true], axis=0)
        right = np.all([each == first for each in self._found], axis=0)
        if stays.any():
            self._shares.append(float(right[stays].mean()))

    @property
    def mean(self) -> float | None:
        """None where the video is too short."""
        return float(np.mean(self._shares)) if self._shares else None


class FlowConsistency:
    """Agreement of each frame's labels with those before, brought along by optical flow.

    The flow is OpenCV's DIS (Kroeger et al., ECCV 2016), which has no network and no weights.
    """

    def __init__(self) -> None:
        self._flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
        self._before: tuple[NDArray[np.uint8], Labels] | None = None
        self._shares: list[float] = []

    def add(self, pixels: NDArray[np.uint8], labels: Labels) -> None:
        """Take the next frame, RGB uint8 [H, W, 3], and its labels."""
        grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
        if self._before is not None:
            flow = self._flow.calc(grey, self._before[0], None)  # where each pixel was
            rows, columns = np.indices(labels.shape, dtype=np.float32)
            places = (columns + flow[..., 0], rows + flow[..., 1])
            came = cv2.remap(
                self._before[1].astype(np.uint16), *places, cv2.INTER_NEAREST,
                borderMode=cv2.BORDER_REPLICATE,
            )  # fmt: skip
            self._shares.append(agreement(came, labels))
        self._before = grey, labels

    @property
    def mean(self) -> float | None:
        return float(np.mean(self._shares)) if self._shares else None


class AffinityConsistency:
    """The same, brought along by the features that the model offers, on their grid.

    Views of several windows are left out.
    """

    def __init__(self) -> None:
        self._before: Remembered | None = None
        self._shares: list[float] = []

    def add(self, features: Features, labels: Labels) -> None:
        """Take the next frame's features and its labels, bool [H, W]."""
        if len(features.windows) != 1:
            return
        window = to_numpy(features.windows[0])
        shares = shares_of(labels, (0, 1), features.grid)
        if self._before is not None:
            came = Correspondence().carry(window, [self._before], features.grid)
            self._shares.append(agreement(came.argmax(axis=1), shares.argmax(axis=1)))
        self._before = Remembered(window, shares)

    @property
    def mean(self) -> float | None:
        return float(np.mean(self._shares)) if self._shares else None


def agreement(one: Labels, other: Labels) -> float:
    """Mean intersection over union of two label maps, over the labels that either has."""
    shares = []
    for label in np.union1d(one, other):
        ours, theirs = one == label, other == label
        shares.append((ours & theirs).sum() / (ours | theirs).sum())
    return float(np.mean(shares))
