"""Names of results: no two images have the same, on any file system, and none is an image again."""

import hashlib
import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path, PurePath

from ovseg.data.annotations.formats import FORMATS
from ovseg.data.images import find_images
from ovseg.errors import DataError

PICTURES = (".overlay.png", ".labels.png", ".groups.png")
"""How the names of pictures end that are written beside each other."""

_LONGEST = 180  # bytes; what is added to a name must fit into the 255 of a file's
_RESERVED = {each.file.removesuffix(".json") for each in FORMATS.values()}  # of a whole run


def result_names(images: Sequence[Path]) -> dict[Path, str]:
    """A name for each image, by which its results start.

    That is the stem where it is the only one of its kind; else the file's name, with the folders
    that tell it from the others, joined by `__`; and if that is taken, with a number. Names that
    differ in nothing but case or the form of their accents count as one.
    """
    stems = Counter(_key(path.stem) for path in images)
    unlike = relative_names(images)
    names: dict[Path, str] = {}
    taken: set[str] = set()
    alone = [path for path in images if stems[_key(path.stem)] == 1]
    for path in [*(path for path in images if stems[_key(path.stem)] > 1), *alone]:
        joined = "__".join(PurePath(unlike[path]).parts)
        first = [path.stem] if stems[_key(path.stem)] == 1 else []
        names[path] = _free(path, [*first, joined], taken)
        taken.add(_key(names[path]))
    return names


def relative_names(images: Sequence[Path]) -> dict[Path, str]:
    """Each image's path below the folder that all are in, with `/`."""
    paths = {path: os.path.abspath(path) for path in images}
    folders = {os.path.dirname(path) for path in paths.values()}
    try:
        shared = os.path.commonpath(folders) if folders else ""
    except ValueError:  # on two drives
        return {path: Path(whole).as_posix().replace(":", "") for path, whole in paths.items()}
    return {path: Path(whole).relative_to(shared).as_posix() for path, whole in paths.items()}


def images_to_segment(
    asked: Sequence[str],
    output: Path | None = None,
    path_of_url: Callable[[str], Path] | None = None,
) -> list[Path]:
    """The images that `find_images` finds, without results that were written before.

    What is asked for by its own name is kept. Passed over are the output folder where it lies
    within a folder that is searched, pictures in it that are named like results, and wherever else
    an overlay lies beside its label map.

    Args:
        asked: files, folders and globs.
        output: the folder that results go to.
        path_of_url: as `find_images` takes it.

    Raises:
        UsageError, DataError: as `find_images`, and if nothing but results was found.
    """
    found = find_images(asked, path_of_url)
    named = {Path(name) for name in asked}
    folder = Path(os.path.abspath(output)) if output else None
    inside = folder is not None and any(_holds(Path(name), folder) for name in asked)
    images = []
    for path in found:
        below = folder is not None and folder in Path(os.path.abspath(path)).parents
        if path in named or not ((below and inside) or _is_result(path, certainly=below)):
            images.append(path)
    if not images:
        raise DataError(f"{', '.join(asked)}: no images but results of ovseg; name another folder")
    return images


def _holds(searched: Path, folder: Path) -> bool:
    return searched.is_dir() and Path(os.path.abspath(searched)) in folder.parents


def _is_result(path: Path, certainly: bool) -> bool:
    """Whether a picture is named like a result, and its companion is there or not needed."""
    for ending in PICTURES:
        if path.name.endswith(ending):
            base = path.name.removesuffix(ending)
            pair = (path.with_name(base + other) for other in PICTURES[:2])
            return certainly or all(other.is_file() for other in pair)
    return False


def _free(path: Path, wanted: Sequence[str], taken: set[str]) -> str:
    """The first of the wanted names that is free, or the last with a number."""
    numbered = (f"{wanted[-1]}-{number}" for number in count(2))
    for name in (_shortened(name, path) for source in (wanted, numbered) for name in source):
        # "x.rle" with .json behind it is what "x" has with .rle.json.
        key = _key(name)
        if key not in taken and not key.endswith(".rle") and key not in _RESERVED:
            return name
    raise AssertionError("numbers have no end")


def _shortened(name: str, path: Path) -> str:
    """A name that fits with whatever is added; one that was cut ends with a hash of its path."""
    encoded = os.fsencode(name)
    if len(encoded) <= _LONGEST:
        return name
    digest = hashlib.sha256(os.fsencode(os.path.abspath(path)) + encoded).hexdigest()[:12]
    return f"{encoded[: _LONGEST - 13].decode('utf-8', 'ignore')}-{digest}"


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
