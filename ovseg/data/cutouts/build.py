"""Building a set of captioned scenes with ground truth from two folders.

    OUT/images/train/000000000.jpg + .txt         and the same for test
    OUT/annotations/panoptic_train.json + panoptic_train/000000000.png
    OUT/annotations/captions_train.json           COCO captions
    OUT/classes.txt, classes_test.txt             entities, one a line
    OUT/names.toml                                the name table used, to edit and pass again
    OUT/cutouts.tsv                               every file: what became of it and why
    OUT/summary.json                              counts, and the request

While it is being built `OUT/.build` holds what is needed to go on after a stop.
"""

import json
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ovseg.data.cutouts import annotations, backgrounds, library
from ovseg.data.cutouts.backgrounds import Background, BackgroundChunk
from ovseg.data.cutouts.compose import SceneChunk, Stock, make_chunk, write_stock
from ovseg.data.cutouts.library import CutOut, LibraryChunk
from ovseg.data.cutouts.request import (
    CutoutsRequest,
    Sources,
    find_sources,
    make_fingerprint,
    scene_counts,
)
from ovseg.data.cutouts.split import TEST, TRAIN, Split, split_backgrounds, split_cutouts
from ovseg.data.cutouts.tasks import Piece, run_pieces
from ovseg.data.workers import Progress
from ovseg.documents import fit, read_object
from ovseg.errors import DataError, UsageError
from ovseg.files import remove_leftovers, write_text
from ovseg.locks import holding_file

_SCENES_PER_PIECE = 64
_FILES_PER_PIECE = 32
_PHOTOGRAPHS_PER_PIECE = 4


@dataclass(frozen=True)
class Library:
    """Usable cut-outs and photographs, and [file, reason, words] of the others."""

    cutouts: list[CutOut]
    backgrounds: list[Background]
    rejected: list[list[str]]


@dataclass(frozen=True)
class _ReadCutouts:
    """What `library.read_chunk` tells."""

    cutouts: list[CutOut]
    rejected: list[list[str]]


@dataclass(frozen=True)
class _ReadBackgrounds:
    """What `backgrounds.read_chunk` tells."""

    backgrounds: list[Background]
    rejected: list[list[str]]


@dataclass(frozen=True)
class _Segment:
    id: int
    category_id: int


@dataclass(frozen=True)
class _Scene:
    number: int
    height: int
    width: int
    caption: str
    names: list[str]
    segments: list[_Segment]
    redrawn: int
    dropped: int


@dataclass(frozen=True)
class _Composed:
    """What `compose.make_chunk` tells."""

    scenes: list[_Scene]


@dataclass(frozen=True)
class CutoutsSummary:
    """What was built.

    Attributes:
        train, test: scenes.
        entities: entities with cut-outs, and how many of them occur in the test set.
        cutouts: usable cut-outs, by side.
        backgrounds: usable photographs.
        rejected: files left out, by reason; those of both folders.
        objects: objects in the scenes.
        redrawn: how often an object was placed anew, since too little of it was seen.
        dropped: objects left out because no place was found.
    """

    train: int
    test: int
    entities: int
    test_entities: int
    cutouts: dict[str, int]
    backgrounds: int
    rejected: dict[str, int]
    objects: int
    redrawn: int
    dropped: int


def build_cutouts(
    request: CutoutsRequest, workers: int = 1, progress: Progress | None = None
) -> CutoutsSummary:
    """Build the set, or go on where an earlier run of the same request stopped.

    The result depends on the request and the files alone, byte for byte.

    Raises:
        UsageError: the request makes no sense, `out` holds something else, or another run is at
            work there.
        DataError: a folder is missing, or nothing in it can be used.
        MissingDependencyError: there are SVGs and the extra `cutouts` is not installed.
    """
    with holding_file(request.out):
        return _build(request, workers, progress)


def _build(request: CutoutsRequest, workers: int, progress: Progress | None) -> CutoutsSummary:
    sources = find_sources(request)
    finished = _open_out(request, make_fingerprint(request, sources))
    if finished is not None:
        return finished
    work = request.out / ".build"
    found = read_library(request, sources, workers, progress)
    split = split_cutouts(found.cutouts, request.test_share, request.seed)
    stocks = _stocks(request, found, split)
    pieces: list[Piece[SceneChunk]] = []
    for side, count in zip((TRAIN, TEST), scene_counts(request), strict=True):
        if count:
            _require_stock(request, found, stocks[side], side)
            write_stock(work / f"stock-{side}.json", stocks[side])
            pieces += _scene_pieces(request, side, count)
    results = run_pieces("composing scenes", pieces, make_chunk, workers, progress)
    for result in results:
        fit(_Composed, {"scenes": result}, f"{work}: what was composed before")
    records = {
        side: [
            record
            for piece, result in zip(pieces, results, strict=True)
            if piece.arguments.side == side
            for record in result
        ]
        for side in (TRAIN, TEST)
    }
    summary = _summarise(found, split, stocks, records)
    _finish(request, found, split, stocks, records, summary)
    return summary


def _open_out(request: CutoutsRequest, fingerprint: dict[str, Any]) -> CutoutsSummary | None:
    """Begin or go on in `out`; the summary if everything is there already."""
    done, begun = request.out / "summary.json", request.out / ".build" / "request.json"
    for path in (done, begun):
        if not path.exists():
            continue
        document = read_object(path)
        _require_same(request.out, document.get("request"), fingerprint)
        if path == begun:
            remove_leftovers(request.out / ".build", lambda _: True)
            return None
        return fit(CutoutsSummary, document.get("summary"), f"{path}: summary")
    if request.out.exists() and any(request.out.iterdir()):
        raise UsageError(
            f"{request.out} is not empty and not a set of scenes: choose another --out"
        )
    write_text(begun, json.dumps({"request": fingerprint}))
    return None


