"""What is remembered of a video while its frames are labelled one after the other.

Letters: V view, M window, N position of the features, P position of the scores, C feature width, L
label or phrase.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ovseg.inference.encode import EncodedView
from ovseg.inference.refine.affinity import unit_rows
from ovseg.inference.resize import resize_bilinear
from ovseg.inference.video.correspondence import Correspondence, Remembered
from ovseg.models.interface import Array, array_namespace

Grid = tuple[int, int]

DETAIL = 0.8
"""How much of a frame's own finer detail is left out at a steadiness of 1."""
_LEAST = 1e-9


@dataclass(frozen=True)
class Features:
    """What the positions of a view's windows are compared by, float [M, N, C] of length 1."""

    windows: Array
    grid: Grid

    @classmethod
    def of(cls, view: EncodedView) -> "Features":
        """Those that the model, or whatever the view was encoded with, offers."""
        windows, grid = view.grouped.correspondence
        return cls(unit_rows(windows), grid)


class Memory:
    """The frames before, of every view; makes the scores of a frame steadier by them.

    Mixed are shares: how likely each label is among all at a position. Scores themselves may lie
    orders of magnitude apart, so that one sure position would outweigh all others. They are mixed
    on the grid of the features. What is finer in the frame's own shares flickers most, and is kept
    in part (`DETAIL`).

    Args:
        settings: how frames are compared.
        steadiness: share of what is carried from other frames, above 0 and at most 1.
        scale: what scores are multiplied by before a softmax makes shares of them; 0 where they
            are none below 0 and count as they are.
    """

    def __init__(self, settings: Correspondence, steadiness: float, scale: float = 0.0) -> None:
        self.settings = settings
        self.steadiness = steadiness
        self.scale = scale
        self._first: dict[int, list[Remembered]] = {}
        self._last: deque[dict[int, list[Remembered]]] = deque(maxlen=max(settings.last, 1))
        self._now: dict[int, list[Remembered]] = {}

    def forget(self) -> None:
        """Begin anew, as after a cut."""
        self._first, self._now = {}, {}
        self._last.clear()

    def begin(self) -> None:
        """A new frame: what was mixed for the one before is remembered."""
        if not self._now:
            return
        if self._first:
            self._last.append(self._now)
        else:
            self._first = self._now
        self._now = {}

    def steadied(
        self,
        view: int,
        features: Features,
        scores: Array,
        grid: Grid,
        ahead: Sequence[tuple[Features, Array]] = (),
    ) -> Array:
        """Shares of the labels at a view's positions, float [M, P, L], mixed with other frames'.

        Args:
            view: its number.
            features: of this frame.
            scores: of this frame, on `grid`.
            grid: rows and columns (h, w) of P.
            ahead: features and scores of frames that follow.
        """
        xp: Any = array_namespace(scores)
        fine = shares_of_labels(scores, self.scale)
        own = on_grid(fine, grid, features.grid)
        later = [
            (each, on_grid(shares_of_labels(found, self.scale), grid, each.grid))
            for each, found in ahead
        ]
        mixed = []
        for window in range(scores.shape[0]):
            context = [*self._before(view, window), *_of_window(later, window)]
            carried = self._carried(features, window, context, own[window])
            mixed.append((1 - self.steadiness) * own[window] + self.steadiness * carried)
        self._now[view] = [
            Remembered(features.windows[window], maps) for window, maps in enumerate(mixed)
        ]
        detail = fine - on_grid(own, features.grid, grid)
        coarse = on_grid(xp.stack(mixed), features.grid, grid)
        return coarse + (1 - DETAIL * self.steadiness) * detail

    def _carried(
        self, features: Features, window: int, context: list[Remembered], own: Array
    ) -> Array:
        if not context:
            return own
        return self.settings.carry(features.windows[window], context, features.grid)

    def _before(self, view: int, window: int) -> list[Remembered]:
        frames = [self._first, *self._last] if self.settings.last else [self._first]
        return [frame[view][window] for frame in frames if view in frame]


def shares_of_labels(scores: Array, scale: float) -> Array:
    """Scores of positions, float [M, P, L], as shares that sum to 1; `scale` as in `Memory`."""
    xp: Any = array_namespace(scores)
    if scale:
        scores = xp.exp(scale * (scores - xp.max(scores, axis=-1, keepdims=True)))
    return scores / xp.clip(xp.sum(scores, axis=-1, keepdims=True), min=_LEAST)


def _of_window(later: Sequence[tuple[Features, Array]], window: int) -> list[Remembered]:
    return [Remembered(each.windows[window], scores[window]) for each, scores in later]


def on_grid(scores: Array, grid: Grid, wanted: Grid) -> Array:
    """Scores of positions, float [M, P, L], at those of another grid of the same windows.

    A finer grid is averaged, a coarser one interpolated.
    """
    if grid == wanted:
        return scores
    xp: Any = array_namespace(scores)
    count, labels = scores.shape[0], scores.shape[-1]
    rows, columns = grid[0] // wanted[0], grid[1] // wanted[1]
    if (rows * wanted[0], columns * wanted[1]) == grid:
        blocks = xp.reshape(scores, (count, wanted[0], rows, wanted[1], columns, labels))
        return xp.reshape(xp.mean(blocks, axis=(2, 4)), (count, -1, labels))
    maps = xp.permute_dims(xp.reshape(scores, (count, *grid, labels)), (0, 3, 1, 2))
    resized = xp.permute_dims(resize_bilinear(maps, wanted), (0, 2, 3, 1))
    return xp.reshape(resized, (count, -1, labels))
