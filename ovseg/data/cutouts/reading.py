"""Reading the two folders a set of scenes is made of, in pieces that can be stopped and resumed."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ovseg.data.cutouts import backgrounds, library
from ovseg.data.cutouts.backgrounds import Background, BackgroundChunk
from ovseg.data.cutouts.library import CutOut, LibraryChunk
from ovseg.data.cutouts.request import CutoutsRequest, Sources
from ovseg.data.cutouts.tasks import Piece, run_pieces
from ovseg.data.workers import Progress

_FILES_PER_PIECE = 32
_PHOTOGRAPHS_PER_PIECE = 4


@dataclass(frozen=True)
class Library:
    """Usable cut-outs and photographs, and [file, reason, words] of the others."""

    cutouts: list[CutOut]
    backgrounds: list[Background]
    rejected: list[list[str]]


def read_library(
    request: CutoutsRequest, sources: Sources, workers: int, progress: Progress | None
) -> Library:
    """Read what was not read yet; the pixels go to `.build` in the set's folder."""
    work = request.out / ".build"
    chunks = [
        LibraryChunk(
            request.cutouts.resolve(),
            tuple(sources.cutouts[first : first + _FILES_PER_PIECE]),
            first,
            work / "pixels" / "cutouts",
            request.names,
        )
        for first in range(0, len(sources.cutouts), _FILES_PER_PIECE)
    ]
    pieces = [
        Piece(work / f"cutouts-{chunk.first:07d}.json", chunk, len(chunk.sources))
        for chunk in chunks
    ]
    read = run_pieces("reading cut-outs", pieces, library.read_chunk, workers, progress)
    photographs = _read_backgrounds(request, sources.backgrounds, workers, progress)
    cutouts = [CutOut(**item) for result in read for item in result["cutouts"]]
    kept, rare = _keep_frequent(cutouts, request.top_entities)
    return Library(
        kept,
        [
            Background(**{**item, "shows": tuple(item["shows"])})
            for result in photographs
            for item in result["backgrounds"]
        ],
        [*(item for result in (*read, *photographs) for item in result["rejected"]), *rare],
    )


def _keep_frequent(
    cutouts: Sequence[CutOut], top: int | None
) -> tuple[list[CutOut], list[list[str]]]:
    """The cut-outs of the entities with most drawings, and the others with the reason why not."""
    counts = Counter(cutout.name for cutout in cutouts)
    ranked = sorted(counts, key=lambda name: (-counts[name], name))[:top]
    reason = f"not among the {top} entities with most drawings"
    return (
        [cutout for cutout in cutouts if cutout.name in ranked],
        [[c.source, reason, c.words] for c in cutouts if c.name not in ranked],
    )


def _read_backgrounds(
    request: CutoutsRequest, sources: Sequence[str], workers: int, progress: Progress | None
) -> list[dict[str, Any]]:
    work = request.out / ".build"
    pieces = []
    for first in range(0, len(sources), _PHOTOGRAPHS_PER_PIECE):
        chunk = BackgroundChunk(
            request.backgrounds.resolve(),
            tuple(sources[first : first + _PHOTOGRAPHS_PER_PIECE]),
            first,
            work / "pixels" / "backgrounds",
            request.names,
        )
        pieces.append(Piece(work / f"backgrounds-{first:07d}.json", chunk, len(chunk.sources)))
    return run_pieces("reading photographs", pieces, backgrounds.read_chunk, workers, progress)
