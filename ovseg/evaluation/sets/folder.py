"""Any folder of images with label PNGs beside it and a class file: `folder`.

Images and labels lie in two folders of the names below, or in `SPLIT` and `SPLITannot`, or in split
folders inside the two; a label file has its image's name, perhaps with an ending such as `_L`.

The class file has one class a line, in the order of the labels from 0, synonyms after `;`, or with
the colour of each class in front (`64 128 64  Animal`), as CamVid has it. A first class called
background is the background; classes called void, ignore or unlabelled are not counted.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ovseg.data.class_list import BACKGROUND, ClassList
from ovseg.data.images import SUFFIXES
from ovseg.documents import digits, read_text
from ovseg.errors import DataError, UsageError
from ovseg.evaluation.overlap import IGNORED, ignored_label, label_type
from ovseg.evaluation.sets.base import (
    LONGEST_LIST,
    EvaluationSample,
    EvaluationSet,
    Labels,
    SetLayout,
    paired_files,
    read_lines,
)
from ovseg.evaluation.sets.label_files import (
    look_up,
    lookup_table,
    read_colour_png,
    read_index_png,
    remap,
)
from ovseg.evaluation.sets.stored_values import AS_USUAL, MOST, StoredValues

IMAGE_FOLDERS = ("images", "image", "imgs", "img", "JPEGImages", "701_StillsRaw_full")
LABEL_FOLDERS = ("labels", "label", "annotations", "masks", "mask", "gt", "LabeledApproved_full")
CLASS_FILES = ("classes.txt", "codes.txt", "label_colors.txt")
LABEL_ENDINGS = ("", "_L", "_P", "_labels", "_label", "_mask", "_gt")
IGNORED_NAMES = frozenset({"void", "ignore", "ignored", "unlabelled", "unlabeled"})

_LOOKED_AT = 16  # label files looked at before the others are scored

FOLDER = SetLayout(
    "a folder set",
    f"images/ with photos, labels/ with PNG files of the same names, {CLASS_FILES[0]} with one "
    "class a line",
    "your own data",
    "any size",
)


@dataclass(frozen=True)
class ClassFile:
    """What a class file says: names in order of the stored labels, and colours if it has them."""

    entries: tuple[str, ...]
    colours: tuple[int, ...] | None

    @property
    def background(self) -> bool:
        """Whether the first class is the background."""
        return self.entries[0].split(";")[0].strip().casefold() == BACKGROUND

    @property
    def kept(self) -> tuple[int, ...]:
        """Stored labels that are counted, in order."""
        return tuple(
            index
            for index, entry in enumerate(self.entries)
            if entry.strip().casefold() not in IGNORED_NAMES
        )

    @property
    def words(self) -> ClassList:
        """The foreground classes that are counted."""
        entries = [self.entries[index] for index in self.kept]
        return ClassList.of(entries[1:] if self.background else entries)


def read_class_file(path: Path) -> ClassFile:
    """Read a class file of either form.

    Raises:
        DataError: it cannot be read, is empty, or only some lines have colours.
    """
    lines = read_text(path, LONGEST_LIST).splitlines()
    parsed = [_parse_line(line) for line in lines if line.split("#")[0].strip()]
    if not parsed:
        raise DataError(f"{path}: the class file names no class")
    colours = [colour for _, colour in parsed if colour is not None]
    if colours and len(colours) != len(parsed):
        raise DataError(f"{path}: some lines begin with a colour (R G B) and some do not")
    return ClassFile(tuple(name for name, _ in parsed), tuple(colours) or None)


def _parse_line(line: str) -> tuple[str, int | None]:
    """A class and its colour, packed as `read_colour_png` packs it."""
    words = line.split("#")[0].split()
    colour = [number for word in words[:3] if (number := digits(word, 3)) is not None]
    if len(words) > 3 and len(colour) == 3 and max(colour) < 256:
        return " ".join(words[3:]), colour[0] + 256 * colour[1] + 65536 * colour[2]
    return " ".join(words), None


def open_folder(data: Path, split: str | None, values: StoredValues = AS_USUAL) -> EvaluationSet:
    """Open a folder set.

    Args:
        data: its folder.
        split: the name of a list or of folders; all images by default.
        values: what the values in its label files mean, where that is not usual.

    Raises:
        DataError: files are missing or do not fit together.
        UsageError: there is no such split, or `values` names a class that is not there.
    """
    if not data.is_dir():
        raise DataError(f"{data}: no such folder")
    class_path = _first(data, CLASS_FILES)
    if class_path is None:
        raise FOLDER.missing(data, CLASS_FILES[0])
    classes = read_class_file(class_path)
    _check_split(data, split)
    images, labels = _folders(data, split)
    files, absent = _listed(data, split, _images(images))
    samples = paired_files(FOLDER, data, ((image, _label_file(labels, image)) for image in files))
    reader = _LabelReader(classes, class_path, values)
    reader.check_masks([Path(sample.key) for sample in samples])
    return EvaluationSet(
        name="folder",
        root=data,
        words=classes.words,
        background=classes.background,
        samples=samples,
        read_labels=reader.read_labels,
        labels_from=f"{labels.relative_to(data)}, {class_path.name}{values.words}",
        annotations=(class_path,),
        absent=absent,
    )


def _first(data: Path, names: tuple[str, ...]) -> Path | None:
    return next((data / name for name in names if (data / name).exists()), None)


def _folders(data: Path, split: str | None) -> tuple[Path, Path]:
    """The folder of images and that of labels."""
    if split and (data / f"{split}annot").is_dir():
        return data / split, data / f"{split}annot"
    images, labels = _first(data, IMAGE_FOLDERS), _first(data, LABEL_FOLDERS)
    if images is None or labels is None:
        beside = sorted(p.name.removesuffix("annot") for p in data.glob("*annot"))
        hint = f" (or choose --split {' or '.join(beside)})" if beside else ""
        raise FOLDER.missing(data, f"{'images/' if images is None else 'labels/'}{hint}")
    if split and (images / split).is_dir():
        return images / split, labels / split
    return images, labels


def _check_split(data: Path, split: str | None) -> None:
    """Raise UsageError if a split is asked for that has neither a list nor folders."""
    if split is None:
        return
    there = {path.stem for path in data.glob("*.txt") if path.name not in CLASS_FILES}
    there |= {path.name.removesuffix("annot") for path in data.glob("*annot") if path.is_dir()}
    images = _first(data, IMAGE_FOLDERS)
    if images is not None and images.is_dir():
        there |= {path.name for path in images.iterdir() if path.is_dir()}
    if split not in there:
        hint = f"choose --split {' or '.join(sorted(there))}" if there else "leave --split away"
        raise UsageError(
            f"{data}: there is no split {split}, neither as {split}.txt nor as a folder of "
            f"images: {hint}"
        )


def _images(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)


def _listed(
    data: Path, split: str | None, images: list[Path]
) -> tuple[list[Path], tuple[str, ...]]:
    """The images that `SPLIT.txt` names, where there is such a file, and its lines without one.

    A line is a file's name, with or without suffix or folders; flags may follow it.
    """
    path = data / f"{split}.txt"
    if split is None or not path.is_file():
        return images, ()
    files: dict[str, list[Path]] = {}
    for image in images:
        for key in {image.name, image.stem}:
            files.setdefault(key, []).append(image)
    found: set[Path] = set()
    absent = []
    for line in read_lines(path):
        matches = next((files[key] for key in _spellings(line) if key in files), [])
        found.update(matches)
        if not matches:
            absent.append(line)
    if not found:
        raise DataError(f"{path}: none of its {len(absent)} lines names an image of the folder")
    return [image for image in images if image in found], tuple(absent)


def _spellings(line: str) -> Iterator[str]:
    """What a line of a list may mean: the likeliest first."""
    for text in (line, line.split()[0]):
        name = Path(text).name
        yield from (text, name)
        if Path(name).suffix.lower() in SUFFIXES:  # a list of .jpg beside files of .png
            yield Path(name).stem


def _label_file(labels: Path, image: Path) -> Path:
    """An image's label file; a missing one goes under its image's name."""
    candidates = [labels / f"{image.stem}{ending}.png" for ending in LABEL_ENDINGS]
    return next((path for path in candidates if path.is_file()), candidates[0])


class _LabelReader:
    """Reads labels by index or by colour, as the class file says."""

    def __init__(self, classes: ClassFile, path: Path, values: StoredValues) -> None:
        self._path = path
        self._values = values
        self._known = len(classes.entries)
        label_of: Mapping[int, int] = {stored: label for label, stored in enumerate(classes.kept)}
        self._ignored = ignored_label(len(classes.kept))
        colours = classes.colours
        self._by_colour = colours and {
            colour: label_of.get(stored, self._ignored) for stored, colour in enumerate(colours)
        }
        self._check_values()
        meaning: dict[int, int | None] = {stored: stored for stored in range(self._known)}
        meaning |= dict.fromkeys(self._uncounted(), None) | dict(values.meaning)
        self._stored = np.zeros(MOST, bool)
        self._stored[list(meaning)] = True
        table = {
            value: self._ignored if stored is None else label_of.get(stored, self._ignored)
            for value, stored in meaning.items()
        }
        self._table = lookup_table(table, MOST, self._ignored, label_type(len(classes.kept)))

    def _check_values(self) -> None:
        if self._by_colour and self._values.given:
            raise UsageError(
                f"{self._path} tells classes by colour: ignore_label and label_map are for values"
            )
        strange = [n for n in self._values.meaning.values() if n is not None and n >= self._known]
        if strange:
            raise UsageError(
                f"label_map names class {strange[0]}: {self._path} has {self._known}, from 0"
            )

    def _uncounted(self) -> list[int]:
        """Values of pixels that are not counted."""
        if self._values.ignored is None:  # 16-bit files use either, unless it is a class
            return [n for n in (IGNORED, ignored_label(1 << 8)) if n >= self._known]
        return [self._values.ignored] if isinstance(self._values.ignored, int) else []

    def check_masks(self, paths: Sequence[Path]) -> None:
        """Raise DataError if these look like masks whose 255 is meant to be a class.

        Only with at most two classes, in a few of the files, and if nothing says that 255 is not
        counted.
        """
        if self._by_colour or self._known > 2 or self._values.given:
            return
        looked_at = paths[:: -(-len(paths) // _LOOKED_AT)]
        there = {path: set(np.unique(read_index_png(path)).tolist()) for path in looked_at}
        if set().union(*there.values()) - {0} == {IGNORED}:
            path = next(path for path, found in there.items() if IGNORED in found)
            raise DataError(
                f"{path}: holds 0 and 255 alone, and 255 means ignored: if it is class "
                f"{self._known - 1}, say label_map 255={self._known - 1} (--label-map); if not, "
                "ignore_label 255 (--ignore-label)"
            )

    def read_labels(self, sample: EvaluationSample) -> Labels:
        path = Path(sample.key)
        if self._by_colour:
            return self._from_colours(path)
        values = read_index_png(path)
        if values.size and not 0 <= int(values.min()) <= int(values.max()) < MOST:
            raise DataError(f"{path}: label {int(values.max())} is no value of 16 bits")
        strange = values[~look_up(self._stored, values)]
        if strange.size:
            raise DataError(
                f"{path}: label {int(strange.max())} has no line in {self._path.name}, which "
                f"names {self._known} classes: say what it means with label_map (--label-map)"
            )
        return remap(values, self._table, path)

    def _from_colours(self, path: Path) -> Labels:
        assert self._by_colour
        values = read_colour_png(path)
        colours, where = np.unique(values, return_inverse=True)
        if strange := [int(c) for c in colours if int(c) not in self._by_colour]:
            red, green, blue = strange[0] % 256, strange[0] // 256 % 256, strange[0] // 65536
            raise DataError(f"{path}: colour {red} {green} {blue} is not in {self._path.name}")
        found = [self._by_colour[int(colour)] for colour in colours]
        labels: Labels = np.array(found, self._table.dtype)[where].reshape(values.shape)
        return labels