def _require_same(out: Path, there: Any, asked: dict[str, Any]) -> None:
    if not isinstance(there, dict):
        raise UsageError(f"{out} holds a set that ovseg did not begin: choose another --out")
    changed = [key for key in asked if there.get(key) != asked[key]]
    if changed:
        raise UsageError(
            f"{out} holds a set built otherwise ({', '.join(changed)} differ): choose another "
            "--out, or delete it"
        )


def _stocks(request: CutoutsRequest, found: Library, split: Split) -> dict[str, Stock]:
    names = sorted({cutout.name for cutout in found.cutouts})
    category_of = {name: number for number, name in enumerate(names, start=1)}
    grounds = split_backgrounds(len(found.backgrounds), request.test_share, request.seed)
    stocks = {}
    for side, numbers in zip((TRAIN, TEST), grounds, strict=True):
        by_name: dict[str, list[CutOut]] = {}
        for number in split.numbers(side):
            by_name.setdefault(found.cutouts[number].name, []).append(found.cutouts[number])
        photographs = [found.backgrounds[number] for number in numbers]
        stocks[side] = Stock(by_name, photographs, category_of)
    return stocks


def _require_stock(request: CutoutsRequest, found: Library, stock: Stock, side: str) -> None:
    """Give up, leaving nothing behind, where a side has nothing to make scenes from."""
    if stock.backgrounds and stock.cutouts:
        return
    shutil.rmtree(request.out / ".build")
    counted = Counter(item[1] for item in found.rejected).most_common(4)
    reasons = ", ".join(f"{reason}: {count}" for reason, count in counted) or "none left out"
    if not stock.backgrounds:
        raise DataError(f"no usable photograph in {request.backgrounds} (left out: {reasons})")
    if not found.cutouts:
        raise DataError(f"no usable cut-out in {request.cutouts} (left out: {reasons})")
    raise DataError(
        f"no cut-out for the {side} set: an entity needs two different drawings to be on both "
        "sides; add cut-outs, or pass --test-share 0"
    )


def _scene_pieces(request: CutoutsRequest, side: str, count: int) -> list[Piece[SceneChunk]]:
    work = request.out / ".build"
    pieces = []
    for first in range(0, count, _SCENES_PER_PIECE):
        chunk = SceneChunk(
            stock=work / f"stock-{side}.json",
            pixels=work / "pixels",
            names=request.names,
            out=request.out,
            side=side,
            first=first,
            count=min(_SCENES_PER_PIECE, count - first),
            seed=request.seed,
            size=request.size,
        )
        pieces.append(Piece(work / f"scenes-{side}-{first:09d}.json", chunk, chunk.count))
    return pieces


def _summarise(
    found: Library,
    split: Split,
    stocks: dict[str, Stock],
    records: dict[str, list[dict[str, Any]]],
) -> CutoutsSummary:
    everything = [record for side in records.values() for record in side]
    reasons = Counter(reason for _, reason, *_ in found.rejected)
    return CutoutsSummary(
        train=len(records[TRAIN]),
        test=len(records[TEST]),
        entities=len(stocks[TRAIN].category_of),
        test_entities=len(stocks[TEST].cutouts),
        cutouts={side: len(split.numbers(side)) for side in (TRAIN, TEST)},
        backgrounds=len(found.backgrounds),
        rejected=dict(sorted(reasons.items(), key=lambda item: (-item[1], item[0]))),
        objects=sum(len(record["segments"]) for record in everything),
        redrawn=sum(record["redrawn"] for record in everything),
        dropped=sum(record["dropped"] for record in everything),
    )


def _finish(
    request: CutoutsRequest,
    found: Library,
    split: Split,
    stocks: dict[str, Stock],
    records: dict[str, list[dict[str, Any]]],
    summary: CutoutsSummary,
) -> None:
    """Write what describes the set as a whole, the summary last."""
    fingerprint = read_object(request.out / ".build" / "request.json")
    above = {cutout.name: cutout.supercategory for cutout in reversed(found.cutouts)}
    for side in (TRAIN, TEST):
        if records[side]:
            category_of = stocks[side].category_of
            present = {name: category_of[name] for name in sorted(stocks[side].cutouts)}
            annotations.write(request.out, side, records[side], present, above)
    annotations.write_classes(request.out / "classes.txt", stocks[TRAIN].category_of)
    if records[TEST]:
        annotations.write_classes(request.out / "classes_test.txt", stocks[TEST].cutouts)
    annotations.write_names(request.out / "names.toml", request.names)
    annotations.write_table(request.out / "cutouts.tsv", found.cutouts, split, found.rejected)
    document = {**fingerprint, "summary": asdict(summary)}
    write_text(request.out / "summary.json", json.dumps(document, indent=1) + "\n")
    shutil.rmtree(request.out / ".build")


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
    where = f"{work}: what was read before"
    parts = [fit(_ReadCutouts, result, where) for result in read]
    grounds = [fit(_ReadBackgrounds, result, where) for result in photographs]
    kept, rare = _keep_frequent([c for part in parts for c in part.cutouts], request.top_entities)
    return Library(
        kept,
        [background for part in grounds for background in part.backgrounds],
        [
            *(item for part in parts for item in part.rejected),
            *(item for part in grounds for item in part.rejected),
            *rare,
        ],
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
