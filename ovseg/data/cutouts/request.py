"""What to build from which files, and what that amounts to."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ovseg.data.cutouts import backgrounds, library
from ovseg.data.cutouts.naming import NameTable
from ovseg.documents import BOUNDS, read_bytes
from ovseg.errors import DataError, UsageError
from ovseg.files import local_path

_BYTES_PER_SCENE = 190  # per pixel of the longer side: 73 kB at 384, measured with the Debian sets


@dataclass(frozen=True)
class CutoutsRequest:
    """What to build.

    Attributes:
        cutouts: folder of cut-outs, read with all its folders.
        backgrounds: folder of photographs, likewise.
        out: folder of the set.
        count: scenes, training and test together.
        seed: of everything random.
        size: longer side of a scene, in pixels.
        test_share: share of scenes, and of every entity's cut-outs, kept for testing, 0..0.9.
        names: name table, or None for the built-in one.
        top_entities: how many entities to keep, those with most drawings; None keeps all.
    """

    cutouts: Path
    backgrounds: Path
    out: Path
    count: int
    seed: int = 0
    size: int = 384
    test_share: float = 0.1
    names: Path | None = None
    top_entities: int | None = None


@dataclass(frozen=True)
class CutoutsPlan:
    """What a request amounts to, before anything is read.

    Attributes:
        cutouts, backgrounds: files found.
        train, test: scenes.
        disk_bytes: about how much the set will take.
    """

    cutouts: int
    backgrounds: int
    train: int
    test: int
    disk_bytes: int


@dataclass(frozen=True)
class Sources:
    """The files of both folders, as paths within them, sorted."""

    cutouts: list[str]
    backgrounds: list[str]


def plan_cutouts(request: CutoutsRequest) -> CutoutsPlan:
    """Count files and scenes without reading or writing any.

    Raises:
        UsageError: the request makes no sense.
        DataError: a folder is missing or empty.
    """
    sources = find_sources(request)
    train, test = scene_counts(request)
    disk = request.count * request.size * _BYTES_PER_SCENE
    return CutoutsPlan(len(sources.cutouts), len(sources.backgrounds), train, test, disk)


def find_sources(request: CutoutsRequest) -> Sources:
    """The files of a request that makes sense; errors as for `plan_cutouts`."""
    if request.count < 1:
        raise UsageError(f"cannot build {request.count} scenes: --count must be 1 or more")
    if not 64 <= request.size <= 4096:
        raise UsageError(f"a scene of {request.size} pixels: --size must be 64 to 4096")
    if not 0 <= request.test_share <= 0.9:
        raise UsageError(f"--test-share {request.test_share} must be between 0 and 0.9")
    if request.count == 1 and request.test_share > 0:
        raise UsageError(
            "one scene cannot be divided into training and test: pass --test-share 0, or a "
            "--count of 2 or more"
        )
    if request.top_entities is not None and request.top_entities < 1:
        raise UsageError("--top-entities must be 1 or more")
    local_path(request.out)
    for folder in (request.cutouts, request.backgrounds):
        if not folder.is_dir():
            raise DataError(f"no such folder: {folder}")
    NameTable(request.names)  # a broken table is told before any work
    cutouts = library.find_cutouts(request.cutouts)
    photographs = backgrounds.find_backgrounds(request.backgrounds)
    if not cutouts:
        raise DataError(
            f"no cut-outs in {request.cutouts}: .svg files, or .png and .webp with a .txt beside"
        )
    if not photographs:
        raise DataError(f"no photographs (.jpg, .png, .webp) in {request.backgrounds}")
    return Sources(cutouts, photographs)


def scene_counts(request: CutoutsRequest) -> tuple[int, int]:
    """Scenes for training and for test; where a share is for testing, at least one each."""
    test = round(request.count * request.test_share)
    if request.test_share > 0:
        test = min(max(test, 1), request.count - 1)
    return request.count - test, test


def make_fingerprint(request: CutoutsRequest, sources: Sources) -> dict[str, Any]:
    """What the bytes of the set depend on; a later run must ask for the same to go on."""
    digest = hashlib.sha256()
    for folder, paths in (
        (request.cutouts, sources.cutouts),
        (request.backgrounds, sources.backgrounds),
    ):
        for path in paths:
            size = (folder / path).stat().st_size if (folder / path).is_file() else -1
            digest.update(f"{path}\0{size}\0".encode())
    table = read_bytes(request.names, BOUNDS.size) if request.names else b""
    top = {} if request.top_entities is None else {"top_entities": request.top_entities}
    return top | {
        "count": request.count,
        "seed": request.seed,
        "size": request.size,
        "test_share": request.test_share,
        "files": digest.hexdigest(),
        "names": hashlib.sha256(table).hexdigest() if table else "built in",
    }
