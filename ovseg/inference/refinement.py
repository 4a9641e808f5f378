"""What the refinements of a protocol do to the scores of an image: on patches, then on pixels.

Letters: M window, G group, N position, C feature width, L map, h w grid, H W original image.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from array_api_compat import is_torch_array
from numpy.typing import NDArray

from ovseg.errors import MissingDependencyError
from ovseg.inference.derived_maps import MergedMaps, RefinedMaps, ResizedMaps, best_of_classes
from ovseg.inference.encode import EncodedView, PositionEncoder, encode_views
from ovseg.inference.maps import PositionMaps, Refiner, ScoreMaps, WindowMaps
from ovseg.inference.protocol import Protocol
from ovseg.inference.refine.affinity import unit_rows
from ovseg.inference.refine.chain import PROPAGATING, SHRINKING, Step, parse_chain
from ovseg.inference.refine.pamr import Pamr
from ovseg.inference.refine.patch_graph import PatchGraph
from ovseg.inference.refine.pixel_graph import PixelGraph
from ovseg.inference.resize import resize_bilinear
from ovseg.inference.views import View
from ovseg.inference.window_probabilities import WindowProbabilities
from ovseg.models.enlarging import at_grid
from ovseg.models.interface import (
    Array,
    GroupedImage,
    Preprocessing,
    SegmentationModel,
    array_namespace,
    to_numpy,
)

Phrases = tuple[int, ...] | None
"""Class of each phrase, never decreasing; None where there is a column per class."""


class Refinement:
    """The steps of a protocol, with the backbones whose features some go by.

    Args:
        model: whose scores are refined.
        protocol: with the steps and their settings.

    Raises:
        OvsegError: a backbone cannot be loaded.
    """

    def __init__(self, model: SegmentationModel, protocol: Protocol) -> None:
        self.model = model
        self.protocol = protocol
        steps = parse_chain(protocol.refine)
        self.on_patches = [step for step in steps if step.on_patches]
        self.on_pixels = [step for step in steps if not step.on_patches]
        self.merges = any(step.name in PROPAGATING for step in self.on_patches)
        self.guides = {step: guide_of(step, model) for step in self.on_patches if step.backbone}

    def of_pixels(self, maps: ScoreMaps, view: View) -> ScoreMaps:
        """Maps at the original size after the steps on its pixels; `view` shows the image."""
        for step in self.on_pixels:
            maps = RefinedMaps(maps, self.refiner(step, view, maps.shape))
        return maps

    def refiner(self, step: Step, view: View, size: tuple[int, int]) -> Refiner:
        """A step on pixels for maps of some size, guided by the pixels of a view."""
        if step.name == "guided":
            image = self.model.from_numpy(colours(view, self.model.preprocessing))
            return self.protocol.guided.guided_by(resize_bilinear(image, size))
        pamr = Pamr(self.protocol.pamr_iterations, self.protocol.pamr_dilations)
        return pamr.guided_by(resize_bilinear(self.model.from_numpy(view.pixels), size))


@dataclass(frozen=True)
class RefinedView:
    """An encoded view with what cleaning its scores takes, worked out once.

    Attributes:
        refinement: the steps.
        source: the view as it was encoded.
        steady: a last step on patches, from scores [M, h*w, L] and their grid (h, w) to the share
            of each label; None for none.
    """

    refinement: Refinement
    source: EncodedView
    steady: Callable[[Array, tuple[int, int]], Array] | None = None

    @property
    def changes_patches(self) -> bool:
        """Whether there is a step on patches."""
        return bool(self.refinement.on_patches) or self.steady is not None

    @cached_property
    def encoded(self) -> EncodedView:
        """The view on the grid of the first named backbone, whose patches then have the scores."""
        named = [step for step in self.refinement.on_patches if step.backbone]
        if not named:
            return self.source
        grid = self._looked_at[named[0]].grid
        return EncodedView(_on_grid(self.source.grouped, grid), self.source.view)

    def averages_probabilities(self, *, direct: bool) -> bool:
        """Whether maps of phrases become probabilities in each window."""
        protocol = self.refinement.protocol
        wanted = protocol.rule == "probability" and protocol.average == "probabilities"
        return wanted and not (direct or self.refinement.merges or self.steady)

    def maps(
        self, scores: Array, size: tuple[int, int], *, direct: bool, classes: Phrases = None
    ) -> ScoreMaps:
        """Maps of scores of groups or positions, [M, G, L], after the steps on patches.

        After label propagation the best phrase of a class counts before maps get their last size,
        as in the released code.

        Args:
            scores: a column per class, or per phrase if `classes` says so.
            size: rows and columns (H, W) of the maps.
            direct: whether the only grid goes straight to that size.
            classes: of each phrase.
        """
        protocol, view = self.refinement.protocol, self.source.view
        corners = protocol.align_corners
        scores = self._scores(scores)
        if protocol.refine_windows and self.refinement.on_pixels:
            return self._in_windows(scores, size)
        if self.averages_probabilities(direct=direct):
            return WindowProbabilities.of(scores, self.encoded, size, protocol.scale)
        names = {step.name for step in self.refinement.on_patches}
        if not names & set(PROPAGATING):
            return PositionMaps.of(scores, self.encoded, size, direct=direct, align_corners=corners)
        shrunk = max((SHRINKING.get(name, 0) for name in names), default=0)
        if direct and not shrunk:
            merged = scores if classes is None else best_of_classes(scores, classes)
            return PositionMaps.of(merged, self.encoded, size, direct=True, align_corners=corners)
        graph = self._pixel_graph(shrunk) if shrunk else None
        shape = view.shape if graph is None else graph.shape
        maps: ScoreMaps = PositionMaps.of(
            scores, self.encoded, shape, direct=direct, align_corners=corners
        )
        if graph is not None:
            maps = RefinedMaps(maps, graph)
        return ResizedMaps(maps if classes is None else MergedMaps(maps, classes), size)

    def _scores(self, scores: Array) -> Array:
        """After all steps on patches: [M, h*w, L]."""
        xp: Any = array_namespace(scores)
        scores = at_positions(scores, self.encoded.grouped)
        if not self.changes_patches:
            return scores
        # A background that there is not is -inf. Nobody asks for it, but it must not spread.
        scores = xp.where(scores == -float("inf"), xp.zeros_like(scores), scores)
        for step in self.refinement.on_patches:
            scores = self._after(step, scores)
        if self.steady is None:
            return scores
        return self.steady(scores, self.encoded.grouped.grid)

    def _in_windows(self, scores: Array, size: tuple[int, int]) -> WindowMaps:
        """Scores of positions [M, h*w, L] after the steps on the pixels of each window."""
        xp: Any = array_namespace(scores)
        view = self.source.view
        grids = xp.reshape(scores, (len(view.boxes), *self.encoded.grouped.grid, scores.shape[-1]))
        corners = self.refinement.protocol.align_corners
        return WindowMaps(grids, self._window_refiners, view, size, corners)

    @cached_property
    def _window_refiners(self) -> list[list[Refiner]]:
        view = self.source.view
        windows = (
            View(view.pixels[:, box.slices[0], box.slices[1]], (), view.padding)
            for box in view.boxes
        )
        return [
            [self.refinement.refiner(step, each, each.shape) for step in self.refinement.on_pixels]
            for each in windows
        ]

    def _after(self, step: Step, scores: Array) -> Array:
        xp: Any = array_namespace(scores)
        settings = self.refinement.protocol
        if step.name == "affinity":
            return settings.affinity.refine(scores, self._features(step))
        nodes = xp.reshape(scores, (-1, scores.shape[-1]))
        spread = self._patch_graphs[step].propagate(nodes)
        return xp.reshape((1 - settings.lposs.alpha) * spread, scores.shape)

    @cached_property
    def _patch_graphs(self) -> dict[Step, PatchGraph]:
        settings = self.refinement.protocol.lposs
        places = patch_places(self.source.view, self.encoded.grouped.grid)
        found = {}
        for step in self.refinement.on_patches:
            if step.name != "affinity":
                features = self._features(step)
                xp: Any = array_namespace(features)
                nodes = unit_rows(xp.reshape(features, (-1, features.shape[-1])))
                found[step] = PatchGraph.of(nodes, places, settings)
        return found

    def _pixel_graph(self, shrunk: int) -> PixelGraph:
        """The pixels of the network's image, made smaller by a factor."""
        if shrunk not in self._pixel_graphs:
            model, settings = self.refinement.model, self.refinement.protocol.lposs
            image = model.from_numpy(colours(self.source.view, model.preprocessing))
            rows, columns = (max(round(side / shrunk), 1) for side in self.source.view.shape)
            settings = replace(settings, diameter=2 * (settings.reach // shrunk) + 1)
            graph = PixelGraph.of(resize_bilinear(image, (rows, columns)), settings)
            self._pixel_graphs[shrunk] = graph
        return self._pixel_graphs[shrunk]

    @cached_property
    def _pixel_graphs(self) -> dict[int, PixelGraph]:
        return {}

    def _features(self, step: Step) -> Array:
        """Features of the positions, float [M, N, C]: of the backbone, or the model's own."""
        if step.backbone:
            seen = self._looked_at[step]
            return _on_grid(seen, self.encoded.grouped.grid).embedding
        return at_grid(self.encoded.grouped).own_features

    @cached_property
    def _looked_at(self) -> dict[Step, GroupedImage]:
        """What the named backbones see in the windows."""
        return {step: self._seen_by(guide) for step, guide in self.refinement.guides.items()}

    def _seen_by(self, guide: PositionEncoder) -> GroupedImage:
        (found,) = encode_views(guide, [self.source.view])
        features = found.grouped.embedding
        if not is_torch_array(self.source.grouped.embedding):
            features = to_numpy(features).astype(np.float32)
        return GroupedImage(features, found.grouped.grid)


def at_positions(scores: Array, grouped: GroupedImage) -> Array:
    """Scores of groups [M, G, L] as those of the strongest group at each position, [M, N, L]."""
    if grouped.assignment is None:
        return scores
    xp: Any = array_namespace(scores)
    strongest = xp.argmax(grouped.assignment, axis=1)  # [M, N]
    rows = [xp.take(each, found, axis=0) for each, found in zip(scores, strongest, strict=True)]
    return xp.stack(rows)


def patch_places(view: View, grid: tuple[int, int]) -> NDArray[np.float64]:
    """Row and column of every patch of every window in pixels of the view, [M*h*w, 2]."""
    padding = view.padding
    rows, columns = (
        np.arange(count) * (side / count) for count, side in zip(grid, padding.shape, strict=True)
    )
    places = [
        np.stack(
            np.meshgrid(
                rows + box.top - padding.above, columns + box.left - padding.before, indexing="ij"
            ),
            axis=-1,
        ).reshape(-1, 2)
        for box in view.boxes
    ]
    return np.concatenate(places)


def colours(view: View, preprocessing: Preprocessing) -> NDArray[np.float32]:
    """The pixels of a view as RGB in 0..1, float32 [3, H', W']."""
    mean, std = (
        np.array(values, np.float32)[:, None, None]
        for values in (preprocessing.mean, preprocessing.std)
    )
    return np.clip((view.pixels * std + mean) / 255, 0, 1).astype(np.float32)


def _on_grid(grouped: GroupedImage, grid: tuple[int, int]) -> GroupedImage:
    """The same on another grid: embeddings of positions, or shares of groups, resized."""
    if grouped.grid == grid:
        return grouped
    grouped = at_grid(grouped)
    xp: Any = array_namespace(grouped.embedding)

    def resized(values: Array) -> Array:  # [M, x, N]
        maps = xp.reshape(values, (*values.shape[:2], *grouped.grid))
        return xp.reshape(resize_bilinear(maps, grid), (*values.shape[:2], -1))

    if grouped.assignment is not None:
        return replace(grouped, grid=grid, assignment=resized(grouped.assignment))
    embedding = xp.matrix_transpose(resized(xp.matrix_transpose(grouped.embedding)))
    attention = None if grouped.attention is None else resized(grouped.attention)
    weights = grouped.weights
    if weights is not None:
        weights = xp.matrix_transpose(resized(xp.matrix_transpose(weights)))
    return replace(grouped, grid=grid, embedding=embedding, attention=attention, weights=weights)


def guide_of(step: Step, model: SegmentationModel) -> PositionEncoder:
    """The backbone of a step, on the model's device; loaded once for all who ask for it."""
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            "torch", "torch", f"refine {step.name} by a backbone"
        ) from error
    values = model.from_numpy(np.zeros(1, np.float32))
    where = str(values.device) if is_torch_array(values) else "cpu"
    pixels = model.preprocessing
    return _loaded_guide(step, pixels.mean, pixels.std, where)


@lru_cache(maxsize=4)
def _loaded_guide(
    step: Step, mean: tuple[float, float, float], std: tuple[float, float, float], device: str
) -> PositionEncoder:
    from ovseg.models.clip.guide import GuideModel, load_guide
    from ovseg.models.normalisation import Normalisation

    network = load_guide(step.backbone, Normalisation.of_levels(mean, std))
    return GuideModel(network, step.name != "affinity", device)
