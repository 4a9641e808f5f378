"""The layout of DAVIS: `JPEGImages/SEQUENCE/00000.jpg` and `Annotations/SEQUENCE/00000.png`.

Both may have a folder between them and the sequences, such as `480p`. Masks hold the number of an
object at each pixel, 0 for the background.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ovseg.data.class_list import ClassList
from ovseg.documents import read_text
from ovseg.errors import DataError
from ovseg.evaluation.sets.label_files import read_index_png

IMAGES, MASKS = "JPEGImages", "Annotations"
WORDS_FILE = "words.txt"
_MAX_WORDS_BYTES = 1 << 20


@dataclass(frozen=True)
class Sequence:
    """A video with masks.

    Attributes:
        name: of its folders.
        frames: folder of pictures.
        masks: of each frame, in order.
    """

    name: str
    frames: Path
    masks: tuple[Path, ...]

    def mask(self, number: int) -> NDArray[np.integer]:
        """Number of the object at each pixel of a frame, [H, W]."""
        return read_index_png(self.masks[number])


def read_davis(folder: Path) -> list[Sequence]:
    """All sequences that have both pictures and masks, by name.

    Raises:
        DataError: there are none, or a sequence's masks are not as many as its pictures.
    """
    pictures, masks = _sequences(folder / IMAGES), _sequences(folder / MASKS)
    found = []
    for name in sorted(pictures.keys() & masks.keys()):
        files = tuple(sorted(masks[name].glob("*.png")))
        count = len(list(pictures[name].glob("*.jpg")))
        if len(files) != count:
            raise DataError(f"{masks[name]}: {len(files)} masks for {count} pictures")
        found.append(Sequence(name, pictures[name], files))
    if not found:
        raise DataError(f"{folder}: no sequences; expected {IMAGES}/NAME/*.jpg, {MASKS}/NAME/*.png")
    return found


def _sequences(folder: Path) -> dict[str, Path]:
    """Folders of pictures by name, one level below the folder or two."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    below = [each for each in sorted(folder.iterdir()) if each.is_dir()]
    deeper = [each for one in below for each in sorted(one.iterdir()) if each.is_dir()]
    return {each.name: each for each in (deeper or below)}


def read_words(path: Path) -> dict[str, ClassList]:
    """What to ask for in each sequence, from lines such as `blackswan: swan;black swan`.

    Raises:
        DataError: the file cannot be read, or a line is no such line.
    """
    found = {}
    for number, line in enumerate(read_text(path, _MAX_WORDS_BYTES, DataError).splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, colon, phrases = line.partition(":")
        if not colon or not phrases.strip():
            raise DataError(f"{path}, line {number}: expected SEQUENCE: word;synonym")
        found[name.strip()] = ClassList.parse(phrases.strip())
    return found


def check_words(words: Mapping[str, ClassList], sequences: list[Sequence], path: Path) -> None:
    """See that every sequence has its words.

    Raises:
        DataError: one has none.
    """
    missing = [each.name for each in sequences if each.name not in words]
    if missing:
        raise DataError(f"{path}: no words for {', '.join(missing[:5])}")
