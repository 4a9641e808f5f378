"""Labels of one image from its scores, for tests and benchmarks."""

from typing import Any

from ovseg.inference.encode import EncodedView, encode_views
from ovseg.inference.groups import regions
from ovseg.inference.labels import strongest
from ovseg.inference.maps import PositionMaps, RegionMaps
from ovseg.inference.protocol import Protocol
from ovseg.inference.views import Box, lay_windows
from ovseg.models.interface import GroupedImage


def label_map(
    scores: Any, grid: tuple[int, int], shape: tuple[int, int], assignment: Any = None
) -> tuple[Any, Any]:
    """Score and label of each pixel from scores [G, L] of groups, or of positions [h*w, L]."""
    if assignment is None:
        return strongest(PositionMaps.on_grid(scores.reshape(*grid, -1), shape))
    found = regions(GroupedImage(scores[None], grid, assignment[None]), shape)
    return strongest(RegionMaps(scores[None], found, (Box(0, 0, *shape),), shape, shape))


def cosine_maps(
    model: Any, pixels: Any, text: Any, protocol: Protocol, shape: tuple[int, int], batch: int = 8
) -> PositionMaps:
    """Cosines of phrases [Q, C] with the positions of a normalised image, torch [3, H', W']."""
    (encoded,) = encode_views(model, [lay_windows(pixels.numpy(), protocol)], batch)
    return maps_of(encoded, encoded.grouped.embedding @ text.T, protocol, shape)


def maps_of(
    encoded: EncodedView, scores: Any, protocol: Protocol, shape: tuple[int, int]
) -> PositionMaps:
    return PositionMaps.of(scores, encoded, shape, direct=protocol.one_pass)
