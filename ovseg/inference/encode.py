"""Windows of many images through the encoder, each once.

Letters: M window of one view, G group, C embedding width, N position.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from itertools import chain
from typing import Any, Protocol, TypeVar

import numpy as np
from array_api_compat import device, is_torch_array

from ovseg.data.workers import map_chunks
from ovseg.distributed import shared_threads
from ovseg.inference.views import Box, View
from ovseg.models.interface import Array, GroupedImage, SegmentationModel, array_namespace

T = TypeVar("T")
R = TypeVar("R")

CHUNK = 16
"""Images that are worked on together. What shares a batch depends on it alone, and not on how many
processes there are or where a run was interrupted: so results are the same to the last bit."""

_MOST_WORKERS = 8
"""Images computed at once on a processor; beyond, each has several threads."""


@dataclass(frozen=True)
class EncodedView:
    """A view after the encoder: its M windows as a batch, embedding [M, G, C]."""

    grouped: GroupedImage
    view: View


class PositionEncoder(Protocol):
    """As much of a model as looking at windows takes."""

    def from_numpy(self, values: np.ndarray) -> Array: ...

    def encode_image(self, pixels: Array) -> GroupedImage: ...


def encode_views(
    model: PositionEncoder, views: Sequence[View], batch: int = CHUNK
) -> list[EncodedView]:
    """Encode all windows of all views, at most `batch` of one size at a time."""
    by_size: dict[tuple[int, int], list[tuple[int, Box]]] = defaultdict(list)
    for index, view in enumerate(views):
        by_size[view.padding.shape] += [(index, box) for box in view.boxes]
    pieces: dict[int, list[GroupedImage]] = defaultdict(list)
    for windows in by_size.values():
        for start in range(0, len(windows), batch):
            together = windows[start : start + batch]
            crops = np.stack([views[index].window(box) for index, box in together])
            grouped = model.encode_image(model.from_numpy(crops))
            for row, (index, _) in enumerate(together):
                pieces[index].append(_row(grouped, row))
    return [EncodedView(_join(pieces[index]), view) for index, view in enumerate(views)]


def _row(grouped: GroupedImage, row: int) -> GroupedImage:
    """One image of a batch, as a batch of one."""
    return _of_arrays(
        grouped.grid,
        [None if values is None else values[row : row + 1] for values in _arrays(grouped)],
    )


def _join(parts: Sequence[GroupedImage]) -> GroupedImage:
    """Batches of one, of the same size, as one batch."""
    if len(parts) == 1:
        return parts[0]
    xp: Any = array_namespace(parts[0].embedding)
    columns = zip(*map(_arrays, parts), strict=True)
    joined = [None if each[0] is None else xp.concat(list(each), axis=0) for each in columns]
    return _of_arrays(parts[0].grid, joined)


def _arrays(grouped: GroupedImage) -> list[Array | None]:
    """All that has a row for each image."""
    return [getattr(grouped, field.name) for field in fields(grouped) if field.name != "grid"]


def _of_arrays(grid: tuple[int, int], arrays: Sequence[Array | None]) -> GroupedImage:
    embedding, *more = arrays
    return GroupedImage(embedding, grid, *more)


def over_chunks(
    model: SegmentationModel,
    chunks: Iterable[Sequence[T]],
    views_in: Callable[[T], Sequence[View]],
    work: Callable[[T, list[EncodedView]], R],
    batch: int = CHUNK,
) -> Iterator[list[R]]:
    """What `work` makes of every item and its encoded views, chunk by chunk, in order.

    A GPU wants the windows of many images at once. On a processor they go image by image, whoever
    asks and however many there are, so that an image has the same labels alone and among others;
    with torch one thread computes one image: its cores then wait for each other at its end alone,
    not at the end of every operation, and small batches stay in its caches.

    Args:
        model: the encoder.
        chunks: items that may share a batch.
        views_in: the views of an item; none if it is not to be encoded.
        work: called with an item and its encoded views.
        batch: most windows that go through the encoder at once.
    """

    def of_piece(piece: Sequence[T]) -> list[R]:
        views = [view for item in piece for view in views_in(item)]
        encoded = iter(encode_views(model, views, batch))
        return [work(item, [next(encoded) for _ in views_in(item)]) for item in piece]

    where = _processor(model)
    if where is None:
        yield from map(of_piece, chunks)
        return
    pieces = ([[item] for item in chunk] for chunk in chunks)
    if where == "torch":
        yield from _on_threads(of_piece, pieces)
        return
    for chunk in pieces:
        yield list(chain.from_iterable(map(of_piece, chunk)))


def _on_threads(
    work: Callable[[Sequence[T]], list[R]], chunks: Iterable[Sequence[Sequence[T]]]
) -> Iterator[list[R]]:
    """As `map` over the pieces of every chunk, several at once; one alone has all threads."""
    chunks = iter(chunks)
    first, second = next(chunks, None), next(chunks, None)
    if first is None:
        return
    if second is None and len(first) == 1:
        yield work(first[0])
        return
    chunks = chain([first], [] if second is None else [second], chunks)
    with shared_threads(_MOST_WORKERS) as workers, ThreadPoolExecutor(workers) as pool:
        for results in map_chunks(pool, work, chunks, ahead=1):
            yield list(chain.from_iterable(results))


def _processor(model: SegmentationModel) -> str | None:
    """Whose threads compute the model on the CPU, `torch`'s or a runtime's own; None on a GPU."""
    values = model.from_numpy(np.zeros(1, np.float32))
    if not is_torch_array(values):
        return "runtime"
    return "torch" if str(device(values)) == "cpu" else None
